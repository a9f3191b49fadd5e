#pragma once

/// @file
/// An instrumentation that counts spans: OpenSpans.

#include <atomic>
#include <memory>

#include <psycache/instrumentation.hpp>

namespace psycache::test {

/// Counts the spans that are open.
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

    std::atomic<long> opened = 0;
    std::atomic<long> closed = 0;

  private:
    template <class Base>
    class Span : public Base {
      public:
        explicit Span(OpenSpans& spans) : spans_(spans) { ++spans_.opened; }
        ~Span() override { ++spans_.closed; }

      private:
        OpenSpans& spans_;
    };
};

}  // namespace psycache::test
