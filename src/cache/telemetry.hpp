#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/options.hpp>

#include "batching/batcher.hpp"
#include "failure.hpp"
#include "observers.hpp"

namespace psycache {

/// What one cache shows of itself: its observers and its counts. The lanes of a facade share one.
class Telemetry {
  public:
    explicit Telemetry(const CacheOptions& options)
        : observers(options.instrumentations, options.log) {}

    void hit() noexcept { ++hits_; }
    void miss() noexcept { ++misses_; }
    void put() noexcept { ++puts_; }
    void removed() noexcept { ++removes_; }
    void outage_miss(std::uint64_t keys = 1) noexcept { outage_misses_ += keys; }
    void dropped_write(std::uint64_t keys = 1) noexcept { dropped_writes_ += keys; }
    void error(const boost::system::error_code& code) noexcept;
    /// Counts the failure of a call and tells its spans.
    template <class Span>
    void failed(Spans<Span>& spans, const Failure& failure) noexcept {
        error(failure.code);
        spans.record_error(failure.code);
    }
    void cleanup_failed(const std::string& why) noexcept;

    /// @returns all counts; `queued` is left to the caller.
    CacheStatistics statistics() const noexcept;

    const Observers observers;
    BatchCounters batches;

  private:
    using Count = std::atomic<std::uint64_t>;
    Count hits_{0};
    Count misses_{0};
    Count puts_{0};
    Count removes_{0};
    Count errors_{0};
    Count timeouts_{0};
    Count cancelled_{0};
    Count outage_misses_{0};
    Count dropped_writes_{0};
    Count cleanup_failures_{0};
};

}  // namespace psycache
