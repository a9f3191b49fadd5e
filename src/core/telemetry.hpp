#pragma once

#include <memory>
#include <utility>

#include <psycache/options.hpp>

#include "core/counts.hpp"
#include "core/observers.hpp"

namespace psycache::detail {

/// What one cache shows of itself. A PostgresCache and its cleanup threads share one.
struct Telemetry {
    explicit Telemetry(const CacheOptions& options)
        : observers(std::make_shared<const Observers>(options.instrumentations, options.log)),
          counts(std::make_shared<Counts>()) {}

    Telemetry(std::shared_ptr<const Observers> its_observers, std::shared_ptr<Counts> its_counts)
        : observers(std::move(its_observers)), counts(std::move(its_counts)) {}

    const std::shared_ptr<const Observers> observers;
    const std::shared_ptr<Counts> counts;
};

}  // namespace psycache::detail
