#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/strand.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "async/completion.hpp"
#include "failure.hpp"

namespace psycache {

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
        return running_;
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
    bool stop_ = false;
};

/// The body of a job; its parameter tells it when to stop.
template <class T>
using JobBody = std::function<asio::awaitable<Result<T>>(std::shared_ptr<Job<T>>)>;

namespace detail {

/// Settles the job even when the coroutine that does its work is destroyed with its context.
template <class T>
class JobEnd {
  public:
    explicit JobEnd(std::shared_ptr<Job<T>> job) : job_(std::move(job)) {}
    JobEnd(JobEnd&&) noexcept = default;
    JobEnd& operator=(JobEnd&&) = delete;
    ~JobEnd() {
        if (job_) {
            job_->settle(cancelled_failure());
        }
    }
    const std::shared_ptr<Job<T>>& job() const { return job_; }

  private:
    std::shared_ptr<Job<T>> job_;
};

template <class T>
asio::awaitable<void> do_job(JobEnd<T> end, JobBody<T> body) {
    std::exception_ptr thrown;
    try {
        Result<T> result = co_await body(end.job());
        end.job()->settle(std::move(result));
    } catch (...) {
        thrown = std::current_exception();
    }
    if (thrown) {
        end.job()->settle(to_failure(thrown, Errc::connect_failed));
    }
}

}  // namespace detail

/// Runs @p body on a strand of @p executor and waits for it as @p on_cancel says.
template <class T>
asio::awaitable<Result<T>> run_job(asio::any_io_executor executor,
                                   typename Job<T>::OnCancel on_cancel, JobBody<T> body) {
    auto start = [executor = std::move(executor),
                  body = std::move(body)](std::shared_ptr<Completion<Result<T>>> completion) {
        detail::JobEnd<T> end(std::static_pointer_cast<Job<T>>(std::move(completion)));
        asio::co_spawn(asio::make_strand(executor), detail::do_job<T>(std::move(end), body),
                       asio::detached);
    };
    const auto job = std::make_shared<Job<T>>(on_cancel);
    auto done = Completion<Result<T>>::wait(job, std::move(start));
    co_await std::move(done);
    co_return std::move(job->value());
}

}  // namespace psycache
