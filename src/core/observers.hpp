#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/duration.hpp>
#include <psycache/instrumentation.hpp>
#include <psycache/options.hpp>

namespace psycache::detail {

/// The instrumentations of a cache or a pool, with the log beside them: lets none of their
/// exceptions reach a caller.
class Observers {
  public:
    /// @param log where lines go; without one, to standard error as `CacheOptions::log` says.
    Observers(std::vector<std::shared_ptr<CacheInstrumentation>> providers, LogSink log);

    bool empty() const noexcept { return providers_.empty(); }

    /// Tells every provider something.
    template <class Tell>
    void tell(Tell tell) const noexcept {
        for (std::size_t i = 0; i < providers_.size(); ++i) {
            try {
                tell(*providers_[i]);
            } catch (...) {
                complain(i);
            }
        }
    }

    /// Logs, once per provider, that it threw.
    void complain(std::size_t provider) const noexcept;
    /// Writes to the log; nothing escapes.
    void log(LogLevel level, std::string_view line) const noexcept;

    const std::vector<std::shared_ptr<CacheInstrumentation>>& providers() const noexcept {
        return providers_;
    }

  private:
    const std::vector<std::shared_ptr<CacheInstrumentation>> providers_;
    const LogSink log_;
    const std::unique_ptr<std::atomic<bool>[]> complained_;
};

/// Lets a pool that a cache makes for itself tell the cache's instrumentations too, each once, and
/// write its warnings and errors to the cache's log where it has none of its own.
void add_instrumentations(PoolOptions& pool, const CacheOptions& cache);

/// Measures for observers only: without any, the clock is not read.
class Stopwatch {
  public:
    explicit Stopwatch(const Observers& observers) : running_(!observers.empty()) {
        if (running_) {
            start_ = std::chrono::steady_clock::now();
        }
    }
    Duration elapsed() const noexcept {
        return running_
                   ? std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - start_)
                   : Duration::zero();
    }

  private:
    bool running_;
    std::chrono::steady_clock::time_point start_;
};

/// Times a statement and tells the observers how it ended.
class StatementWatch {
  public:
    /// @param operation see StatementInfo; a literal.
    StatementWatch(const Observers& observers, std::string_view operation, std::size_t calls,
                   bool retry)
        : observers_(observers),
          stopwatch_(observers),
          operation_(operation),
          calls_(calls),
          retry_(retry) {}

    /// @param code no error when it was answered.
    void ended(const boost::system::error_code& code) const noexcept;

  private:
    const Observers& observers_;
    const Stopwatch stopwatch_;
    const std::string_view operation_;
    const std::size_t calls_;
    const bool retry_;
};

/// The spans of one call, one per provider that wants one; opened in order, ended in reverse.
template <class Span>
class Spans {
  public:
    /// No spans.
    explicit Spans(const Observers& observers) : observers_(&observers) {}
    /// @param open asks one provider for its span.
    template <class Open>
    Spans(const Observers& observers, Open open) : observers_(&observers) {
        if (observers.empty()) {
            return;
        }
        const auto& providers = observers.providers();
        spans_.reserve(providers.size());
        for (std::size_t i = 0; i < providers.size(); ++i) {
            try {
                if (auto span = open(*providers[i])) {
                    spans_.push_back(Opened{std::move(span), i});
                }
            } catch (...) {
                observers.complain(i);
            }
        }
    }
    Spans(Spans&&) noexcept = default;
    Spans& operator=(Spans&&) = delete;
    ~Spans() {
        while (!spans_.empty()) {
            spans_.pop_back();
        }
    }

    /// Tells every span something.
    template <class Tell>
    void record(Tell tell) noexcept {
        for (const Opened& opened : spans_) {
            try {
                tell(*opened.span);
            } catch (...) {
                observers_->complain(opened.provider);
            }
        }
    }

    void record_error(const boost::system::error_code& code) noexcept {
        record([&](Span& span) { span.record_error(code); });
    }

  private:
    struct Opened {
        std::unique_ptr<Span> span;
        std::size_t provider;
    };

    const Observers* observers_;
    std::vector<Opened> spans_;
};

/// The keys of a call, or of one of many keys, as instrumentations see them.
using Keys = std::span<const std::string_view>;

/// What a span is called.
struct SpanName {
    std::string_view call;       ///< as the caller says
    std::string_view operation;  ///< see SpanInfo
};

/// Opens the spans of one call. The views are used during the call only.
Spans<CacheGetSpan> open_get_spans(const Observers& observers, Keys keys, SpanName name);
Spans<CachePutSpan> open_put_spans(const Observers& observers, Keys keys, SpanName name);
Spans<CacheRemoveSpan> open_remove_spans(const Observers& observers, Keys keys, SpanName name);
inline Spans<CacheGetSpan> open_get_spans(const Observers& observers, std::string_view key,
                                          SpanName name) {
    return open_get_spans(observers, Keys(&key, 1), name);
}
inline Spans<CachePutSpan> open_put_spans(const Observers& observers, std::string_view key,
                                          SpanName name) {
    return open_put_spans(observers, Keys(&key, 1), name);
}
inline Spans<CacheRemoveSpan> open_remove_spans(const Observers& observers, std::string_view key,
                                                SpanName name) {
    return open_remove_spans(observers, Keys(&key, 1), name);
}
Spans<CacheTouchSpan> open_touch_spans(const Observers& observers, Keys keys, SpanName name);
inline Spans<CacheTouchSpan> open_touch_spans(const Observers& observers, std::string_view key,
                                              SpanName name) {
    return open_touch_spans(observers, Keys(&key, 1), name);
}
Spans<CacheInvalidationSpan> open_invalidation_spans(const Observers& observers,
                                                     const InvalidationInfo& info);
Spans<CacheFlushSpan> open_flush_spans(const Observers& observers, SpanName name);
Spans<CacheCleanupSpan> open_cleanup_spans(const Observers& observers, SpanName name);

}  // namespace psycache::detail
