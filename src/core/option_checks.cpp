#include "core/option_checks.hpp"

#include <algorithm>
#include <stdexcept>

namespace psycache::detail {

namespace {

// Far beyond any use, and far enough from the ends of std::chrono's clocks that adding it to a time
// point cannot overflow.
constexpr Duration longest_timeout = std::chrono::duration_cast<Duration>(std::chrono::years(100));

void check_positive(const std::string& name, Duration duration) {
    if (duration <= Duration::zero()) {
        throw std::invalid_argument(name + " must be positive");
    }
}

void check_near_cache(const NearCacheOptions& options) {
    if (options.max_bytes < std::size_t{64} << 10) {
        throw std::invalid_argument("NearCacheOptions::max_bytes must be at least 65536");
    }
    check_positive_finite("NearCacheOptions::max_age", options.max_age);
    check_positive_finite("NearCacheOptions::max_staleness", options.max_staleness);
    if (options.max_staleness < std::chrono::milliseconds(20)) {
        throw std::invalid_argument("NearCacheOptions::max_staleness must be at least 20 ms");
    }
    check_not_negative_finite("NearCacheOptions::fallback_max_age", options.fallback_max_age);
}

void check_instrumentations(
    const std::string& name,
    const std::vector<std::shared_ptr<CacheInstrumentation>>& instrumentations) {
    if (std::any_of(instrumentations.begin(), instrumentations.end(),
                    [](const auto& instrumentation) { return instrumentation == nullptr; })) {
        throw std::invalid_argument(name + " must not contain a null pointer");
    }
}

}  // namespace

void check_positive_finite(const std::string& name, Duration duration) {
    check_positive(name, duration);
    if (duration > longest_timeout) {
        throw std::invalid_argument(name + " must be finite (100 years at most)");
    }
}

void check_not_negative_finite(const std::string& name, Duration duration) {
    if (duration < Duration::zero()) {
        throw std::invalid_argument(name + " must not be negative");
    }
    if (duration > longest_timeout) {
        throw std::invalid_argument(name + " must be finite (100 years at most)");
    }
}

void check_schema(const std::optional<std::string>& schema) {
    if (!schema) {
        return;
    }
    if (schema->empty()) {
        throw std::invalid_argument("schema must not be empty");
    }
    if (schema->find('\0') != std::string::npos) {
        throw std::invalid_argument("schema must not contain a NUL byte");
    }
}

void check_pool_options(const PoolOptions& options) {
    if (options.max_size == 0) {
        throw std::invalid_argument("PoolOptions::max_size must be at least 1");
    }
    if (options.min_idle > options.max_size) {
        throw std::invalid_argument("PoolOptions::min_idle must not be greater than max_size");
    }
    if (options.max_connecting == 0) {
        throw std::invalid_argument("PoolOptions::max_connecting must be at least 1");
    }
    for (const std::string& sql : options.init_sql) {
        if (sql.empty() || sql.find('\0') != std::string::npos) {
            throw std::invalid_argument(
                "PoolOptions::init_sql must not contain an empty statement or a NUL byte");
        }
    }
    check_positive_finite("PoolOptions::connect_timeout", options.connect_timeout);
    check_positive_finite("PoolOptions::acquire_timeout", options.acquire_timeout);
    check_positive("PoolOptions::idle_timeout", options.idle_timeout);
    check_positive("PoolOptions::max_lifetime", options.max_lifetime);
    check_instrumentations("PoolOptions::instrumentations", options.instrumentations);
}

void check_cache_options(const CacheOptions& options) {
    check_schema(options.schema);
    check_positive_finite("CacheOptions::timeout", options.timeout);
    check_positive_finite("CacheOptions::maintenance_timeout", options.maintenance_timeout);
    if (options.max_queued_calls == 0) {
        throw std::invalid_argument("CacheOptions::max_queued_calls must be at least 1");
    }
    if (options.max_entries == 0) {
        throw std::invalid_argument("CacheOptions::max_entries must be at least 1");
    }
    if (options.max_bytes == 0) {
        throw std::invalid_argument("CacheOptions::max_bytes must be at least 1");
    }
    check_instrumentations("CacheOptions::instrumentations", options.instrumentations);
    if (options.near_cache) {
        check_near_cache(*options.near_cache);
    }
}

void check_call_options(const CallOptions& options) {
    if (options.timeout) {
        check_positive_finite("timeout", *options.timeout);
    }
}

void check_interval(Duration interval) {
    check_positive_finite("interval", interval);
}

void check_stop_timeout(const std::optional<Duration>& timeout) {
    if (!timeout) {
        return;
    }
    if (*timeout < Duration::zero()) {
        throw std::invalid_argument("timeout must not be negative");
    }
    if (*timeout > longest_timeout) {
        throw std::invalid_argument("timeout must be finite; std::nullopt waits for ever");
    }
}

}  // namespace psycache::detail
