#pragma once

#include <atomic>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/instrumentation.hpp>
#include <psycache/options.hpp>

namespace psycache {

/// The instrumentations of a cache: opens their spans in order, ends them in reverse, and lets none
/// of their exceptions reach a caller.
class Observers {
  public:
    Observers(std::vector<std::shared_ptr<CacheInstrumentation>> providers, LogSink log);

    bool empty() const noexcept { return providers_.empty(); }

    /// Logs, once per provider, that it threw.
    void complain(std::size_t provider) const noexcept;
    /// Writes to the cache's sink; nothing escapes.
    void log(LogLevel level, std::string_view line) const noexcept;

    const std::vector<std::shared_ptr<CacheInstrumentation>>& providers() const noexcept {
        return providers_;
    }

  private:
    const std::vector<std::shared_ptr<CacheInstrumentation>> providers_;
    const LogSink log_;
    const std::unique_ptr<std::atomic<bool>[]> complained_;
};

/// The spans of one call, one per provider that wants one.
template <class Span>
class Spans {
  public:
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

}  // namespace psycache
