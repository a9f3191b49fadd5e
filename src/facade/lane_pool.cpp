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

void LanePool::Turn::drop_unless_finished() {
    bool finished = lane_->context.stopped();
    if (!finished) {
        try {
            lane_->context.poll();
            finished = lane_->context.stopped();
        } catch (...) {
            // Unfinished, then.
        }
    }
    if (!finished) {
        lane_.reset();
    }
}

LanePool::LanePool(PoolFactory make_pool, std::size_t most, CacheOptions options)
    : make_pool_(std::move(make_pool)),
      most_(most),
      options_(std::move(options)),
      telemetry_(std::make_shared<Telemetry>(options_)) {}

void LanePool::enter(std::string_view operation, TimePoint until, std::unique_ptr<Lane>& lane) {
    {
        std::unique_lock lock(mutex_);
        if (busy_ >= most_ || !line_.empty()) {
            Waiting self;
            line_.push_back(&self);
            const bool called = self.called.wait_until(lock, until, [&] { return self.may_go; });
            if (!called) {
                line_.erase(std::find(line_.begin(), line_.end(), &self));
                lock.unlock();
                const Failure failure(Errc::timed_out,
                                      "the call timed out before it could be sent: all " +
                                          std::to_string(most_) +
                                          " lanes were busy (PoolOptions::max_size)");
                telemetry_->error(failure.code);
                throw to_error(operation, failure);
            }
            // Whoever called has left its place to this thread: busy_ counts it already.
        } else {
            ++busy_;
        }
        if (!idle_.empty()) {
            lane = std::move(idle_.back());
            idle_.pop_back();
            return;
        }
    }
    try {
        lane = std::make_unique<Lane>(make_pool_, options_, telemetry_);
    } catch (...) {
        leave(nullptr);
        throw;
    }
}

void LanePool::leave(std::unique_ptr<Lane> lane) noexcept {
    const std::lock_guard lock(mutex_);
    if (lane) {
        idle_.push_back(std::move(lane));
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

std::shared_ptr<CleanupThread> LanePool::start_cleanup(Duration interval) {
    return std::make_shared<CleanupThread>(make_pool_, options_, telemetry_, interval);
}

CacheStatistics LanePool::statistics() const {
    CacheStatistics now = telemetry_->statistics();
    const std::lock_guard lock(mutex_);
    now.queued = line_.size();
    return now;
}

}  // namespace psycache::detail
