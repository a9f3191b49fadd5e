#pragma once

/// @file
/// Callers that store and look up without a pause, and notice every answer that cannot be right.

#include <atomic>
#include <boost/json/object.hpp>
#include <cstdint>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <psycache/psycache.hpp>

#include "run_coro.hpp"
#include "server.hpp"

namespace psycache::test {

/// What all callers together have seen.
class Observations {
  public:
    void answered() { ++answers_; }
    void wrong(const std::string& how) { note(wrong_, how); }
    /// @param allowed how long the call may take.
    void failed(const Failure& failure, Clock::duration took, Clock::duration allowed) {
        ++failures_;
        if (took > allowed) {
            note(wrong_, "late: " + failure.what());
        }
        if (!failure.typed() || failure.code() != Condition::unavailable) {
            note(wrong_, "not an outage: " + failure.what());
        }
        note(codes_, failure.code().message() + " [" + failure.sqlstate() + "]");
    }

    std::size_t answers() const { return answers_; }
    std::size_t failures() const { return failures_; }
    /// What must not happen, and how often it has.
    std::vector<std::string> wrong() const { return lines(wrong_); }
    /// How calls failed, and how often.
    std::vector<std::string> codes() const { return lines(codes_); }

  private:
    std::vector<std::string> lines(const std::map<std::string, int>& notes) const {
        const std::lock_guard lock(mutex_);
        std::vector<std::string> lines;
        for (const auto& [text, times] : notes) {
            lines.push_back(std::to_string(times) + " times: " + text);
        }
        return lines;
    }
    void note(std::map<std::string, int>& notes, const std::string& text) {
        const std::lock_guard lock(mutex_);
        ++notes[text];
    }

    mutable std::mutex mutex_;
    std::map<std::string, int> wrong_;
    std::map<std::string, int> codes_;
    std::atomic<std::size_t> answers_ = 0;
    std::atomic<std::size_t> failures_ = 0;
};

/// One who alone writes under a key, and so knows what it may find there.
class Caller {
  public:
    Caller(std::string key, Observations& observations)
        : key_(std::move(key)), observations_(observations) {}

    const std::string& key() const { return key_; }
    bool puts() const { return next_put_; }
    json::object value() const {
        json::object value = numbered(tried_);
        value["key"] = key_;
        return value;
    }

    void begins() {
        started_ = Clock::now();
        tried_ += next_put_ ? 1 : 0;
    }
    void stored() {
        stored_ = tried_;
        next_put_ = false;
        observations_.answered();
    }
    void found(const std::optional<json::object>& value) {
        next_put_ = true;
        observations_.answered();
        if (!value) {
            if (stored_ != 0) {
                observations_.wrong("an entry is lost");
            }
            return;
        }
        if (value->at("key").as_string() != key_) {
            observations_.wrong("the value of another key");
            return;
        }
        const std::int64_t number = value->at("n").as_int64();
        // A write without a known outcome may be there, or not, or come even later.
        const bool late = uncertain_.contains(number);
        if (!late && (number < stored_ || number > tried_)) {
            observations_.wrong(number < stored_ ? "an older value" : "a value from nowhere");
        }
    }
    void failed(const Failure& failure, Clock::duration allowed) {
        if (next_put_ && failure.code() == Condition::outcome_unknown) {
            uncertain_.insert(tried_);
        }
        next_put_ = !next_put_;
        observations_.failed(failure, Clock::now() - started_, allowed);
    }

  private:
    std::string key_;
    Observations& observations_;
    bool next_put_ = true;
    std::int64_t tried_ = 0;            // the newest number that was sent
    std::int64_t stored_ = 0;           // the newest number that was acknowledged
    std::set<std::int64_t> uncertain_;  // those that may be stored, even later
    Clock::time_point started_;
};

/// Many callers of several caches, each at work until they are told to end.
class Callers {
  public:
    /// @param allowed how long a call that fails may take.
    explicit Callers(Clock::duration allowed) : allowed_(allowed) {}
    Callers(const Callers&) = delete;
    Callers& operator=(const Callers&) = delete;
    ~Callers() { end(); }

