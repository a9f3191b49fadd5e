#pragma once

#include <array>
#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

namespace psycache::detail {

namespace asio = boost::asio;

/// Memory for one operation of Asio.
struct OperationPlace {
    alignas(std::max_align_t) std::array<std::byte, 160> bytes;
};

/// Allocates from an OperationPlace what fits, and the rest from the heap.
template <class T>
class PlaceAllocator {
  public:
    using value_type = T;

    explicit PlaceAllocator(OperationPlace& place) noexcept : place_(&place) {}
    template <class U>
    PlaceAllocator(const PlaceAllocator<U>& other) noexcept : place_(other.place_) {}

    T* allocate(std::size_t count) {
        if (sizeof(T) * count <= sizeof(place_->bytes)) {
            return static_cast<T*>(static_cast<void*>(place_->bytes.data()));
        }
        return std::allocator<T>().allocate(count);
    }
    void deallocate(T* memory, std::size_t count) noexcept {
        // By size and not by place, which may be gone already.
        if (sizeof(T) * count > sizeof(OperationPlace::bytes)) {
            std::allocator<T>().deallocate(memory, count);
        }
    }

    template <class U>
    bool operator==(const PlaceAllocator<U>& other) const noexcept {
        return place_ == other.place_;
    }

  private:
    template <class U>
    friend class PlaceAllocator;

    OperationPlace* place_;
};

/// How a waiting coroutine goes on.
enum class Resume {
    posted,  ///< through its executor
    /// Inside of settle() where the settler runs on the waiter's io_context already: it must hold
    /// no lock, and bear whatever the waiter does next. Elsewhere it is posted.
    inside,
};

/// Something that one coroutine or one thread waits for, and that is settled once, from any thread.
///
/// The first settle() wins. A coroutine is resumed through its executor, and not inside of settle()
/// unless that was asked for, so that settle() may be called from anywhere but under a lock:
/// posting to a context that is being destroyed destroys the waiter's frame on the spot. What is
/// dropped unsettled drops its waiter. What has no waiter yet, and is known to its owner only, may
/// be settled too: then there is nothing to wait for.
class Waited : public std::enable_shared_from_this<Waited> {
  public:
    Waited() = default;
    Waited(const Waited&) = delete;
    Waited& operator=(const Waited&) = delete;
    virtual ~Waited() = default;

    bool settled() const noexcept { return settled_.load(std::memory_order_acquire); }

    /// @param fill is called, before the waiter is resumed, if this call is the one that settles.
    /// @returns whether it is.
    template <class Fill>
    bool settle_with(const Fill& fill, Resume how = Resume::posted) {
        if (settled_.exchange(true, std::memory_order_acq_rel)) {
            return false;
        }
        fill();
        // The waiter's context may belong to another thread, which destroys it once its run() has
        // returned. So the waiter goes on only when this thread has left post().
        if (waiter_ && how == Resume::inside && waiter_->can_resume_inside()) {
            waiter_->resume_inside();
        } else if (waiter_) {
            const std::lock_guard posting(posting_);
            waiter_->resume(this->shared_from_this());
        } else {
            delivered();
        }
        return true;
    }

    /// What waits once it is awaited. @p start is called once this can be settled: it puts it where
    /// the settler finds it.
    ///
    /// An operation and no awaitable: awaiting it takes no coroutine frame of its own.
    template <class Start>
    class Waiting {
      public:
        Waiting(std::shared_ptr<Waited> waited, Start start)
            : waited_(std::move(waited)), start_(std::move(start)) {}

        template <asio::completion_token_for<void()> Token>
        auto operator()(Token&& token) {
            return asio::async_initiate<Token, void()>(
                [](auto handler, std::shared_ptr<Waited> self, Start begin) {
                    self->wait_with(std::move(handler));
                    begin(std::move(self));
                },
                token, std::move(waited_), std::move(start_));
        }

      private:
        std::shared_ptr<Waited> waited_;
        Start start_;
    };

    template <class Start>
    static Waiting<Start> wait(std::shared_ptr<Waited> waited, Start start) {
        return Waiting<Start>(std::move(waited), std::move(start));
    }

    /// Lets a thread wait: @p wake is called once, from the settling thread, when this is settled.
    template <class Wake>
    void wait_in_thread(Wake wake) {
        using ThisWaiter = ThreadWaiter<Wake>;
        static_assert(sizeof(ThisWaiter) <= sizeof(place_));
        waiter_.reset(::new (static_cast<void*>(place_.data())) ThisWaiter(std::move(wake)));
    }

  protected:
    /// The waiter's cancellation signal was emitted; runs on the waiter's thread, perhaps after
    /// this was settled.
    virtual void cancelled(asio::cancellation_type type) = 0;

