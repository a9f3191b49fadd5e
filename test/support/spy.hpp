#pragma once

/// @file
/// Instrumentation and log sinks that remember what they were told.

#include <algorithm>
#include <iterator>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/instrumentation.hpp>
#include <psycache/options.hpp>

namespace psycache::test {

/// Lines in the order in which they were written, from any thread.
class Journal {
  public:
    void write(std::string line) {
        const std::lock_guard lock(mutex_);
        lines_.push_back(std::move(line));
    }
    std::vector<std::string> lines() const {
        const std::lock_guard lock(mutex_);
        return lines_;
    }
    void clear() {
        const std::lock_guard lock(mutex_);
        lines_.clear();
    }
    std::size_t count(std::string_view part) const {
        const std::lock_guard lock(mutex_);
        return static_cast<std::size_t>(std::count_if(
            lines_.begin(), lines_.end(),
            [part](const std::string& line) { return line.find(part) != std::string::npos; }));
    }
    bool contains(std::string_view part) const { return count(part) != 0; }

  private:
    mutable std::mutex mutex_;
    std::vector<std::string> lines_;
};

/// Keeps log lines as "warning: text".
class LogCapture {
  public:
    LogSink sink() const {
        return [journal = journal_](LogLevel level, std::string_view text) {
            static constexpr const char* names[] = {"debug", "info", "warning", "error"};
            journal->write(std::string(names[static_cast<int>(level)]) + ": " + std::string(text));
        };
    }
    const Journal& journal() const { return *journal_; }

  private:
    std::shared_ptr<Journal> journal_ = std::make_shared<Journal>();
};

/// Keeps what becomes of loads, a word for each.
class LoadTally : public CacheInstrumentation {
  public:
    void record_load(const LoadInfo& load) override {
        const std::lock_guard lock(mutex_);
        words_.push_back(std::string(name_of(load.outcome)) + (load.renewal ? " renewal" : "") +
                         " for " + std::to_string(load.callers));
        last_ = load;
    }
    void record_stale_hit() override {
        const std::lock_guard lock(mutex_);
        words_.emplace_back("stale");
    }
    std::vector<std::string> words() const {
        const std::lock_guard lock(mutex_);
        return words_;
    }
    LoadInfo last() const {
        const std::lock_guard lock(mutex_);
        return last_;
    }

  private:
    mutable std::mutex mutex_;
    std::vector<std::string> words_;
    LoadInfo last_;
};

/// Adds up what happens underneath the calls, and keeps every statement.
class TallyInstrumentation : public CacheInstrumentation {
  public:
    struct Statement {
        std::string operation;
        std::size_t calls;
        bool retry;
        boost::system::error_code error;
    };

    void record_connection_wait(const ConnectionWait& wait) override {
        const std::lock_guard lock(mutex_);
        waits_.push_back(wait);
    }
    void record_statement(const StatementInfo& info) override {
        const std::lock_guard lock(mutex_);
        statements_.push_back(
            Statement{std::string(info.operation), info.calls, info.retry, info.error});
    }
    void record_pool_change(const PoolChange& change) override {
        const std::lock_guard lock(mutex_);
        sum_.open += change.open;
        sum_.idle += change.idle;
        sum_.busy += change.busy;
        sum_.connecting += change.connecting;
        sum_.waiting += change.waiting;
        most_busy_ = std::max(most_busy_, sum_.busy);
        most_waiting_ = std::max(most_waiting_, sum_.waiting);
    }

    std::vector<ConnectionWait> waits() const {
        const std::lock_guard lock(mutex_);
        return waits_;
    }
    std::vector<Statement> statements(std::string_view operation) const {
        const std::lock_guard lock(mutex_);
        std::vector<Statement> found;
        std::copy_if(statements_.begin(), statements_.end(), std::back_inserter(found),
                     [&](const Statement& statement) { return statement.operation == operation; });
        return found;
    }
    PoolChange sum() const {
        const std::lock_guard lock(mutex_);
        return sum_;
    }
    std::ptrdiff_t most_busy() const {
        const std::lock_guard lock(mutex_);
        return most_busy_;
    }
    std::ptrdiff_t most_waiting() const {
        const std::lock_guard lock(mutex_);
        return most_waiting_;
    }

