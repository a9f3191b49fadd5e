#pragma once

/// @file
/// An instrumentation that only counts, so that it needs no memory in the long run.

#include <atomic>
#include <cstdint>

#include "support/open_spans.hpp"

namespace psycache::soak {

/// Counts the spans and the connections that there are.
class OpenSpans : public test::OpenSpans {
  public:
    void record_pool_change(const PoolChange& change) override {
        connections_ += change.open;
        waiting_ += change.waiting;
    }

    std::int64_t spans() const { return opened - closed; }
    std::int64_t connections() const { return connections_; }
    std::int64_t waiting() const { return waiting_; }

  private:
    std::atomic<std::int64_t> connections_ = 0;
    std::atomic<std::int64_t> waiting_ = 0;
};

}  // namespace psycache::soak