    /// Coroutines that share a cache.
    void add(const PoolOptions& pool, const CacheOptions& options, unsigned count) {
        AsyncPostgresCache& cache =
            async_caches_.emplace_back(coroutines_.context().get_executor(), pool, options);
        for (unsigned i = 0; i < count; ++i) {
            Caller& caller = make();
            ends_.push_back(
                coroutines_.spawn([this, &cache, &caller] { return work(cache, caller); }));
        }
    }
    /// Threads that share a cache.
    void add_threads(const PoolOptions& pool, const CacheOptions& options, unsigned count) {
        PostgresCache& cache = caches_.emplace_back(pool, options);
        for (unsigned i = 0; i < count; ++i) {
            Caller& caller = make();
            threads_.emplace_back([this, &cache, &caller] { work(cache, caller); });
        }
    }

    Observations& observations() { return observations_; }

    /// Waits for that many further answers. @returns whether they came.
    bool work_on(std::size_t answers) {
        const auto before = observations_.answers();
        const auto enough = [&] { return observations_.answers() >= before + answers; };
        return eventually(enough);
    }

    /// Waits until every cache answers again. @returns whether that happened in time.
    bool recover() {
        const auto calm = [&] {
            const auto failures = observations_.failures();
            const bool on = work_on(2 * callers_.size());
            return on && observations_.failures() == failures;
        };
        return eventually(calm);
    }

    /// Lets all callers end. @returns whether they did.
    bool end() {
        ending_ = true;
        bool in_time = true;
        for (auto& end : ends_) {
            in_time = end.wait_for(patience) == std::future_status::ready && in_time;
        }
        for (auto& thread : threads_) {
            if (thread.joinable()) {
                thread.join();
            }
        }
        return in_time;
    }

    /// Of all caches, once they are at rest.
    CacheStatistics statistics() const {
        CacheStatistics sum;
        const auto add = [&](const CacheStatistics& one) {
            sum.errors += one.errors;
            sum.retries += one.retries;
            sum.queued += one.queued;
        };
        for (const auto& cache : async_caches_) {
            add(cache.statistics());
        }
        for (const auto& cache : caches_) {
            add(cache.statistics());
        }
        return sum;
    }

  private:
    Caller& make() {
        return callers_.emplace_back(
            "caller " + std::to_string(callers_.size()) + " " + unique_name(), observations_);
    }

    asio::awaitable<void> work(AsyncPostgresCache& cache, Caller& caller) {
        while (!ending_) {
            bool lost = false;
            Failure failure;
            caller.begins();
            try {
                if (caller.puts()) {
                    co_await cache.put_raw(caller.key(), caller.value(), 1h);
                    caller.stored();
                } else {
                    const auto value = co_await cache.get_raw(caller.key());
                    caller.found(value);
                }
            } catch (const boost::system::system_error&) {
                lost = true;
                failure = Failure(std::current_exception());
            }
            if (lost) {
                caller.failed(failure, allowed_);
                co_await pause(10ms);
            }
        }
    }

    void work(PostgresCache& cache, Caller& caller) {
        while (!ending_) {
            caller.begins();
            const Failure failure = failure_of([&] {
                if (caller.puts()) {
                    cache.put_raw(caller.key(), caller.value(), 1h);
                    caller.stored();
                } else {
                    caller.found(cache.get_raw(caller.key()));
                }
            });
            if (failure) {
                caller.failed(failure, allowed_);
                std::this_thread::sleep_for(10ms);
            }
        }
    }

    Clock::duration allowed_;
    Observations observations_;
    std::atomic<bool> ending_ = false;
    std::deque<Caller> callers_;
    Threads coroutines_{2};  // outlives the caches that it runs
    std::deque<AsyncPostgresCache> async_caches_;
    std::deque<PostgresCache> caches_;
    std::vector<std::future<void>> ends_;
    std::vector<std::thread> threads_;
};

}  // namespace psycache::test
