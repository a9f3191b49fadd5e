#pragma once

/// @file
/// An instrumentation that only counts, so that it needs no memory in the long run.

#include <atomic>
#include <cstdint>
#include <memory>

#include <psycache/instrumentation.hpp>

namespace psycache::soak {

/// Counts the spans and the connections that there are.
class OpenSpans : public CacheInstrumentation {
  public:
    std::unique_ptr<CacheGetSpan> start_cache_get_span(const SpanInfo&) override {
        return std::make_unique<Span<CacheGetSpan>>(*this);
    }
    std::unique_ptr<CachePutSpan> start_cache_put_span(const SpanInfo&) override {
        return std::make_unique<Span<CachePutSpan>>(*this);
    }
    std::unique_ptr<CacheRemoveSpan> start_cache_remove_span(const SpanInfo&) override {
        return std::make_unique<Span<CacheRemoveSpan>>(*this);
    }
    std::unique_ptr<CacheFlushSpan> start_cache_flush_span() override {
        return std::make_unique<Span<CacheFlushSpan>>(*this);
    }
    std::unique_ptr<CacheCleanupSpan> start_cache_cleanup_span() override {
        return std::make_unique<Span<CacheCleanupSpan>>(*this);
    }
    void record_pool_change(const PoolChange& change) override {
        connections_ += change.open;
        waiting_ += change.waiting;
    }

    std::int64_t spans() const { return spans_; }
    std::int64_t connections() const { return connections_; }
    std::int64_t waiting() const { return waiting_; }

  private:
    template <class Base>
    class Span : public Base {
      public:
        explicit Span(OpenSpans& owner) : owner_(owner) { ++owner_.spans_; }
        ~Span() override { --owner_.spans_; }

      private:
        OpenSpans& owner_;
    };

    std::atomic<std::int64_t> spans_ = 0;
    std::atomic<std::int64_t> connections_ = 0;
    std::atomic<std::int64_t> waiting_ = 0;
};

}  // namespace psycache::soak
