#include "cache/cleanup_task.hpp"

#include <array>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <cstdio>
#include <exception>

namespace psycache::detail {

/// Its timer is the waiting coroutine's own: this object may live on in another thread for a moment
/// when that coroutine's context is gone.
class CleanupTask::StopWaiter final : public Completion<Result<bool>> {
    void cancelled(asio::cancellation_type) override { this->settle(cancelled_failure()); }
};

namespace {

/// Tells the task that its loop has ended, also when the loop is destroyed with its context.
class LoopEnd {
  public:
    explicit LoopEnd(std::function<void()> tell) : tell_(std::move(tell)) {}
    LoopEnd(LoopEnd&& other) noexcept : tell_(std::exchange(other.tell_, nullptr)) {}
    LoopEnd& operator=(LoopEnd&&) = delete;
    ~LoopEnd() {
        if (tell_) {
            tell_();
        }
    }

  private:
    std::function<void()> tell_;
};

}  // namespace

CleanupTask::CleanupTask(CacheCore::Self core, const asio::any_io_executor& executor)
    : core_(std::move(core)), strand_(asio::make_strand(executor)) {}

void CleanupTask::start(Duration interval) {
    LoopEnd end([self = shared_from_this()] { self->ended(); });
    // Started on the strand: the signal's slot is connected there, where the signal is emitted.
    asio::post(strand_, [self = shared_from_this(), interval, end = std::move(end)]() mutable {
        asio::co_spawn(self->strand_, CacheCore::run_cleanup(self->core_, interval),
                       asio::bind_cancellation_slot(self->stop_signal_.slot(),
                                                    [end = std::move(end)](std::exception_ptr) {}));
    });
}

void CleanupTask::request_stop() noexcept {
    try {
        asio::post(strand_, [self = shared_from_this()] {
            self->stop_signal_.emit(asio::cancellation_type::terminal);
        });
    } catch (...) {
        core_->observers().log(LogLevel::error, "the cleanup task could not be asked to stop");
    }
}

void CleanupTask::ended() noexcept {
    std::vector<std::shared_ptr<StopWaiter>> waiters;
    {
        const std::lock_guard lock(mutex_);
        ended_ = true;
        waiters.swap(waiters_);
    }
    for (const auto& waiter : waiters) {
        waiter->settle(true);
    }
}

asio::awaitable<bool> CleanupTask::stop(std::shared_ptr<CleanupTask> self,
                                        std::optional<Duration> timeout) {
    self->request_stop();
    asio::steady_timer timer(co_await asio::this_coro::executor);
    auto start = [self, timeout, &timer](std::shared_ptr<Completion<Result<bool>>> completion) {
        self->wait_for_end(std::static_pointer_cast<StopWaiter>(std::move(completion)), timer,
                           timeout);
    };
    const auto waiter = std::make_shared<StopWaiter>();
    auto end = StopWaiter::wait(waiter, std::move(start));
    co_await std::move(end);
    const Result<bool>& ended = waiter->value();
    if (!ended) {
        throw to_error("stop", ended.error());
    }
    if (!*ended) {
        self->core_->observers().log(
            LogLevel::warning, "Cleanup task did not stop within timeout=" + in_seconds(*timeout));
    }
    co_return *ended;
}

void CleanupTask::wait_for_end(std::shared_ptr<StopWaiter> waiter, asio::steady_timer& timer,
                               std::optional<Duration> timeout) {
    {
        // Under the lock as a whole: once the waiter is where others find it, its coroutine may
        // run.
        const std::lock_guard lock(mutex_);
        if (!ended_) {
            std::erase_if(waiters_, [](const auto& other) { return other->settled(); });
            if (timeout) {
                timer.expires_after(*timeout);
                timer.async_wait([weak = std::weak_ptr<StopWaiter>(waiter)](
                                     const boost::system::error_code& error) {
                    const auto late = weak.lock();
                    if (!error && late) {
                        late->settle(false);
                    }
                });
            }
            waiters_.push_back(std::move(waiter));
            return;
        }
    }
    waiter->settle(true);
}

std::string in_seconds(Duration duration) {
    std::array<char, 40> text{};
    std::snprintf(text.data(), text.size(), "%gs", std::chrono::duration<double>(duration).count());
    return text.data();
}

}  // namespace psycache::detail
