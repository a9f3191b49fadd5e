#include "blocking/get_or_create.hpp"

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "cache/creation.hpp"

namespace psycache::detail {

namespace {

using Step = LoadSteps::Step;

/// The keys whose loaders run in this thread, from the innermost outwards.
class InsideLoader {
  public:
    InsideLoader(const BlockingCore& core, std::vector<std::string> keys)
        : core_(core), keys_(std::move(keys)), outer_(innermost) {
        innermost = this;
    }
    InsideLoader(const InsideLoader&) = delete;
    InsideLoader& operator=(const InsideLoader&) = delete;
    ~InsideLoader() { innermost = outer_; }

    /// @throws Error where a loader of this thread loads the key: it would wait for itself.
    static void refuse(const BlockingCore& core, const std::string& key) {
        for (const InsideLoader* one = innermost; one != nullptr; one = one->outer_) {
            const bool its =
                std::find(one->keys_.begin(), one->keys_.end(), key) != one->keys_.end();
            if (&one->core_ == &core && its) {
                throw to_error(LookUpOne::name,
                               Failure(Errc::reentrant_call,
                                       "a loader wants the value of its own key, for which it "
                                       "would wait for ever"));
            }
        }
    }

  private:
    const BlockingCore& core_;
    const std::vector<std::string> keys_;
    const InsideLoader* const outer_;

    static thread_local const InsideLoader* innermost;
};
thread_local const InsideLoader* InsideLoader::innermost = nullptr;

/// A wait that another thread can end.
class Pause {
  public:
    template <class Over>
    void until(TimePoint end, const Over& over) {
        std::unique_lock lock(mutex_);
        ended_.wait_until(lock, end, over);
    }
    void end() {
        const std::lock_guard lock(mutex_);
        ended_.notify_one();
    }

