#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <utility>

namespace psycache::detail {

namespace asio = boost::asio;

/// One deadline over all waits of one coroutine: when it passes, whatever the coroutine waits for
/// at that moment is cancelled. Far cheaper than a race of two operations for every wait.
///
/// @par Preconditions
/// arm(), disarm(), and the waits happen on one strand, which is given to arm().
class Watch {
  public:
    explicit Watch(const asio::any_io_executor& executor)
        : timer_(executor), state_(std::make_shared<State>()) {}
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    ~Watch() { disarm(); }

    void arm(std::chrono::steady_clock::time_point deadline, const asio::any_io_executor& strand) {
        fired_ = false;
        const std::uint64_t turn = ++state_->turn;
        timer_.expires_at(deadline);
        timer_.async_wait(asio::bind_executor(
            strand, [state = state_, turn, this](const boost::system::error_code& error) {
                // A stale turn may run on an older strand: it may look at nothing but the counter.
                if (error || state->turn.load() != turn) {
                    return;
                }
                fired_ = true;
                if (cancel_ != nullptr) {
                    cancel_(target_);
                }
            }));
    }

    void disarm() noexcept {
        ++state_->turn;
        // Newer releases of Asio have no form that takes an error_code; nothing in here throws.
        timer_.cancel();
    }

    bool fired() const noexcept { return fired_; }

    /// While it lives, @p target.cancel() is called when the deadline passes.
    template <class Target>
    class Guard {
      public:
        Guard(Watch& watch, Target& target) : watch_(watch) {
            watch_.target_ = &target;
            watch_.cancel_ = [](void* object) { static_cast<Target*>(object)->cancel(); };
        }
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;
        ~Guard() { watch_.cancel_ = nullptr; }

      private:
        Watch& watch_;
    };

  private:
    struct State {
        std::atomic<std::uint64_t> turn{0};
    };

    asio::steady_timer timer_;
    std::shared_ptr<State> state_;
    bool fired_ = false;
    void* target_ = nullptr;
    void (*cancel_)(void*) = nullptr;
};

}  // namespace psycache::detail
