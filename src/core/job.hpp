#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include <psycache/duration.hpp>

#include "core/at_end.hpp"
#include "core/failure.hpp"
#include "core/waiting.hpp"

namespace psycache::detail {

/// Work that runs on a strand of its own while its caller waits, and ends on its own terms when the
/// caller loses patience.
template <class T>
class Job final : public Completion<Result<T>> {
  public:
    /// What a cancelled caller does while a step of the work is running; otherwise it leaves at
    /// once, and no further step begins.
    enum class OnCancel {
        leave,             ///< it leaves at once; the step goes on without it
        wait_for_the_end,  ///< it stays until the step has ended
    };

    explicit Job(OnCancel on_cancel) : on_cancel_(on_cancel) {}

    /// A step that has an effect is about to begin. @returns whether it may.
    bool begin_step() noexcept {
        const std::lock_guard lock(mutex_);
        running_ = !stop_;
        started_ = started_ || running_;
        return running_;
    }
    /// The time in which it must begin is over: lets no step start if none has started.
    /// @returns whether that is so.
    bool time_out() noexcept {
        const std::lock_guard lock(mutex_);
        timed_out_ = !started_ && !stop_;
        stop_ = stop_ || !started_;
        return !started_;
    }
    /// @returns why no further step may start.
    Failure stop_failure() {
        const std::lock_guard lock(mutex_);
        return timed_out_ ? Failure(Errc::timed_out, "the call timed out before it could be sent")
                          : cancelled_failure();
    }
    /// @returns whether the caller wants no more.
    bool stop_requested() noexcept {
        const std::lock_guard lock(mutex_);
        return stop_;
    }
    /// The step has ended.
    void end_step() noexcept {
        const std::lock_guard lock(mutex_);
        running_ = false;
    }

  private:
    void cancelled(asio::cancellation_type) override {
        {
            const std::lock_guard lock(mutex_);
            stop_ = true;
            if (running_ && on_cancel_ == OnCancel::wait_for_the_end) {
                return;
            }
        }
        this->settle(cancelled_failure());
    }

    const OnCancel on_cancel_;
    std::mutex mutex_;
    bool running_ = false;
    bool started_ = false;
    bool stop_ = false;
    bool timed_out_ = false;  // rather than cancelled
};

/// The body of a job; its parameter tells it when to stop.
template <class T>
using JobBody = std::function<asio::awaitable<Result<T>>(std::shared_ptr<Job<T>>)>;

template <class T, class End>
asio::awaitable<void> do_job(std::shared_ptr<Job<T>> job, End end, JobBody<T> body) {
    std::exception_ptr thrown;
    try {
        Result<T> result = co_await body(job);
        job->settle(std::move(result));
    } catch (...) {
        thrown = std::current_exception();
    }
    end.dismiss();
    if (thrown) {
        job->settle(to_failure(thrown, Errc::connect_failed));
    }
}

/// Starts the work of @p job on a strand of @p executor.
template <class T>
void start_job(const asio::any_io_executor& executor, std::shared_ptr<Job<T>> job,
               JobBody<T> body) {
    AtEnd end([job] { job->settle(cancelled_failure()); });
    asio::co_spawn(asio::make_strand(executor),
                   do_job<T>(std::move(job), std::move(end), std::move(body)), asio::detached);
}

/// Runs @p body on a strand of @p executor and waits for it as @p on_cancel says.
/// @param patience how long it may take to begin, if that is limited: no thread may run the
/// executor's context.
template <class T>
asio::awaitable<Result<T>> run_job(asio::any_io_executor executor,
                                   typename Job<T>::OnCancel on_cancel,
                                   std::optional<Duration> patience, JobBody<T> body) {
    auto start = [executor = std::move(executor),
                  body = std::move(body)](std::shared_ptr<Waited> waited) {
        start_job<T>(executor, std::static_pointer_cast<Job<T>>(std::move(waited)), body);
    };
    const auto job = std::make_shared<Job<T>>(on_cancel);
    asio::steady_timer timer(co_await asio::this_coro::executor);
    if (patience) {
        timer.expires_after(*patience);
        timer.async_wait([weak = std::weak_ptr(job)](const boost::system::error_code& error) {
            const auto alive = error ? nullptr : weak.lock();
            if (alive && alive->time_out()) {
                alive->settle(alive->stop_failure());
            }
        });
    }
    auto done = Waited::wait(job, std::move(start));
    co_await std::move(done);
    co_return std::move(job->value());
}

}  // namespace psycache::detail
