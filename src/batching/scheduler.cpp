#include "batching/scheduler.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "batching/router.hpp"

namespace psycache::detail {

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

GroupLimits group_limits(std::size_t processors, std::size_t connections) noexcept {
    GroupLimits limits;
    if (connections > 0) {
        limits.workers = std::clamp<std::size_t>(connections, 2, limits.workers);
        limits.most_writing = std::max<std::size_t>(connections, 2) - 1;
    }
    if (processors == 1) {
        limits.workers = 2;
        limits.each = 16;
        limits.spread = false;
    }
    return limits;
}

GroupLimits thread_limits(std::size_t connections) noexcept {
    GroupLimits limits;
    limits.most = connections > 0 ? connections : std::numeric_limits<std::size_t>::max();
    limits.most_writing = connections > 0 ? std::max<std::size_t>(connections, 2) - 1 : limits.most;
    // Measured with 1 to 64 threads: with two or three of them 64 threads get a third less.
    limits.workers = std::min<std::size_t>(limits.most, 4);
    limits.spread = false;
    return limits;
}

bool Scheduler::add(std::shared_ptr<Call> call, std::size_t elsewhere) {
    if (counted_ + elsewhere >= capacity_ && !follows_its_own(*call)) {
        drop_settled();
        if (counted_ + elsewhere >= capacity_) {
            return false;
        }
    }
    Line& line = line_of(*call);
    const bool counts = !follows_its_own(*call);
    line.entries.push_back(Entry{std::move(call), tickets_++, counts});
    ++queued_;
    counted_ += counts ? 1 : 0;
    queued_reads_ += line.operation->writes ? 0 : 1;
    return true;
}

void Scheduler::add_first(const Calls& calls) {
    for (auto call = calls.rbegin(); call != calls.rend(); ++call) {
        Line& line = line_of(**call);
        line.entries.push_front(Entry{*call, --first_tickets_, false});
        ++queued_;
        queued_reads_ += line.operation->writes ? 0 : 1;
    }
}

/// @returns whether the last call of the line has the same owner, who is alive while it waits.
bool Scheduler::follows_its_own(const Call& call) {
    const Line& line = line_of(call);
    return call.together != nullptr && !line.entries.empty() &&
           line.entries.back().call->together == call.together &&
           !line.entries.back().call->settled();
}

Scheduler::Line& Scheduler::line_of(const Call& call) {
    const auto known = std::find_if(lines_.begin(), lines_.end(), [&](const Line& line) {
        return line.operation == &call.operation && line.route == call.route;
    });
    return known != lines_.end() ? *known
                                 : lines_.emplace_back(Line{&call.operation, call.route, {}});
}

void Scheduler::drop_empty_routes() {
    std::erase_if(lines_, [](const Line& line) { return line.route && line.entries.empty(); });
}

void Scheduler::pop(Line& line) noexcept {
    counted_ -= line.entries.front().counts ? 1 : 0;
    line.entries.pop_front();
    --queued_;
    queued_reads_ -= line.operation->writes ? 0 : 1;
}

void Scheduler::drop_settled() {
    for (Line& line : lines_) {
        const std::size_t gone = std::erase_if(line.entries, [this](const Entry& entry) {
            const bool settled = entry.call->settled();
            counted_ -= settled && entry.counts ? 1 : 0;
            return settled;
        });
        queued_ -= gone;
        queued_reads_ -= line.operation->writes ? 0 : gone;
    }
}

Calls Scheduler::take_all() {
    Calls all;
    for (Line& line : lines_) {
        for (Entry& entry : line.entries) {
            all.push_back(std::move(entry.call));
        }
        line.entries.clear();
    }
    queued_ = 0;
    queued_reads_ = 0;
    counted_ = 0;
    return all;
}

/// @returns how many calls wait that may be served: writes may have to wait.
std::size_t Scheduler::servable() const noexcept {
    return writes_allowed() ? queued_ : queued_reads_;
}

bool Scheduler::another_wanted() const noexcept {
    return coming_ == 0 && limits_.worth_another(servable(), workers_);
}

bool Scheduler::call_worker() noexcept {
    if (!another_wanted()) {
        return false;
    }
    ++workers_;
    ++coming_;
    return true;
}

TimePoint Scheduler::stuck_at() const noexcept {
    const bool may_be = coming_ == 0 && workers_ > 0 && workers_ < limits_.most && queued_ > 0;
    return may_be ? last_start_ + stuck_after : TimePoint::max();
}

bool Scheduler::call_worker_if_stuck(TimePoint now) noexcept {
    if (now < stuck_at()) {
        return false;
    }
    ++workers_;
    ++coming_;
    return true;
}

bool Scheduler::call_lone_worker(std::size_t callers, bool writes) noexcept {
    // With more callers than connections it is better to share.
    const std::size_t most = callers <= limits_.most ? limits_.most : limits_.workers;
    if (queued_ > 0 || workers_ >= most || (writes && !writes_allowed())) {
        return false;
    }
    ++workers_;
    writing_ += writes ? 1 : 0;
    return true;
}

bool Scheduler::begin_maintenance(bool waits) noexcept {
    if (writing_ >= limits_.most_writing) {
        maintenance_waiting_ += waits ? 0 : 1;
        return false;
    }
    maintenance_waiting_ -= waits ? 1 : 0;
    ++writing_;
    return true;
}

void Scheduler::coming(Worker& worker) noexcept {
    if (!worker.coming) {
        worker.coming = true;
        ++coming_;
        writing_ -= worker.writing ? 1 : 0;
        worker.writing = false;
    }
}

void Scheduler::ended(const Worker& worker) noexcept {
    --workers_;
    coming_ -= worker.coming ? 1 : 0;
    writing_ -= worker.writing ? 1 : 0;
}

Calls Scheduler::next_group(Worker& worker, LockRetry& locked, WriteOrder& order, TimePoint now) {
    coming(worker);
    worker.coming = false;
    --coming_;
    last_start_ = now;
    const std::size_t parts = coming_ == 0 ? limits_.parts(servable(), workers_ - 1) : 1;
    Calls calls;
    while (calls.empty()) {
        Line* const line = oldest(!writes_allowed());
        if (line == nullptr) {
            // Ending and finding nothing are one step: a call that comes later calls a new worker.
            ended(worker);
            return calls;
        }
        const Operation& operation = *line->operation;
        // What is on its way to a route costs as much for few calls as for many: they stay
        // together.
        calls = cut(*line, line->route ? 1 : parts);
        drop_empty_routes();
        if (operation.writes) {
            const bool apart = operation.traits.keys_apart;
            std::erase_if(calls, [&](const std::shared_ptr<Call>& call) {
                if (locked.add_behind(call, now) || order.add_behind(call)) {
                    return true;
                }
                if (apart) {
                    order.begin(*call);
                }
                return false;
            });
            for (const auto& call : calls) {
                if (!apart) {
                    order.begin(*call);
                }
            }
        }
    }
    worker.writing = calls.front()->operation.writes;
    writing_ += worker.writing ? 1 : 0;
    return calls;
}

/// @returns the line whose first call has waited longest.
Scheduler::Line* Scheduler::oldest(bool reads_only) noexcept {
    Line* oldest = nullptr;
    for (Line& line : lines_) {
        if (reads_only && line.operation->writes) {
            continue;
        }
        while (!line.entries.empty() && line.entries.front().call->settled()) {
            pop(line);
        }
        if (!line.entries.empty() &&
            (oldest == nullptr || line.entries.front().ticket < oldest->entries.front().ticket)) {
            oldest = &line;
        }
    }
    return oldest;
}

/// @returns whether a call joins a group that has its share: it is of the last one's owner, or
/// wants the same key.
bool Scheduler::belongs(const Call& call, const Call& last, std::size_t size) const noexcept {
    return (call.together != nullptr && call.together == last.together) ||
           (size < limits_.shared && call.key == last.key);
}

/// Cuts the next group off a line, one of so many parts. Settled calls are left out; the calls of
/// one owner are not parted while they fit, nor those of one key that came in a row.
Calls Scheduler::cut(Line& line, std::size_t parts) {
    auto& entries = line.entries;
    const std::size_t share = std::min(limits_.shared, (entries.size() + parts - 1) / parts);
    Calls group;
    group.reserve(std::min(share, entries.size()));
    std::size_t bytes = 0;
    const bool one_server = line.route && line.route->pool;
    const std::size_t most = line.operation->shares(one_server) ? limits_.calls : 1;
    while (!entries.empty() && group.size() < most) {
        std::shared_ptr<Call>& next = entries.front().call;
        if (!next->settled()) {
            if (group.size() >= share && !belongs(*next, *group.back(), group.size())) {
                break;
            }
            const bool large = next->bytes > limits_.alone;
            if (!group.empty() && (large || bytes + next->bytes > limits_.bytes)) {
                break;
            }
            bytes += next->bytes;
            group.push_back(std::move(next));
            if (large) {
                pop(line);
                break;
            }
        }
        pop(line);
    }
    return group;
}

}  // namespace psycache::detail
