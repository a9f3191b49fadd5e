#include "batching/locked_keys.hpp"

#include <algorithm>
#include <utility>

namespace psycache {

std::deque<LockedKeys::Key>::iterator LockedKeys::find(std::string_view key) noexcept {
    return std::find_if(keys_.begin(), keys_.end(),
                        [&](const Key& one) { return one.name == key; });
}

bool LockedKeys::holds(std::string_view key) const noexcept {
    return std::any_of(keys_.begin(), keys_.end(), [&](const Key& one) { return one.name == key; });
}

void LockedKeys::add(std::shared_ptr<Call> call, TimePoint now) {
    auto key = find(call->key);
    if (key == keys_.end()) {
        keys_.push_back(Key{{}, call->key, now + shortest_pause, shortest_pause});
        key = std::prev(keys_.end());
    }
    key->calls.push_back(std::move(call));
    ++calls_;
}

TimePoint LockedKeys::due() const noexcept {
    return std::min_element(keys_.begin(), keys_.end(),
                            [](const Key& a, const Key& b) { return a.due < b.due; })
        ->due;
}

Calls LockedKeys::take_due() {
    Calls calls;
    const auto key = std::min_element(keys_.begin(), keys_.end(),
                                      [](const Key& a, const Key& b) { return a.due < b.due; });
    if (key == keys_.end()) {
        return calls;
    }
    while (!key->calls.empty()) {
        std::shared_ptr<Call>& next = key->calls.front();
        if (!next->settled()) {
            if (!calls.empty() && next->kind != calls.front()->kind) {
                break;
            }
            calls.push_back(std::move(next));
        }
        key->calls.pop_front();
        --calls_;
    }
    if (calls.empty()) {
        keys_.erase(key);
    }
    return calls;
}

void LockedKeys::still_locked(const Calls& calls, TimePoint now) {
    const auto key = find(calls.front()->key);
    if (key == keys_.end()) {
        return;
    }
    key->calls.insert(key->calls.begin(), calls.begin(), calls.end());
    calls_ += calls.size();
    key->pause = std::min(2 * key->pause, longest_pause);
    key->due = now + key->pause;
}

Calls LockedKeys::freed(std::string_view name) {
    Calls left;
    const auto key = find(name);
    if (key != keys_.end()) {
        left.assign(std::make_move_iterator(key->calls.begin()),
                    std::make_move_iterator(key->calls.end()));
        calls_ -= left.size();
        keys_.erase(key);
    }
    return left;
}

Calls LockedKeys::take_all() {
    Calls all;
    while (!keys_.empty()) {
        const Calls some = freed(std::string(keys_.front().name));
        all.insert(all.end(), some.begin(), some.end());
    }
    return all;
}

}  // namespace psycache
