#include "cache/telemetry.hpp"

#include <boost/asio/error.hpp>

namespace psycache {

void Telemetry::error(const boost::system::error_code& code) noexcept {
    ++errors_;
    if (code == Condition::timeout) {
        ++timeouts_;
    }
    if (code == boost::asio::error::operation_aborted) {
        ++cancelled_;
    }
}

void Telemetry::cleanup_failed(const std::string& why) noexcept {
    ++cleanup_failures_;
    observers.log(LogLevel::error, "Periodic cache cleanup failed: " + why);
}

CacheStatistics Telemetry::statistics() const noexcept {
    CacheStatistics now;
    now.hits = hits_;
    now.misses = misses_;
    now.puts = puts_;
    now.removes = removes_;
    now.errors = errors_;
    now.timeouts = timeouts_;
    now.cancelled = cancelled_;
    now.outage_misses = outage_misses_;
    now.dropped_writes = dropped_writes_;
    now.cleanup_failures = cleanup_failures_;
    now.statements = batches.statements;
    now.retries = batches.retries;
    return now;
}

}  // namespace psycache
