#include "loading/loads.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace psycache::detail {

namespace {

template <class Map>
void make_room(Map& map, std::size_t most) {
    // Which one goes hardly matters: what is forgotten is done once more.
    if (map.size() >= most) {
        map.erase(map.begin());
    }
}

}  // namespace

Loads::Loads() : random_(std::random_device()()) {}

/// @returns what keeps a key quiet, if something does. Under the lock.
const Loads::Quiet* Loads::quiet(const std::string& key, TimePoint now) {
    const auto found = quiet_.find(key);
    if (found == quiet_.end()) {
        return nullptr;
    }
    if (found->second.until <= now) {
        quiet_.erase(found);
        return nullptr;
    }
    return &found->second;
}

Loads::Place Loads::join(const std::string& key, TimePoint now, std::int64_t version,
                         TimePoint since) {
    const std::lock_guard lock(mutex_);
    Place place;
    auto& load = in_progress_[key];
    const bool overtaken = load && load->asked_ < since && load->version_ != version;
    if (!load || overtaken) {
        const Quiet* const failed = quiet(key, now);
        if (failed != nullptr && failed->error) {
            if (!load) {
                in_progress_.erase(key);
            }
            place.error = failed->error;
            return place;
        }
        load = std::make_shared<Load>(key);
        place.starts = true;
    }
    ++load->callers_;
    place.load = load;
    return place;
}

std::shared_ptr<Load> Loads::renew(const std::string& key, TimePoint now, std::int64_t version) {
    const std::lock_guard lock(mutex_);
    if (in_progress_.contains(key) || quiet(key, now) != nullptr) {
        return nullptr;
    }
    auto load = std::make_shared<Load>(key);
    load->renewal_ = true;
    load->version_ = version;
    in_progress_.emplace(key, load);
    return load;
}

void Loads::begins(const std::shared_ptr<Load>& load, std::int64_t version, TimePoint asked) {
    const std::lock_guard lock(mutex_);
    load->version_ = version;
    load->asked_ = asked;
}

/// Its key has no load any more, unless another one has taken its place. Under the lock.
void Loads::forget(const std::shared_ptr<Load>& load) {
    const auto found = in_progress_.find(load->key);
    if (found != in_progress_.end() && found->second == load) {
        in_progress_.erase(found);
    }
}

std::exception_ptr Loads::recent_error(const std::string& key, TimePoint now) {
    const std::lock_guard lock(mutex_);
    const Quiet* const failed = quiet(key, now);
    return failed == nullptr ? nullptr : failed->error;
}

void Loads::wait(const std::shared_ptr<Load>& load, std::shared_ptr<LoadWait> waiting) {
    std::shared_ptr<const LoadResult> result;
    {
        const std::lock_guard lock(mutex_);
        if (!load->ended_) {
            load->waiting_.push_back(std::move(waiting));
            return;
        }
        result = load->result_;
    }
    waiting->settle_with([&] { waiting->result = result; });
}

void Loads::leave(const std::shared_ptr<Load>& load) {
    std::function<void()> tell;
    std::vector<std::shared_ptr<LoadWait>> settled;
    {
        const std::lock_guard lock(mutex_);
        --load->callers_;
        // A long load sees many who leave.
        if (load->waiting_.size() > 2 * load->callers_ + 16) {
            const auto gone = std::partition(load->waiting_.begin(), load->waiting_.end(),
                                             [](const auto& one) { return !one->settled(); });
            settled.assign(std::make_move_iterator(gone),
                           std::make_move_iterator(load->waiting_.end()));
            load->waiting_.erase(gone, load->waiting_.end());
        }
        if (load->callers_ > 0 || load->renewal_ || load->ended_ || load->abandoned_) {
            return;
        }
        load->abandoned_ = true;
        forget(load);
        tell = load->on_abandoned_;
    }
    if (tell) {
        tell();
    }
}

void Loads::on_abandoned(const std::shared_ptr<Load>& load, std::function<void()> tell) {
    bool late = false;
    {
        const std::lock_guard lock(mutex_);
        late = load->abandoned_;
        if (!load->ended_) {
            load->on_abandoned_ = tell;
        }
    }
    if (late && tell) {
        tell();
    }
}

bool Loads::abandoned(const std::shared_ptr<Load>& load) const {
    const std::lock_guard lock(mutex_);
    return load->abandoned_;
}

std::size_t Loads::end(const std::shared_ptr<Load>& load, LoadResult result,
                       TimePoint quiet_until) {
    std::vector<std::shared_ptr<LoadWait>> waiting;
    std::function<void()> no_longer;
    std::size_t callers = 0;
    auto shared = std::make_shared<const LoadResult>(std::move(result));
    {
        const std::lock_guard lock(mutex_);
        if (load->ended_) {
            return 0;
        }
        load->ended_ = true;
        callers = load->callers_;
        load->result_ = shared;
        waiting.swap(load->waiting_);
        no_longer.swap(load->on_abandoned_);
        if (load->abandoned_) {
            return callers;
        }
        forget(load);
        if (quiet_until != TimePoint::min()) {
            make_room(quiet_, most_remembered);
            quiet_.insert_or_assign(load->key, Quiet{quiet_until, shared->error});
        } else if (shared->value) {
            quiet_.erase(load->key);
        }
    }
    for (const auto& one : waiting) {
        one->settle_with([&] { one->result = shared; });
    }
    return callers;
}

void Loads::loaded(const std::string& key, Duration took) {
    const std::lock_guard lock(mutex_);
    make_room(took_, most_remembered);
    took_.insert_or_assign(key, took);
}

Duration Loads::took(const std::string& key) const {
    const std::lock_guard lock(mutex_);
    const auto found = took_.find(key);
    return found == took_.end() ? Duration::zero() : found->second;
}

double Loads::random() {
    const std::lock_guard lock(mutex_);
    const double numbers = static_cast<double>(std::minstd_rand::max());
    return static_cast<double>(random_()) / numbers;
}

}  // namespace psycache::detail
