#include "cache/cleanup_task.hpp"

#include <array>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <cstdio>
#include <exception>

#include "cache/maintenance.hpp"
#include "core/at_end.hpp"

namespace psycache::detail {

CleanupTask::CleanupTask(CacheCore::Self core, const asio::any_io_executor& executor)
    : core_(std::move(core)), strand_(asio::make_strand(executor)) {}

void CleanupTask::start(Duration interval) {
    // Also when the loop is destroyed with its context.
    AtEnd end([self = shared_from_this()] { self->ended(); });
    // Started on the strand: the signal's slot is connected there, where the signal is emitted.
    asio::post(strand_, [self = shared_from_this(), interval, end = std::move(end)]() mutable {
        asio::co_spawn(self->strand_, run_cleanup(self->core_, interval),
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
        core_->observers->log(LogLevel::error, "the cleanup task could not be asked to stop");
    }
}

void CleanupTask::ended() noexcept {
    std::vector<std::shared_ptr<EndWait>> waits;
    {
        const std::lock_guard lock(mutex_);
        ended_ = true;
        waits.swap(waits_);
    }
    for (const auto& wait : waits) {
        wait->settle(true);
    }
}

asio::awaitable<bool> CleanupTask::stop(std::shared_ptr<CleanupTask> self,
                                        std::optional<Duration> timeout) {
    self->request_stop();
    asio::steady_timer timer(co_await asio::this_coro::executor);
    auto start = [self, timeout, &timer](std::shared_ptr<Waited> wait) {
        self->wait_for_end(std::static_pointer_cast<EndWait>(std::move(wait)), timer, timeout);
    };
    const auto wait = std::make_shared<EndWait>();
    auto end = Waited::wait(wait, std::move(start));
    co_await std::move(end);
    const Result<bool>& ended = wait->value();
    if (!ended) {
        throw to_error("stop", ended.error());
    }
    if (!*ended) {
        self->core_->observers->log(
            LogLevel::warning, "Cleanup task did not stop within timeout=" + in_seconds(*timeout));
    }
    co_return *ended;
}

void CleanupTask::wait_for_end(std::shared_ptr<EndWait> wait, asio::steady_timer& timer,
                               std::optional<Duration> timeout) {
    {
        // Under the lock as a whole: once others find the wait, its coroutine may run.
        const std::lock_guard lock(mutex_);
        if (!ended_) {
            std::erase_if(waits_, [](const auto& other) { return other->settled(); });
            if (timeout) {
                EndWait::limit(wait, timer, *timeout, [] { return Result<bool>(false); });
            }
            waits_.push_back(std::move(wait));
            return;
        }
    }
    wait->settle(true);
}

std::string in_seconds(Duration duration) {
    std::array<char, 40> text{};
    std::snprintf(text.data(), text.size(), "%gs", std::chrono::duration<double>(duration).count());
    return text.data();
}

}  // namespace psycache::detail
