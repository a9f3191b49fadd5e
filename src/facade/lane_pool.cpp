#include "facade/lane_pool.hpp"

#include <algorithm>

namespace psycache::detail {

namespace {

thread_local const void* innermost = nullptr;

}  // namespace

LanePool::Inside::Inside(const LanePool& pool, std::string_view operation)
    : pool_(pool), outer_(static_cast<const Inside*>(innermost)) {
    for (const Inside* around = outer_; around != nullptr; around = around->outer_) {
        if (&around->pool_ == &pool) {
            throw to_error(operation,
                           Failure(Errc::reentrant_call,
                                   "a blocking call was made from inside another one of the same "
                                   "cache, where it could wait for itself"));
        }
    }
    innermost = this;
}

LanePool::Inside::~Inside() {
    innermost = outer_;
}

void LanePool::Turn::call_ended(bool failed) {
    failed_ = failed;
    bool finished = false;
    try {
        lane_->context.restart();
        lane_->context.poll();
        finished = lane_->context.stopped();
    } catch (...) {
        // Unfinished, then.
    }
    if (!finished) {
        lane_.reset();
    }
}

LanePool::LanePool(PoolFactory make_pool, std::size_t most, CacheOptions options)
    : make_pool_(std::move(make_pool)),
      most_(most),
      options_(std::move(options)),
      telemetry_(std::make_shared<Telemetry>(options_)),
      breaker_(CacheCore::make_breaker(options_, telemetry_)) {}

Failure LanePool::enter(TimePoint until, std::unique_ptr<Lane>& lane) {
    {
        std::unique_lock lock(mutex_);
        if (busy_ < most_ && line_.empty()) {
            ++busy_;
        } else if (!wait_in_line(lock, until)) {
            return Failure(Errc::timed_out, "the call timed out before it could be sent: all " +
                                                std::to_string(most_) +
                                                " lanes were busy (PoolOptions::max_size)");
        }
        if (!idle_.empty()) {
            lane = std::move(idle_.back());
            idle_.pop_back();
            return Failure();
        }
    }
    try {
        lane = std::make_unique<Lane>(*this);
    } catch (...) {
        // Out of descriptors, most likely.
        leave(nullptr, true);
        return to_failure(std::current_exception(), Errc::connect_failed);
    }
    return Failure();
}

/// @returns whether the thread was called; whoever called has left its place to it, so that busy_
/// counts it already.
bool LanePool::wait_in_line(std::unique_lock<std::mutex>& lock, TimePoint until) {
    const Stopwatch stopwatch(telemetry_->observers);
    Waiting self;
    line_.push_back(&self);
    lock.unlock();
    show_waiting(+1);
    lock.lock();
    const bool called = self.called.wait_until(lock, until, [&] { return self.may_go; });
    if (!called) {
        line_.erase(std::find(line_.begin(), line_.end(), &self));
    }
    lock.unlock();
    show_waiting(-1);
    if (!telemetry_->observers.empty()) {
        ConnectionWait wait;
        wait.waited = stopwatch.elapsed();
        wait.error = called ? boost::system::error_code() : make_error_code(Errc::timed_out);
        telemetry_->observers.tell(
            [&](CacheInstrumentation& provider) { provider.record_connection_wait(wait); });
    }
    lock.lock();
    return called;
}

void LanePool::show_waiting(std::ptrdiff_t more) const noexcept {
    PoolChange change;
    change.waiting = more;
    telemetry_->observers.tell(
        [&](CacheInstrumentation& provider) { provider.record_pool_change(change); });
}

void LanePool::leave(std::unique_ptr<Lane> lane, bool failed) noexcept {
    // Taken from the back: one that got no connection comes last, so that calls go to those that
    // have one while the server gives no more.
    const bool connected = !failed || (lane && lane->connected());
    const std::lock_guard lock(mutex_);
    if (lane) {
        idle_.insert(connected ? idle_.end() : idle_.begin(), std::move(lane));
    }
    if (line_.empty()) {
        --busy_;
        return;
    }
    Waiting& next = *line_.front();
    line_.pop_front();
    next.may_go = true;
    next.called.notify_one();
}

std::unique_ptr<LanePool::Lane> LanePool::outside_lane() {
    {
        const std::lock_guard lock(mutex_);
        if (!outside_.empty()) {
            std::unique_ptr<Lane> lane = std::move(outside_.back());
            outside_.pop_back();
            return lane;
        }
    }
    return std::make_unique<Lane>(*this);
}

void LanePool::leave_outside(std::unique_ptr<Lane> lane) noexcept {
    try {
        const std::lock_guard lock(mutex_);
        outside_.push_back(std::move(lane));
    } catch (...) {
        // Out of memory: the next one is made anew.
    }
}

std::shared_ptr<CleanupThread> LanePool::start_cleanup(Duration interval) {
    return std::make_shared<CleanupThread>(make_pool_, options_, telemetry_, interval);
}

CacheStatistics LanePool::statistics() const {
    CacheStatistics now = telemetry_->statistics();
    now.queued = waiting();
    now.circuit_open = breaker_ && breaker_->open();
    return now;
}

std::size_t LanePool::waiting() const {
    const std::lock_guard lock(mutex_);
    return line_.size();
}

}  // namespace psycache::detail
