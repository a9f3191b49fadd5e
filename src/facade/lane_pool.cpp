#include "facade/lane_pool.hpp"

#include <algorithm>
#include <random>

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

LanePool::Turn::~Turn() {
    if (lane_ && !finished()) {
        lane_.reset();
    }
    if (entered_) {
        pool_.leave(std::move(lane_), failed_);
    } else if (lane_) {
        pool_.leave_outside(std::move(lane_));
    }
}

asio::io_context& LanePool::Turn::context() {
    used_ = true;
    lane_->context.restart();
    return lane_->context;
}

/// @returns whether nothing is left on the lane.
bool LanePool::Turn::finished() noexcept {
    if (!used_) {
        return true;
    }
    try {
        lane_->context.restart();
        lane_->context.poll();
        return lane_->context.stopped();
    } catch (...) {
        return false;
    }
}

LanePool::Lane::Lane(const LanePool& lanes)
    : pool(lanes.make_pool_(context.get_executor())),
      own(dynamic_cast<const ConnectionPool*>(pool.get())),
      core(std::make_shared<CacheCore>(pool, lanes.options_, lanes.telemetry_, lanes.breaker_,
                                       CacheCore::Serves::one_call)) {}

Failure LanePool::Lane::open(TimePoint until) {
    if (own == nullptr) {
        return Failure();
    }
    bool done = false;
    std::exception_ptr refused;
    asio::co_spawn(context, pool->connect(), [&](std::exception_ptr error, ConnectionLease) {
        done = true;
        refused = error;
    });
    while (!done && context.run_one_until(until) != 0) {
    }
    if (!done) {
        return Failure(Errc::timed_out,
                       "the call timed out before it could be sent: opening a connection for it "
                       "took too long");
    }
    context.restart();
    context.poll();
    return refused ? to_failure(refused, Errc::connect_failed) : Failure();
}

LanePool::LanePool(PoolFactory make_pool, std::size_t most, CacheOptions options)
    : make_pool_(std::move(make_pool)),
      most_(most),
      options_(std::move(options)),
      telemetry_(std::make_shared<Telemetry>(options_)),
      breaker_(CacheCore::make_breaker(options_, telemetry_)),
      attempts_(std::random_device()()) {}

Failure LanePool::enter(TimePoint until, std::unique_ptr<Lane>& lane) {
    Lock lock(mutex_);
    Place place = line_.empty() ? find_place() : Place();
    if (place.lane) {
        lane = std::move(place.lane);
        return Failure();
    }
    const Stopwatch stopwatch(telemetry_->observers);
    Failure failure = get_lane(lock, until, std::move(place), lane);
    lock.unlock();
    const bool waited = !lane || lane->own != nullptr;
    if (waited && !telemetry_->observers.empty()) {
        ConnectionWait wait;
        wait.waited = stopwatch.elapsed();
        wait.error = failure.code;
        telemetry_->observers.tell(
            [&](CacheInstrumentation& provider) { provider.record_connection_wait(wait); });
    }
    return failure;
}

/// Waits for a lane or opens one.
Failure LanePool::get_lane(Lock& lock, TimePoint until, Place place, std::unique_ptr<Lane>& lane) {
    Stand stand = Stand::last;
    for (;;) {
        if (!place.decided()) {
            place = wait_in_line(lock, until, stand);
        }
        if (place.failure) {
            return *place.failure;
        }
        if (place.lane) {
            lane = std::move(place.lane);
            return Failure();
        }
        Failure failure = open_lane(lock, until, lane);
        if (!failure.code || !keeps_line_waiting(failure)) {
            return failure;
        }
        // Nobody has waited longer.
        place = find_place();
        stand = Stand::first;
    }
}

/// Looks for what the next thread may do now; the mutex is held.
LanePool::Place LanePool::find_place() noexcept {
    Place place;
    if (!idle_.empty()) {
        place.lane = std::move(idle_.back());
        idle_.pop_back();
        ++busy_;
    } else if (busy_ + opening_ < most_) {
        const bool server_is_away = attempts_.failure() != nullptr;
        if (!server_is_away ||
            (opening_ == 0 && attempts_.next() <= std::chrono::steady_clock::now())) {
            place.may_open = true;
            ++opening_;
        } else if (busy_ == 0 && attempts_.hopeless()) {
            place.failure = attempts_.failure();
        }
    }
    return place;
}

