#include "near/near_cache.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <utility>

#include "core/at_end.hpp"
#include "core/key_hash.hpp"
#include "near/near_listener.hpp"

namespace psycache::detail {

namespace asio = boost::asio;

NearCache::NearCache(const NearCacheOptions& options, std::string table,
                     std::shared_ptr<const Observers> observers, std::optional<Place> place)
    : options_(options),
      table_(std::move(table)),
      observers_(std::move(observers)),
      place_(std::move(place)),
      store_(options_.max_bytes),
      serve_until_(place_ ? never : always),
      max_age_(options_.max_age.count()),
      strand_(place_ ? asio::any_io_executor(asio::make_strand(place_->executor))
                     : asio::any_io_executor()) {}

NearCache::Ticket NearCache::begin(std::string_view key) {
    asked_.fetch_add(1, std::memory_order_relaxed);
    listen();
    return Ticket{store_.mark(key), Clock::now()};
}

void NearCache::keep(const Ticket& ticket, std::string_view key, Value value, Duration left,
                     Object object) {
    if (Clock::now().time_since_epoch().count() >= serve_until_.load(std::memory_order_acquire) ||
        left <= Duration::zero() || forked()) {
        return;
    }
    // Counted from before the statement was sent: the server has computed what was left after that,
    // so that no entry outlives its row.
    const TimePoint expires = left >= max_ttl ? TimePoint::max() : ticket.since + left;
    const TimePoint usable_until =
        ticket.since + Duration(max_age_.load(std::memory_order_relaxed));
    store_.fill(ticket.mark, key, std::move(value), expires, usable_until, std::move(object));
}

void NearCache::forget(std::string_view key) noexcept {
    if (!forked()) {
        store_.forget(key_hash(key));
    }
}

void NearCache::forget_all() noexcept {
    if (!forked()) {
        store_.forget_all();
    }
}

void NearCache::start() {
    if (stopped_ || forked() || listening_.exchange(true)) {
        return;
    }
    try {
        if (place_->started) {
            place_->started();
        }
    } catch (...) {
        listening_ = false;
        observers_->log(LogLevel::warning, "the near cache has no thread to listen in");
        return;
    }
    // Also when the listener is destroyed with its context.
    AtEnd end([self = shared_from_this()] {
        self->serve_until_ = never;
        self->connection_ = nullptr;
        self->listening_ = false;
    });
    // Started on the strand: the signal's slot is connected there, where the signal is emitted.
    asio::post(strand_, [self = shared_from_this(), end = std::move(end)]() mutable {
        asio::co_spawn(self->strand_, NearListener::run(self),
                       asio::bind_cancellation_slot(self->stop_signal_.slot(),
                                                    [end = std::move(end)](std::exception_ptr) {}));
    });
}

void NearCache::stop() noexcept {
    stopped_ = true;
    serve_until_ = never;
    forget_all();
    if (!place_ || !listening_ || forked()) {
        return;
    }
    try {
        asio::post(strand_, [self = shared_from_this()] {
            self->stop_signal_.emit(asio::cancellation_type::terminal);
            if (self->connection_ != nullptr) {
                self->connection_->overrun();
            }
        });
    } catch (...) {
        observers_->log(LogLevel::error, "the listener of the near cache could not be stopped");
    }
}

std::unique_ptr<ChangeWaits::Wait> NearCache::wait_for(const std::vector<std::string>& keys,
                                                       std::function<void()> wake) {
    std::vector<std::uint64_t> hashes;
    hashes.reserve(keys.size());
    for (const std::string& key : keys) {
        hashes.push_back(key_hash(key));
    }
    return waits_->wait_for(std::move(hashes), std::move(wake));
}

NearStatistics NearCache::statistics() const {
    const NearStore::Statistics kept = store_.statistics();
    NearStatistics now;
    now.hits = kept.hits;
    now.misses = asked_.load(std::memory_order_relaxed);
    now.evictions = kept.evictions;
    now.invalidations = kept.invalidations;
    now.entries = kept.entries;
    now.bytes = kept.bytes;
    const std::int64_t until = serve_until_;
    now.listening = until != always && Clock::now().time_since_epoch().count() < until;
    now.lag = Duration(lag_.load(std::memory_order_relaxed));
    return now;
}

}  // namespace psycache::detail