    /// Settled without a waiter of its own; runs inside of settle().
    virtual void delivered() {}

  private:
    template <class Handler>
    void wait_with(Handler handler) {
        using ThisWaiter = WaiterOf<Handler>;
        static_assert(sizeof(ThisWaiter) <= sizeof(place_));
        const auto slot = asio::get_associated_cancellation_slot(handler);
        waiter_.reset(::new (static_cast<void*>(place_.data())) ThisWaiter(std::move(handler)));
        if (slot.is_connected()) {
            // A weak pointer: the slot lives in the waiter's own frame.
            auto the_slot = slot;
            the_slot.assign([weak = this->weak_from_this()](asio::cancellation_type type) {
                if (const auto alive = weak.lock()) {
                    alive->cancelled(type);
                }
            });
        }
    }

    struct Waiter {
        virtual ~Waiter() = default;
        virtual void resume(std::shared_ptr<Waited> self) = 0;
        virtual bool can_resume_inside() const noexcept = 0;
        virtual void resume_inside() = 0;
    };

    template <class Handler>
    struct WaiterOf final : Waiter {
        explicit WaiterOf(Handler&& h) : handler(std::move(h)) {}

        void resume(std::shared_ptr<Waited> self) override {
            // The executor first: the handler is moved from in the next statement.
            const auto executor = asio::get_associated_executor(handler);
            Resumption<Handler> resumption(std::move(self), std::move(handler));
            // Most waiters run on a plain io_context: going there directly saves the detour over
            // the type-erased executor. Not so for a strand: it would allocate what runs its queue
            // in this object too, which does not live that long.
            if (const auto* plain = plain_executor(executor)) {
                asio::post(*plain, std::move(resumption));
            } else {
                asio::post(executor, std::move(resumption));
            }
        }

        bool can_resume_inside() const noexcept override {
            const auto executor = asio::get_associated_executor(handler);
            const auto* plain = plain_executor(executor);
            return plain != nullptr && plain->running_in_this_thread();
        }

        void resume_inside() override {
            const asio::any_io_executor executor = asio::get_associated_executor(handler);
            if (auto slot = asio::get_associated_cancellation_slot(handler); slot.is_connected()) {
                slot.clear();
            }
            try {
                std::move(handler)();
            } catch (...) {
                // It is for the one who runs the context, not for the settler.
                asio::post(executor,
                           [thrown = std::current_exception()] { std::rethrow_exception(thrown); });
            }
        }

        template <class Executor>
        static const asio::io_context::executor_type* plain_executor(const Executor& executor) {
            return executor.template target<asio::io_context::executor_type>();
        }

        Handler handler;
    };

    /// The waiter on its way back to its executor.
    template <class Handler>
    class Resumption {
      public:
        Resumption(std::shared_ptr<Waited> self, Handler&& handler)
            : self_(std::move(self)), handler_(std::move(handler)) {}

        void operator()() {
            { const std::lock_guard posted(self_->posting_); }
            self_.reset();
            if (auto slot = asio::get_associated_cancellation_slot(handler_); slot.is_connected()) {
                slot.clear();
            }
            std::move(handler_)();
        }

        // Asio's operation lives in what was waited for, which it keeps alive.
        using allocator_type = PlaceAllocator<void>;
        allocator_type get_allocator() const noexcept { return allocator_type(self_->operation_); }

      private:
        std::shared_ptr<Waited> self_;
        Handler handler_;
    };

    template <class Wake>
    struct ThreadWaiter final : Waiter {
        explicit ThreadWaiter(Wake w) : wake(std::move(w)) {}
        void resume(std::shared_ptr<Waited> /*self*/) override { wake(); }
        bool can_resume_inside() const noexcept override { return false; }
        void resume_inside() override {}
        Wake wake;
    };

    struct Leave {
        void operator()(Waiter* waiter) const noexcept { waiter->~Waiter(); }
    };

    // The waiter lives in here: one allocation less for each call.
    alignas(std::max_align_t) std::array<std::byte, 64> place_;
    OperationPlace operation_;
    std::unique_ptr<Waiter, Leave> waiter_;
    std::mutex posting_;
    std::atomic<bool> settled_{false};
};

/// A value that is waited for.
template <class T>
class Completion : public Waited {
  public:
    /// @returns whether this call delivered the value; otherwise @p value is untouched.
    bool settle(T&& value, Resume how = Resume::posted) {
        return settle_with([&] { value_.emplace(std::move(value)); }, how);
    }

    /// @returns the value, once this is settled.
    T& value() noexcept { return *value_; }

  private:
    std::optional<T> value_;
};

}  // namespace psycache::detail