  private:
    mutable std::mutex mutex_;
    std::vector<ConnectionWait> waits_;
    std::vector<Statement> statements_;
    PoolChange sum_;
    std::ptrdiff_t most_busy_ = 0;
    std::ptrdiff_t most_waiting_ = 0;
};

/// Writes every event to a journal: "A get open key=k name=n", "A get hit 12", "A get close".
class SpyInstrumentation : public CacheInstrumentation {
  public:
    explicit SpyInstrumentation(std::shared_ptr<Journal> journal, std::string name = "A")
        : journal_(std::move(journal)), name_(std::move(name)) {}

    std::unique_ptr<CacheGetSpan> start_cache_get_span(const SpanInfo& info) override {
        return open<Get>("get", info);
    }
    std::unique_ptr<CachePutSpan> start_cache_put_span(const SpanInfo& info) override {
        return open<Put>("put", info);
    }
    std::unique_ptr<CacheRemoveSpan> start_cache_remove_span(const SpanInfo& info) override {
        return open<Remove>("remove", info);
    }
    std::unique_ptr<CacheInvalidationSpan> start_cache_invalidation_span(
        const InvalidationInfo& info) override {
        const std::string operation(info.operation);
        journal_->write(name_ + " " + operation + " open group=" + std::string(info.group) +
                        " name=" + std::string(info.name));
        return std::make_unique<Invalidation>(journal_, name_ + " " + operation);
    }
    std::unique_ptr<CacheFlushSpan> start_cache_flush_span() override {
        return open<Flush>("flush");
    }
    std::unique_ptr<CacheCleanupSpan> start_cache_cleanup_span() override {
        return open<Cleanup>("cleanup");
    }

  private:
    template <class Base>
    class Span : public Base {
      public:
        Span(std::shared_ptr<Journal> journal, std::string label)
            : journal_(std::move(journal)), label_(std::move(label)) {}
        ~Span() override { tell("close"); }
        void record_error(const boost::system::error_code& code) override {
            tell(std::string("error ") + code.category().name() + ":" +
                 std::to_string(code.value()));
        }

      protected:
        void tell(const std::string& event) { journal_->write(label_ + " " + event); }

      private:
        std::shared_ptr<Journal> journal_;
        std::string label_;
    };
    class Get : public Span<CacheGetSpan> {
      public:
        using Span::Span;
        void record_cache_hit(std::size_t size) override { tell("hit " + std::to_string(size)); }
        void record_cache_miss() override { tell("miss"); }
    };
    class Put : public Span<CachePutSpan> {
      public:
        using Span::Span;
        void record_put(std::size_t size) override { tell("put " + std::to_string(size)); }
    };
    class Remove : public Span<CacheRemoveSpan> {
      public:
        using Span::Span;
        void record_removed() override { tell("removed"); }
    };
    class Invalidation : public Span<CacheInvalidationSpan> {
      public:
        using Span::Span;
        void record_invalidated(std::uint64_t entries) override {
            tell("invalidated " + std::to_string(entries));
        }
    };
    class Flush : public Span<CacheFlushSpan> {
      public:
        using Span::Span;
        void record_flush(std::uint64_t entries) override {
            tell("flushed " + std::to_string(entries));
        }
    };
    class Cleanup : public Span<CacheCleanupSpan> {
      public:
        using Span::Span;
        void record_cleanup(std::uint64_t entries) override {
            tell("cleaned " + std::to_string(entries));
        }
    };

    template <class T>
    std::unique_ptr<T> open(const std::string& operation) {
        journal_->write(name_ + " " + operation + " open");
        return std::make_unique<T>(journal_, name_ + " " + operation);
    }
    template <class T>
    std::unique_ptr<T> open(const std::string& operation, const SpanInfo& info) {
        std::string line = name_ + " " + operation + " open";
        for (const auto key : info.keys) {
            line += " key=" + std::string(key);
        }
        journal_->write(line + " name=" + std::string(info.name));
        return std::make_unique<T>(journal_, name_ + " " + operation);
    }

    std::shared_ptr<Journal> journal_;
    std::string name_;
};

}  // namespace psycache::test
