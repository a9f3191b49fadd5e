#include "blocking/blocking_core.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <utility>

namespace psycache::detail {

namespace {

thread_local const void* innermost = nullptr;

}  // namespace

BlockingCore::Inside::Inside(BlockingCore& core, std::string_view operation)
    : core_(core), outer_(static_cast<const Inside*>(innermost)) {
    for (const Inside* around = outer_; around != nullptr; around = around->outer_) {
        if (&around->core_ == &core) {
            throw to_error(operation,
                           Failure(Errc::reentrant_call,
                                   "a blocking call was made from inside another one of the same "
                                   "cache, where it could wait for itself"));
        }
    }
    if (core.forks_ != pg::forks()) {
        throw to_error(operation, forked_failure());
    }
    innermost = this;
    core_.callers_.fetch_add(1, std::memory_order_relaxed);
}

BlockingCore::Inside::~Inside() {
    innermost = outer_;
    core_.callers_.fetch_sub(1, std::memory_order_acq_rel);
    core_.clear_up();
}

BlockingCore::BlockingCore(std::shared_ptr<PoolSource> pools, CacheOptions options)
    : pools_(std::move(pools)),
      options_(std::move(options)),
      telemetry_(options_),
      pool_(pools_->make_pool(loop_.context().get_executor())),
      core_(std::make_shared<CacheCore>(
          pool_, options_, telemetry_, CacheCore::Blocking{&loop_, pools_->blocks()},
          make_near_cache(options_, *pool_, telemetry_.observers, listener_.executor(),
                          [this] { listener_.start(); }))) {
    if (!pools_->blocks()) {
        core_->own_pool = std::static_pointer_cast<ConnectionPool>(core_->pool);
    }
}

BlockingCore::~BlockingCore() {
    // Its thread is waited for, though the core may have other owners.
    if (core_->near) {
        core_->near->stop();
    }
}

bool BlockingCore::drain(Duration patience) {
    const Inside inside(*this, "drain");
    bool ended = false;
    const auto draining = [&]() -> asio::awaitable<void> {
        auto waiting = detail::drain(core_, patience);
        ended = co_await std::move(waiting);
    };
    run_on_loop(draining());
    return ended;
}

void BlockingCore::settle(CallSpan calls) {
    if (calls.size() == 1) {
        auto rest = core_->batcher->perform_alone(calls.front(), callers_);
        if (rest) {
            wait_for(*calls.front(), calls, std::move(*rest));
        }
        return;
    }
    const auto batch = std::make_shared<Batch>(core_->batcher, calls);
    for (const auto& call : calls) {
        call->owner = batch;
        call->together = batch.get();
    }
    wait_for(*batch, calls, Batcher::Rest());
}

/// Looks after what is left on the loop where no thread drives it.
void BlockingCore::clear_up() {
    if (!loop_.has_leftovers()) {
        return;
    }
    if (callers_.load(std::memory_order_acquire) == 0) {
        // No call is left to whom it could matter.
        core_->batcher->give_up_statements();
        pools_->dismiss_waiters();
    }
    loop_.run_ready();
}

/// Waits until calls are settled, to their deadline at most, and works meanwhile as wanted.
/// @param waited what they are waited for by: the one call itself, or their batch.
void BlockingCore::wait_for(Waited& waited, CallSpan calls, Batcher::Rest rest) {
    Batcher& batcher = *core_->batcher;
    const auto thread = std::make_shared<WaitingThread>();
    waited.wait_in_thread([thread] { thread->answer(); });
    TimePoint deadline = calls.front()->deadline;
    // When to see whether the calls are stuck in the queue.
    auto patience = Scheduler::stuck_after;
    std::optional<WorkerTurn> turn = batcher.enqueue(calls, thread, std::move(rest));
    for (;;) {
        if (turn) {
            batcher.work_in_thread(std::move(*turn), *thread, deadline);
        }
        turn = thread->take_turn();
        if (thread->answered()) {
            break;
        }
        if (turn) {
            continue;
        }
        if (Clock::now() >= deadline) {
            for (const auto& call : calls) {
                batcher.time_out(*call);
            }
            // One that is being answered at this moment will be in another.
            deadline = TimePoint::max();
            continue;
        }
        const TimePoint look = Clock::now() + patience;
        loop_.wait(*thread, std::min(deadline, look));
        if (Clock::now() >= look && !thread->answered()) {
            patience = std::min(2 * patience, 8 * Scheduler::stuck_after);
            turn = batcher.turn_if_stuck();
        }
    }
    if (turn) {
        batcher.hand_on(std::move(*turn));
    }
    if (auto late = thread->leave()) {
        batcher.hand_on(std::move(*late));
    }
}

/// Runs a coroutine on the event loop, which the calling thread drives where no other does.
void BlockingCore::run_on_loop(asio::awaitable<void> task) {
    const auto thread = std::make_shared<WaitingThread>();
    std::exception_ptr thrown;
    asio::co_spawn(loop_.context(), std::move(task), [&](std::exception_ptr error) {
        thrown = error;
        thread->answer();
    });
    loop_.loop_has_work();
    while (!thread->answered()) {
        loop_.wait(*thread, TimePoint::max());
    }
    if (thrown) {
        std::rethrow_exception(thrown);
    }
}

void BlockingCore::warm_up() {
    const Inside inside(*this, "warm_up");
    if (cache()->near) {
        cache()->near->listen();
    }
    const auto warm = [&]() -> asio::awaitable<void> {
        auto warming = pools_->warm_up();
        const std::optional<Failure> failure = co_await std::move(warming);
        if (failure) {
            throw to_error("warm_up", *failure);
        }
    };
    run_on_loop(warm());
}

std::optional<PoolStatistics> BlockingCore::pool_statistics() {
    clear_up();
    return pools_->statistics();
}

std::shared_ptr<CleanupThread> BlockingCore::start_cleanup(Duration interval) const {
    return std::make_shared<CleanupThread>(*pools_, options_, telemetry_, interval);
}

}  // namespace psycache::detail
