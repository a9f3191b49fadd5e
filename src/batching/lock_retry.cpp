#include "batching/lock_retry.hpp"

#include <algorithm>
#include <iterator>

namespace psycache::detail {

namespace {

/// Rows that are due so soon are looked at together.
constexpr std::chrono::milliseconds together{2};

}  // namespace

LockRetry::Key& LockRetry::key_of(const std::string& name) {
    return keys_.find(name)->second;
}

/// @param due when; earlier if the role's limit for one of the calls comes earlier.
void LockRetry::schedule(Keys::value_type& key, ByDue& line, TimePoint due) {
    for (const auto& call : key.second.calls) {
        due = std::min(due, call->progress.lock_limit);
    }
    key.second.due = due;
    line.emplace(due, &key.first);
}

void LockRetry::pause(Keys::value_type& key, TimePoint now) {
    key.second.pause = std::min(2 * key.second.pause, longest_pause);
    schedule(key, key.second.conflicts ? tries_ : looks_, now + key.second.pause);
}

void LockRetry::add(std::shared_ptr<Call> call, std::string holder, std::optional<LockLimit> limit,
                    TimePoint now) {
    if (add_behind(call, now)) {
        return;
    }
    auto& key = *keys_.try_emplace(call->key).first;
    key.second.hidden = holder.empty();
    key.second.holder = std::move(holder);
    key.second.limit = std::move(limit);
    add_behind(call, now);
    schedule(key, looks_, now + shortest_pause);
}

void LockRetry::add_conflicting(std::shared_ptr<Call> call, TimePoint now) {
    if (add_behind(call, now)) {
        return;
    }
    auto& key = *keys_.try_emplace(call->key).first;
    key.second.conflicts = true;
    add_behind(call, now);
    schedule(key, tries_, now + shortest_pause);
}

bool LockRetry::add_behind(const std::shared_ptr<Call>& call, TimePoint now) {
    if (!holds(call->key)) {
        return false;
    }
    Key& key = key_of(call->key);
    call->progress.locked = !key.conflicts;
    call->progress.sent = false;
    if (key.limit) {
        call->progress.lock_limit = now + key.limit->after;
        call->progress.limit_sqlstate = key.limit->sqlstate;
    }
    key.calls.push_back(call);
    ++calls_;
    return true;
}

TimePoint LockRetry::due() const noexcept {
    TimePoint first = TimePoint::max();
    if (!looks_.empty()) {
        first = looks_.begin()->first;
    }
    if (!tries_.empty()) {
        first = std::min(first, std::max(tries_.begin()->first, next_try_));
    }
    return first;
}

/// Forgets calls of a key that wait no longer. @returns whether none is left, and the key is gone.
bool LockRetry::drop(Keys::iterator key, TimePoint now, Calls& limited) {
    calls_ -= std::erase_if(key->second.calls, [&](const std::shared_ptr<Call>& call) {
        if (!call->settled() && call->progress.lock_limit <= now) {
            limited.push_back(call);
            return true;
        }
        return call->settled();
    });
    if (!key->second.calls.empty()) {
        return false;
    }
    keys_.erase(key);
    return true;
}

LockRetry::Due LockRetry::take_due(TimePoint now) {
    Due due;
    while (!looks_.empty() && looks_.begin()->first <= now + together &&
           due.looks.size() < most_at_once) {
        const auto key = keys_.find(*looks_.begin()->second);
        looks_.erase(looks_.begin());
        if (!drop(key, now, due.limited)) {
            due.looks.push_back(key->first);
            due.operation = &key->second.calls.front()->operation;
        }
    }
    if (due.looks.empty() && next_try_ <= now) {
        due.tries = next_tries(now, due.limited);
    }
    return due;
}

/// @returns the calls of the key that is to be tried first, as far as they are of one operation.
Calls LockRetry::next_tries(TimePoint now, Calls& limited) {
    Calls taken;
    while (taken.empty() && !tries_.empty() && tries_.begin()->first <= now) {
        const auto key = keys_.find(*tries_.begin()->second);
        tries_.erase(tries_.begin());
        if (drop(key, now, limited)) {
            continue;
        }
        auto& calls = key->second.calls;
        while (!calls.empty() &&
               (taken.empty() || &calls.front()->operation == &taken.front()->operation)) {
            taken.push_back(std::move(calls.front()));
            calls.pop_front();
        }
        calls_ -= taken.size();
    }
    return taken;
}

/// Moves the calls of a key, which is gone then.
void LockRetry::release(Keys::iterator key, Calls& freed) {
    auto& calls = key->second.calls;
    calls_ -= calls.size();
    freed.insert(freed.end(), std::make_move_iterator(calls.begin()),
                 std::make_move_iterator(calls.end()));
    looks_.erase({key->second.due, &key->first});
    tries_.erase({key->second.due, &key->first});
    keys_.erase(key);
}

Calls LockRetry::seen(const std::vector<std::string>& looks, const LockSight& sight,
                      TimePoint now) {
    std::unordered_map<std::string_view, std::string_view> holders;
    for (const auto& held : sight.held) {
        holders.emplace(held.key, held.holder);
    }
    Calls freed;
    for (const std::string& name : looks) {
        const auto key = keys_.find(name);
        Key& its = key->second;
        const auto held = holders.find(name);
        const std::string_view holder = held != holders.end() ? held->second : std::string_view();
        if (holder.empty() && !its.hidden) {
            release(key, freed);
            continue;
        }
        const bool changed_hands = !its.holder.empty() && holder != its.holder;
        its.holder = holder;
        if (holder.empty() || changed_hands) {
            schedule(*key, tries_, now);
        } else {
            its.hidden = false;
            pause(*key, now);
        }
    }
    return freed;
}

Calls LockRetry::not_seen(const std::vector<std::string>& looks, TimePoint now) {
    for (const std::string& name : looks) {
        schedule(*keys_.find(name), tries_, now);
    }
    return {};
}

Calls LockRetry::tried(const std::string& name, const Calls& calls, bool in_vain, TimePoint now) {
    next_try_ = now + shortest_pause;
    Calls freed;
    const auto key = keys_.find(name);
    if (!in_vain) {
        const bool hidden = key->second.hidden;
        release(key, freed);
        // Others that no look has shown were most likely locked by the same transaction.
        for (auto other = keys_.begin(); hidden && other != keys_.end();) {
            const auto next = std::next(other);
            if (other->second.hidden && !other->second.conflicts) {
                release(other, freed);
            }
            other = next;
        }
        return freed;
    }
    Key& its = key->second;
    its.calls.insert(its.calls.begin(), calls.begin(), calls.end());
    calls_ += calls.size();
    its.hidden = its.holder.empty();
    pause(*key, now);
    return freed;
}

Calls LockRetry::take_all() {
    Calls all;
    for (auto& [name, key] : keys_) {
        all.insert(all.end(), std::make_move_iterator(key.calls.begin()),
                   std::make_move_iterator(key.calls.end()));
    }
    keys_.clear();
    looks_.clear();
    tries_.clear();
    calls_ = 0;
    return all;
}

}  // namespace psycache::detail