/// Decides for those who have waited longest, as far as it can; the mutex is held.
void LanePool::serve_line() noexcept {
    while (!line_.empty()) {
        Place place = find_place();
        if (!place.decided()) {
            return;
        }
        Waiting& next = *line_.front();
        line_.pop_front();
        next.place = std::move(place);
        next.called.notify_one();
    }
}

LanePool::Place LanePool::wait_in_line(Lock& lock, TimePoint until, Stand stand) {
    Waiting self;
    line_.insert(stand == Stand::first ? line_.begin() : line_.end(), &self);
    lock.unlock();
    show_waiting(+1);
    lock.lock();
    while (!self.place.decided()) {
        const TimePoint now = std::chrono::steady_clock::now();
        if (now >= until) {
            line_.erase(std::find(line_.begin(), line_.end(), &self));
            wake_first();
            self.place.failure = too_late();
            break;
        }
        // The end of the pause between two attempts has nobody to announce it.
        const bool pauses = attempts_.failure() && now < attempts_.next();
        self.called.wait_until(lock, pauses ? std::min(until, attempts_.next()) : until);
        if (!self.place.decided()) {
            serve_line();
        }
    }
    lock.unlock();
    show_waiting(-1);
    lock.lock();
    return std::move(self.place);
}

/// @returns why a call whose deadline has come has no lane.
std::shared_ptr<const Failure> LanePool::too_late() const {
    Failure failure(Errc::timed_out, "the call timed out before it could be sent: ");
    failure.cause +=
        busy_ > 0 ? "all " + std::to_string(busy_) +
                        " lanes were busy (PoolOptions::max_size: " + std::to_string(most_) + ")"
                  : "no connection was open";
    if (const auto& refused = attempts_.failure()) {
        failure.cause += "; the last attempt to open one failed: " + refused->cause;
        failure.sqlstate = refused->sqlstate;
        failure.server_message = refused->server_message;
    }
    return std::make_shared<const Failure>(std::move(failure));
}

/// Uses the right to open a lane. @returns no code, or why there is none.
Failure LanePool::open_lane(Lock& lock, TimePoint until, std::unique_ptr<Lane>& lane) {
    const TimePoint began = std::chrono::steady_clock::now();
    std::unique_ptr<Lane> opened;
    Failure failure;
    try {
        idle_.reserve(idle_.size() + busy_ + opening_);
        lock.unlock();
        opened = std::make_unique<Lane>(*this);
        failure = opened->open(until);
    } catch (...) {
        // Out of descriptors, most likely.
        failure = to_failure(std::current_exception(), Errc::connect_failed);
    }
    if (failure.code) {
        opened.reset();
    }
    if (!lock.owns_lock()) {
        lock.lock();
    }
    --opening_;
    if (!failure.code) {
        attempts_.succeeded();
        ++busy_;
        lane = std::move(opened);
    } else if (failure.code != Errc::timed_out) {
        attempts_.failed(began, failure);
        if (const auto& refused = attempts_.failure(); refused && !keeps_line_waiting(failure)) {
            for (Waiting* waiting : line_) {
                waiting->place.failure = refused;
                waiting->called.notify_one();
            }
            line_.clear();
        }
        wake_first();
    }
    serve_line();
    return failure;
}

/// Lets the first in line look at the clock anew.
void LanePool::wake_first() noexcept {
    if (!line_.empty()) {
        line_.front()->called.notify_one();
    }
}

/// @returns whether those who wait for a lane may still get one.
bool LanePool::keeps_line_waiting(const Failure& failure) const noexcept {
    return failure.code != Errc::timed_out && (busy_ > 0 || opening_ > 0 || !idle_.empty());
}

void LanePool::show_waiting(std::ptrdiff_t more) const noexcept {
    PoolChange change;
    change.waiting = more;
    telemetry_->observers.tell(
        [&](CacheInstrumentation& provider) { provider.record_pool_change(change); });
}

void LanePool::leave(std::unique_ptr<Lane> lane, bool failed) noexcept {
    // With OnOutage::miss nobody hears of a failure.
    if (lane && (failed || breaker_) && !lane->connected()) {
        lane.reset();
    }
    const std::lock_guard lock(mutex_);
    --busy_;
    if (lane) {
        idle_.push_back(std::move(lane));
    }
    serve_line();
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
