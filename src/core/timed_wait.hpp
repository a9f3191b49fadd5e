#pragma once

#include <boost/asio/steady_timer.hpp>
#include <memory>

#include <psycache/duration.hpp>

#include "core/failure.hpp"
#include "core/waiting.hpp"

namespace psycache::detail {

/// A wait that its caller may cancel, and that may be limited in time.
template <class T>
class TimedWait final : public Completion<Result<T>> {
  public:
    /// Settles @p wait with what @p late returns once @p timeout has passed.
    ///
    /// @param timer belongs to the waiting coroutine and not to the wait, which may live on in
    /// another thread for a moment when the coroutine's context is gone.
    template <class Late>
    static void limit(const std::shared_ptr<TimedWait>& wait, asio::steady_timer& timer,
                      Duration timeout, Late late) {
        timer.expires_after(timeout);
        timer.async_wait([weak = std::weak_ptr<TimedWait>(wait),
                          late = std::move(late)](const boost::system::error_code& error) mutable {
            const auto alive = weak.lock();
            if (!error && alive && !alive->settled()) {
                alive->settle(late());
            }
        });
    }

  private:
    void cancelled(asio::cancellation_type /*type*/) override { this->settle(cancelled_failure()); }
};

}  // namespace psycache::detail
