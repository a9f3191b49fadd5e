#include "core/observers.hpp"

#include <algorithm>

#include "core/standard_error.hpp"

namespace psycache::detail {

namespace {

template <class Span, class Start>
Spans<Span> open_spans(const Observers& observers, Keys keys, SpanName name, Start start) {
    const SpanInfo info{keys, name.call, name.operation};
    return Spans<Span>(observers,
                       [&](CacheInstrumentation& provider) { return (provider.*start)(info); });
}

}  // namespace

Observers::Observers(std::vector<std::shared_ptr<CacheInstrumentation>> providers, LogSink log)
    : providers_(std::move(providers)),
      log_(log ? std::move(log) : LogSink(log_to_standard_error)),
      complained_(std::make_unique<std::atomic<bool>[]>(providers_.size())) {}

void Observers::complain(std::size_t provider) const noexcept {
    if (!complained_[provider].exchange(true)) {
        log(LogLevel::error,
            "an instrumentation threw an exception; it is ignored, and further ones of the same "
            "instrumentation are not logged");
    }
}

void Observers::log(LogLevel level, std::string_view line) const noexcept {
    try {
        log_(level, line);
    } catch (...) {
        // A log that fails has no place to say so.
    }
}

void add_instrumentations(PoolOptions& pool, const CacheOptions& cache) {
    if (!pool.log && cache.log) {
        // What would go to standard error; the rest was not asked for.
        pool.log = [log = cache.log](LogLevel level, std::string_view line) {
            if (level >= LogLevel::warning) {
                log(level, line);
            }
        };
    }
    for (const auto& instrumentation : cache.instrumentations) {
        auto& known = pool.instrumentations;
        if (std::find(known.begin(), known.end(), instrumentation) == known.end()) {
            known.push_back(instrumentation);
        }
    }
}

void StatementWatch::ended(const boost::system::error_code& code) const noexcept {
    if (observers_.empty()) {
        return;
    }
    StatementInfo info;
    info.operation = operation_;
    info.calls = calls_;
    info.retry = retry_;
    info.took = stopwatch_.elapsed();
    info.error = code;
    observers_.tell([&](CacheInstrumentation& provider) { provider.record_statement(info); });
}

Spans<CacheGetSpan> open_get_spans(const Observers& observers, Keys keys, SpanName name) {
    return open_spans<CacheGetSpan>(observers, keys, name,
                                    &CacheInstrumentation::start_cache_get_span);
}

Spans<CachePutSpan> open_put_spans(const Observers& observers, Keys keys, SpanName name) {
    return open_spans<CachePutSpan>(observers, keys, name,
                                    &CacheInstrumentation::start_cache_put_span);
}

Spans<CacheRemoveSpan> open_remove_spans(const Observers& observers, Keys keys, SpanName name) {
    return open_spans<CacheRemoveSpan>(observers, keys, name,
                                       &CacheInstrumentation::start_cache_remove_span);
}

Spans<CacheTouchSpan> open_touch_spans(const Observers& observers, Keys keys, SpanName name) {
    return open_spans<CacheTouchSpan>(observers, keys, name,
                                      &CacheInstrumentation::start_cache_touch_span);
}

Spans<CacheInvalidationSpan> open_invalidation_spans(const Observers& observers,
                                                     const InvalidationInfo& info) {
    return Spans<CacheInvalidationSpan>(observers, [&](CacheInstrumentation& provider) {
        return provider.start_cache_invalidation_span(info);
    });
}

Spans<CacheFlushSpan> open_flush_spans(const Observers& observers, SpanName name) {
    return Spans<CacheFlushSpan>(observers, [&](CacheInstrumentation& provider) {
        return provider.start_cache_flush_span(SpanInfo{{}, name.call, name.operation});
    });
}

Spans<CacheCleanupSpan> open_cleanup_spans(const Observers& observers, SpanName name) {
    return Spans<CacheCleanupSpan>(observers, [&](CacheInstrumentation& provider) {
        return provider.start_cache_cleanup_span(SpanInfo{{}, name.call, name.operation});
    });
}

}  // namespace psycache::detail
