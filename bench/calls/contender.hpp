// One way of making calls, and what all of them have in common.
#pragma once

#include <atomic>
#include <boost/json/object.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "calls/job.hpp"
#include "calls/measure.hpp"

namespace bench {

/// Made with its connections open.
class Contender {
  public:
    Contender() = default;
    Contender(const Contender&) = delete;
    Contender& operator=(const Contender&) = delete;
    virtual ~Contender() = default;

    /// Asks for values that are known; throws when an answer is wrong.
    virtual void verify() {}
    virtual void warm_up(Seconds time) { run(time); }
    virtual Figures run(Seconds time) = 0;
};

/// AsyncPostgresCache.
std::unique_ptr<Contender> cache_async(const Job& job, const Data& data);
/// PostgresCache: all threads share one, as an application's would.
std::unique_ptr<Contender> cache_blocking(const Job& job, const Data& data);
/// Makes the job's number of calls, and tells by how many MiB resident memory grew after the first
/// hundredth of them: memory_growth_mib.
std::unique_ptr<Contender> cache_memory(const Job& job, const Data& data);
/// What one writes by hand: blocking libpq, statements prepared once, binary values, JSON parsed.
std::unique_ptr<Contender> libpq(const Job& job, const Data& data);
/// As its manual shows it: one connection for each thread, prepared statements, JSON parsed.
std::unique_ptr<Contender> libpqxx(const Job& job, const Data& data);
/// One connection of hiredis with as many commands outstanding as the job has callers, all the
/// time; JSON parsed.
std::unique_ptr<Contender> hiredis(const Job& job, const Data& data);

/// When calls are due.
class Pace {
  public:
    Pace(const Job& job, Seconds time)
        : end_(after(time)),
          interval_(job.rate > 0 ? 1 / job.rate : 0),
          calls_(static_cast<std::uint64_t>(job.rate * time.count())) {}

    /// @param at when the caller became free; then, when its next call is due. A latency counts
    /// from there, so that a pause counts for all calls that had to wait for its end.
    /// @returns false after the last call.
    bool next(Clock::time_point& at) {
        if (interval_.count() == 0) {
            // One call in any case, however busy the machine and short the time.
            return at < end_ || taken_.exchange(1) == 0;
        }
        const std::uint64_t call = taken_.fetch_add(1, std::memory_order_relaxed);
        at = start_ +
             std::chrono::duration_cast<Clock::duration>(interval_ * static_cast<double>(call));
        // Callers that have fallen behind by this much will not catch up.
        return call < calls_ && Clock::now() < at + std::chrono::seconds(5);
    }

  private:
    const Clock::time_point start_ = Clock::now();
    const Clock::time_point end_;
    const Seconds interval_;
    const std::uint64_t calls_;
    std::atomic<std::uint64_t> taken_{0};
};

/// @returns the moment a caller is free again: when it was answered, or has done its own work.
inline Clock::time_point work_on(const Job& job, Clock::time_point answered) {
    const Seconds work(job.own_work_us * 1e-6);
    auto now = answered;
    while (now - answered < work) {
        now = Clock::now();
    }
    return now;
}

/// @param get answers with an optional object, @param put stores one.
template <class Get, class Put>
void check_answers(const Data& data, Get get, Put put) {
    const std::size_t last = data.hits().size() - 1;
    for (const std::size_t id : {std::size_t{0}, last / 2, last}) {
        check(get(data.hits()[id]) == value_of(data.value_size(), id), "another value");
    }
    check(!get(key_of(miss_digit, last)), "a key that is not there");
    json::object changed = data.put_value();
    changed["name"] = "Grace Hopper";
    for (const json::object& written : {changed, data.put_value()}) {
        put(data.puts()[last], written);
        check(get(data.puts()[last]) == written, "another value than was put");
    }
}

/// A blocking client, used by one thread at a time.
class Session {
  public:
    Session() = default;
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    virtual ~Session() = default;

    virtual std::optional<json::object> get(const std::string& key) = 0;
    virtual void put(const std::string& key, const json::object& value) = 0;
    /// @returns how many of the keys were found.
    virtual std::size_t get_many(const std::vector<std::string>& keys);
};

class SessionPool;

/// A thread for every caller of the job, or this thread if there is only one; and a session that
/// make() returns for every caller, or as many as the job's connections, for which calls wait then.
class ThreadsContender : public Contender {
  public:
    template <class Make>
    ThreadsContender(const Job& job, const Data& data, Make make) : job_(job), data_(data) {
        const bool shared = job.connections > 0 && job.connections < job.callers;
        for (std::size_t i = 0; i < (shared ? job.connections : job.callers); ++i) {
            sessions_.push_back(make());
        }
    }

    void verify() override;
    Figures run(Seconds time) override;

  private:
    void call_until_over(Pace& pace, SessionPool& pool, std::size_t caller,
                         Histogram& histogram) const;

    const Job job_;
    const Data& data_;
    std::vector<std::unique_ptr<Session>> sessions_;
};

}  // namespace bench
