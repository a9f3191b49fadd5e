#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/strand.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <psycache/near_cache.hpp>

#include "core/clock.hpp"
#include "core/observers.hpp"
#include "near/change_waits.hpp"
#include "near/near_store.hpp"
#include "pg/fork.hpp"
#include "pool/pool_core.hpp"

namespace psycache::detail {

/// The entries that a cache keeps in memory, and whether they may be served.
///
/// What is served is right by three rules. A change that is heard of, or that this cache has made,
/// drops the entry and voids the marks of look-ups of its key that are on their way, so that none
/// stores what is old. Nothing is served unless it was proven within max_staleness that every
/// change is heard of. And a new connection has nothing in memory to begin with.
class NearCache : public std::enable_shared_from_this<NearCache> {
  public:
    using Value = NearStore::Value;
    using Object = NearStore::Object;
    using Found = NearStore::Found;

    /// A look-up that is about to be sent.
    struct Ticket {
        NearStore::Mark mark;
        TimePoint since;
    };

    /// Where the listener is run.
    struct Place {
        std::shared_ptr<PoolCore> pool;  ///< whose connections it is beside
        boost::asio::any_io_executor executor;
        std::function<void()> started;  ///< told when the executor has work; may be empty
    };

    /// @param options checked already. @param table its name, quoted.
    /// @param place none where nothing listens.
    NearCache(const NearCacheOptions& options, std::string table,
              std::shared_ptr<const Observers> observers, std::optional<Place> place);

    /// @returns the value of a key, or the object of it that would do instead, or neither. Any
    /// thread.
    Found find(std::string_view key, const std::type_info* wanted = nullptr) noexcept {
        const TimePoint now = Clock::now();
        if (now.time_since_epoch().count() >= serve_until_.load(std::memory_order_acquire) ||
            forked()) {
            return Found();
        }
        return store_.find(key, now, wanted);
    }

    /// Starts the listener, if there is to be one and it does not run.
    void listen() {
        if (place_ && !listening_.load(std::memory_order_relaxed)) {
            start();
        }
    }

    /// A look-up of the table is about to begin, whose answer may be kept. Starts the listener.
    Ticket begin(std::string_view key);
    /// What it has found. @param left until the entry expires, by the server; no_expiry for never.
    void keep(const Ticket& ticket, std::string_view key, Value value, Duration left,
              Object object = {});
    /// What was made of a value that was found.
    void keep_object(std::string_view key, const Value& value, Object object) noexcept {
        if (!forked()) {
            store_.keep_object(key, value, std::move(object));
        }
    }

    /// A key has been written, or may have been.
    void forget(std::string_view key) noexcept;
    /// Any key may have been.
    void forget_all() noexcept;

    /// Nothing is kept and served from now on, and the listener ends.
    void stop() noexcept;

    NearStatistics statistics() const;

    /// Waits for a change of any of the keys by another process, which the listener hears of.
    /// @param wake see ChangeWaits.
    std::unique_ptr<ChangeWaits::Wait> wait_for(const std::vector<std::string>& keys,
                                                std::function<void()> wake);

  private:
    friend class NearListener;

    static constexpr std::int64_t never = 0;
    static constexpr std::int64_t always = INT64_MAX;

    /// @returns whether this is the child of a fork, which hears of nothing, and where a lock may
    /// be held by a thread that is not there.
    bool forked() const noexcept { return forks_ != pg::forks(); }
    void start();

    const NearCacheOptions options_;
    const std::string table_;
    const std::shared_ptr<const Observers> observers_;
    const std::optional<Place> place_;
    const std::shared_ptr<ChangeWaits> waits_ = std::make_shared<ChangeWaits>();
    const unsigned forks_ = pg::forks();
    NearStore store_;
    std::atomic<std::int64_t> serve_until_;  // by the steady clock
    std::atomic<Duration::rep> max_age_;     // of what is kept from now on
    std::atomic<bool> listening_{false};     // whether the listener has been started
    std::atomic<bool> stopped_{false};
    std::atomic<std::uint64_t> asked_{0};  // look-ups of the table
    std::atomic<Duration::rep> lag_{0};

    // What follows is used on the strand only.
    const boost::asio::any_io_executor strand_;
    boost::asio::cancellation_signal stop_signal_;
    pg::Connection* connection_ = nullptr;
};

}  // namespace psycache::detail
