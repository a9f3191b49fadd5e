#include "batching/call_queue.hpp"

#include <algorithm>
#include <utility>

namespace psycache {

std::size_t GroupLimits::parts(std::size_t waiting, std::size_t busy) const noexcept {
    const std::size_t least = spread && busy == 0 && waiting >= 2 ? 2 : 1;
    const std::size_t free = busy < workers ? workers - busy : 1;
    return std::min(std::max(waiting / each, least), free);
}

bool GroupLimits::worth_another(std::size_t waiting, std::size_t busy) const noexcept {
    if (busy < std::min<std::size_t>(workers, 2)) {
        return waiting > 0;
    }
    return (busy < workers && waiting >= each) || (busy < most && waiting >= shared);
}

GroupLimits one_at_a_time() noexcept {
    GroupLimits limits;
    limits.most = 1;
    limits.workers = 1;
    return limits;
}

GroupLimits group_limits(std::size_t processors, std::size_t connections) noexcept {
    GroupLimits limits;
    limits.workers = std::clamp<std::size_t>(connections, 2, limits.workers);
    if (processors == 1) {
        limits.workers = 2;
        limits.each = 16;
        limits.spread = false;
    }
    return limits;
}

bool CallQueue::push(std::shared_ptr<Call> call, std::size_t others) {
    if (size() + others >= capacity_) {
        drop_settled();
        if (size() + others >= capacity_) {
            return false;
        }
    }
    push_back(std::move(call));
    return true;
}

void CallQueue::push_back(std::shared_ptr<Call> call) {
    auto& line = lines_[static_cast<std::size_t>(call->kind)];
    line.push_back(Entry{std::move(call), tickets_++});
    ++size_;
}

void CallQueue::pop(std::deque<Entry>& line) noexcept {
    line.pop_front();
    --size_;
}

std::size_t CallQueue::share(std::size_t waiting, Take take) const noexcept {
    if (take.whole) {
        return limits_.calls;
    }
    return std::min(limits_.shared, (waiting + take.parts - 1) / take.parts);
}

/// @returns whether a call joins a group that has its share: it is of the last one's owner, or
/// wants the same key.
bool CallQueue::belongs(const Call& call, const Call& last, std::size_t size) const noexcept {
    return (call.together != nullptr && call.together == last.together) ||
           (size < limits_.shared && call.key == last.key);
}

Calls CallQueue::next_group(Take take, Serve serve) {
    std::deque<Entry>* longest = nullptr;
    for (auto& line : lines_) {
        if (serve == Serve::gets && &line != &lines_[static_cast<std::size_t>(CallKind::get)]) {
            continue;
        }
        while (!line.empty() && line.front().call->settled()) {
            pop(line);
        }
        if (!line.empty() &&
            (longest == nullptr || line.front().ticket < longest->front().ticket)) {
            longest = &line;
        }
    }
    Calls group;
    if (longest == nullptr) {
        return group;
    }
    const std::size_t most = share(longest->size(), take);
    group.reserve(std::min(most, longest->size()));
    std::size_t bytes = 0;
    while (!longest->empty() && group.size() < limits_.calls) {
        std::shared_ptr<Call>& next = longest->front().call;
        if (!next->settled()) {
            if (group.size() >= most && !belongs(*next, *group.back(), group.size())) {
                break;
            }
            const bool large = next->bytes() > limits_.alone;
            if (!group.empty() && (large || bytes + next->bytes() > limits_.bytes)) {
                break;
            }
            bytes += next->bytes();
            group.push_back(std::move(next));
            if (large) {
                pop(*longest);
                break;
            }
        }
        pop(*longest);
    }
    return group;
}

Calls CallQueue::take_all() {
    Calls all;
    for (auto& line : lines_) {
        for (Entry& entry : line) {
            all.push_back(std::move(entry.call));
        }
        line.clear();
    }
    size_ = 0;
    return all;
}

void CallQueue::drop_settled() {
    for (auto& line : lines_) {
        size_ -= std::erase_if(line, [](const Entry& entry) { return entry.call->settled(); });
    }
}

void DeadlineList::insert(Call& call) noexcept {
    Call* before = last_;
    while (before != nullptr && call.deadline < before->deadline) {
        before = before->earlier_;
    }
    call.earlier_ = before;
    call.later_ = before == nullptr ? first_ : before->later_;
    (call.earlier_ == nullptr ? first_ : call.earlier_->later_) = &call;
    (call.later_ == nullptr ? last_ : call.later_->earlier_) = &call;
    call.linked_ = true;
}

void DeadlineList::remove(Call& call) noexcept {
    if (!call.linked_) {
        return;
    }
    (call.earlier_ == nullptr ? first_ : call.earlier_->later_) = call.later_;
    (call.later_ == nullptr ? last_ : call.later_->earlier_) = call.earlier_;
    call.earlier_ = nullptr;
    call.later_ = nullptr;
    call.linked_ = false;
}

}  // namespace psycache
