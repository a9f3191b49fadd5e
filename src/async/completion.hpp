#pragma once

#include <atomic>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <mutex>
#include <utility>

namespace psycache {

namespace asio = boost::asio;

/// A value that one coroutine waits for and that anyone may deliver, once, from any thread.
///
/// The first settle() wins. The waiter is resumed through its executor, never inside of settle(),
/// so that settle() may be called from anywhere but under a lock: posting to a context that is
/// being destroyed destroys the waiter's frame on the spot. An unsettled completion that is dropped
/// drops its waiter.
template <class T>
class Completion : public std::enable_shared_from_this<Completion<T>> {
  public:
    Completion() = default;
    Completion(const Completion&) = delete;
    Completion& operator=(const Completion&) = delete;
    virtual ~Completion() = default;

    bool settled() const noexcept { return settled_.load(std::memory_order_acquire); }

    /// @returns whether this call delivered the value; otherwise @p value is untouched.
    bool settle(T&& value) {
        if (settled_.exchange(true, std::memory_order_acq_rel)) {
            return false;
        }
        // The waiter's context may belong to another thread, which destroys it once its run() has
        // returned. So the waiter goes on only when this thread has left post().
        const std::lock_guard posting(posting_);
        const std::unique_ptr<Waiter> waiter = std::move(waiter_);
        waiter->resume(this->shared_from_this(), std::move(value));
        return true;
    }

    /// Waits for the value. @p start is called with the completion once it can be settled: it puts
    /// it where the settler finds it.
    template <class Start>
    static asio::awaitable<T> wait(std::shared_ptr<Completion> completion, Start start) {
        return asio::async_initiate<const asio::use_awaitable_t<>, void(T)>(
            [](auto handler, std::shared_ptr<Completion> self, Start begin) {
                using Handler = decltype(handler);
                auto slot = asio::get_associated_cancellation_slot(handler);
                self->waiter_ = std::make_unique<WaiterOf<Handler>>(std::move(handler));
                if (slot.is_connected()) {
                    // A weak pointer: the slot lives in the waiter's own frame.
                    slot.assign([weak = self->weak_from_this()](asio::cancellation_type type) {
                        if (const auto alive = weak.lock()) {
                            alive->cancelled(type);
                        }
                    });
                }
                begin(std::move(self));
            },
            asio::use_awaitable, std::move(completion), std::move(start));
    }

  protected:
    /// The waiter's cancellation signal was emitted; runs on the waiter's thread, perhaps after the
    /// value was delivered.
    virtual void cancelled(asio::cancellation_type type) = 0;

  private:
    struct Waiter {
        virtual ~Waiter() = default;
        virtual void resume(std::shared_ptr<Completion> self, T&& value) = 0;
    };

    template <class Handler>
    struct WaiterOf final : Waiter {
        explicit WaiterOf(Handler&& h) : handler(std::move(h)) {}

        void resume(std::shared_ptr<Completion> self, T&& value) override {
            // The executor first: the handler is moved from in the next statement.
            auto executor = asio::get_associated_executor(handler);
            asio::post(executor, [self = std::move(self), h = std::move(handler),
                                  v = std::move(value)]() mutable {
                { const std::lock_guard posted(self->posting_); }
                self.reset();
                if (auto slot = asio::get_associated_cancellation_slot(h); slot.is_connected()) {
                    slot.clear();
                }
                std::move(h)(std::move(v));
            });
        }

        Handler handler;
    };

    std::mutex posting_;
    std::atomic<bool> settled_{false};
    std::unique_ptr<Waiter> waiter_;
};

}  // namespace psycache