  private:
    std::mutex mutex_;
    std::condition_variable ended_;
};

/// Runs one statement of a load. @returns why it failed; the failure has been counted.
template <class Request>
std::exception_ptr ask(BlockingCore& core, Request request, const CallOptions& options,
                       std::optional<typename Request::Value>& answer) {
    try {
        answer.emplace(core.perform(std::move(request), options));
    } catch (...) {
        return std::current_exception();
    }
    return nullptr;
}

/// Runs loads to their end, as run_loads() of cache/get_or_create.cpp does in a coroutine. They are
/// never abandoned: the thread that runs them waits for them.
void run_loads(BlockingCore& core, LoadGroup& group, const Loader& loader) {
    if (group.empty()) {
        return;
    }
    const CallOptions options = group.call();
    const std::shared_ptr<NearCache>& near = core.cache()->near;
    Pause pause;
    std::unique_ptr<ChangeWaits::Wait> changes;  // by those who load meanwhile
    for (group.settle(); !group.empty(); group.settle()) {
        LoadGroup::Members members;
        if (!(members = group.at(Step::claim)).empty()) {
            std::optional<std::vector<Claimed>> claimed;
            const auto error =
                ask(core, Together<ClaimOne>(LoadGroup::claims(members)), options, claimed);
            for (std::size_t i = 0; i < members.size(); ++i) {
                members[i]->progress.claimed(error, error ? Claimed() : (*claimed)[i]);
            }
        } else if (!(members = group.at(Step::look)).empty()) {
            if (changes) {
                changes->looks();
            } else if (near) {
                changes = near->wait_for(LoadGroup::keys(members), [&pause] { pause.end(); });
            }
            std::optional<std::vector<Found>> found;
            const auto error =
                ask(core, Together<LookAgain>(LoadGroup::looks(members)), options, found);
            for (std::size_t i = 0; i < members.size(); ++i) {
                members[i]->progress.looked(error, error ? Found() : std::move((*found)[i]));
            }
        } else if (!(members = group.at(Step::load)).empty()) {
            for (LoadGroup::Member* const member : members) {
                member->progress.loading();
            }
            LoadedValues values;
            std::exception_ptr error;
            try {
                const InsideLoader inside(core, LoadGroup::keys(members));
                values = loader(LoadGroup::keys(members));
            } catch (...) {
                error = std::current_exception();
            }
            LoadGroup::loaded(members, error, std::move(values));
        } else if (!(members = group.at(Step::publish)).empty()) {
            std::vector<PublishOne> publications = LoadGroup::publications(members);
            if (members.empty()) {
                continue;
            }
            std::optional<std::vector<bool>> stored;
            const auto error =
                ask(core, Together<PublishOne>(std::move(publications)), options, stored);
            for (std::size_t i = 0; i < members.size(); ++i) {
                members[i]->progress.published(error, !error && (*stored)[i]);
            }
        } else if (!(members = group.at(Step::give_back)).empty()) {
            std::optional<std::vector<bool>> given;
            static_cast<void>(
                ask(core, Together<EndOne>(LoadGroup::ends(members)), options, given));
            for (LoadGroup::Member* const member : members) {
                member->progress.given_back();
            }
        } else {
            members = group.at(Step::pause);
            pause.until(LoadGroup::pause(members), [&] { return changes && changes->changed(); });
            for (LoadGroup::Member* const member : members) {
                member->progress.paused();
            }
        }
    }
}

/// Runs loads in a thread of their own.
void run_beside(BlockingCore& core, LoadGroup group, const Loader& loader) {
    if (group.empty()) {
        return;
    }
    auto own = std::make_shared<LoadGroup>(std::move(group));
    core.renewals().start([&core, own, loader] { run_loads(core, *own, loader); });
}

/// Waits for a load, until @p deadline at most.
void wait_for(Loads& loads, const std::shared_ptr<Load>& load,
              const std::shared_ptr<LoadWait>& waiting, TimePoint deadline) {
    std::mutex mutex;
    std::condition_variable changed;
    bool settled = false;
    waiting->wait_in_thread([&mutex, &changed, &settled] {
        const std::lock_guard lock(mutex);
        settled = true;
        changed.notify_one();
    });
    loads.wait(load, waiting);
    std::unique_lock lock(mutex);
    const auto is_settled = [&] { return settled; };
    if (deadline == TimePoint::max()) {
        changed.wait(lock, is_settled);
    } else if (!changed.wait_until(lock, deadline, is_settled)) {
        lock.unlock();
        waiting->time_out();
        // By this thread, or by another one that was faster.
        lock.lock();
        changed.wait(lock, is_settled);
    }
}

}  // namespace

bool get_or_create_value(BlockingCore& core, std::string key, const CreateOptions& options,
                         const Loader& loader, ValueReader reader, bool must_have) {
    const auto terms = std::make_shared<const Creation::Terms>(options, reader, must_have);
    Creation creation(core.cache(), terms, std::move(key));
    InsideLoader::refuse(core, creation.key());
    if (creation.found_in_memory()) {
        return true;
    }
    const std::shared_ptr<Loads>& loads = core.cache()->loads;
    for (;;) {
        const TimePoint since = Clock::now();
        Found found = core.perform(creation.look_up(), terms->look(*core.cache()));
        Creation::Next next = creation.found(found, since);
        if (next.renewal) {
            LoadGroup renewal;
            renewal.add(core.cache()->shown(), std::move(*next.renewal), creation.order(),
                        LoadSteps::Kind::renewal, found.sight);
            run_beside(core, std::move(renewal), loader);
        }
        if (next.answered) {
            return true;
        }
        const CallerPlace its_place(loads, next.load);
        if (next.duty) {
            LoadGroup load;
            load.add(core.cache()->shown(), std::move(*next.duty), creation.order(), next.kind,
                     found.sight);
            run_loads(core, load, loader);
        }
        const auto waiting = std::make_shared<LoadWait>();
        wait_for(*loads, next.load, waiting, terms->deadline);
        if (const auto has_value = creation.loaded(*waiting)) {
            return *has_value;
        }
    }
}

std::vector<bool> get_or_create_values(BlockingCore& core, const std::vector<std::string>& keys,
                                       const CreateOptions& options, const Loader& loader,
                                       ValueReader reader, bool must_have) {
    const auto terms = std::make_shared<const Creation::Terms>(options, reader, must_have);
    Creations creations(core.cache(), terms, keys);
    for (const std::string& key : keys) {
        InsideLoader::refuse(core, key);
    }
    creations.find_in_memory();
    for (; !creations.done(); creations.next_round()) {
        const TimePoint since = Clock::now();
        std::vector<Found> found =
            core.perform(Together<LookUpOne>(creations.look_ups()), terms->look(*core.cache()));
        LoadGroup to_load;
        LoadGroup to_renew;
        creations.found(std::move(found), since, to_load, to_renew);
        run_beside(core, std::move(to_renew), loader);
        run_loads(core, to_load, loader);
        const std::vector<std::shared_ptr<Load>> loads = creations.loads();
        for (std::size_t i = 0; i < loads.size(); ++i) {
            const auto waiting = std::make_shared<LoadWait>();
            wait_for(*core.cache()->loads, loads[i], waiting, terms->deadline);
            creations.loaded(i, *waiting);
        }
    }
    return std::move(creations).values();
}

}  // namespace psycache::detail
