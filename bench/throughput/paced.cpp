#include "throughput/paced.hpp"

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <array>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/parse.hpp>
#include <exception>
#include <string_view>
#include <thread>
#include <vector>

#include <psycache/psycache.hpp>

#include "throughput/async_run.hpp"
#include "throughput/histogram.hpp"
#include "throughput/measured.hpp"

namespace bench {

namespace {

class Schedule {
  public:
    Schedule(double rate, Seconds time)
        : interval_(1 / rate), calls_(static_cast<std::uint64_t>(rate * time.count())) {}

    /// When the next call is due; false after the last.
    bool next(Clock::time_point& due) {
        const std::uint64_t call = taken_.fetch_add(1, std::memory_order_relaxed);
        due = start_ +
              std::chrono::duration_cast<Clock::duration>(interval_ * static_cast<double>(call));
        // Who has fallen behind by this much will not catch up, and must come to an end.
        return call < calls_ && Clock::now() < due + std::chrono::seconds(5);
    }

  private:
    const Clock::time_point start_ = Clock::now();
    const Seconds interval_;
    const std::uint64_t calls_;
    std::atomic<std::uint64_t> taken_{0};
};

Workload gets() {
    Workload workload;
    workload.operation = Operation::get;
    return workload;
}

asio::awaitable<void> paced_caller(asio::io_context& context, psycache::AsyncPostgresCache cache,
                                   const Data& data, std::size_t caller, Schedule& schedule,
                                   Histogram& histogram) {
    Choice choice(data, gets(), caller);
    asio::steady_timer timer(context);
    Clock::time_point due;
    while (schedule.next(due)) {
        if (due > Clock::now()) {
            timer.expires_at(due);
            co_await timer.async_wait(asio::use_awaitable);
        }
        std::string key = choice.get_key();
        const auto value = co_await cache.get_raw(std::move(key));
        check(value.has_value(), "get");
        histogram.record(Clock::now() - due);
    }
}

Histogram paced_psycache(const Postgres& server, const Data& data, double rate, Seconds time) {
    asio::io_context context(1);
    psycache::PoolOptions pool_options;
    pool_options.dsn = server.dsn();
    psycache::CacheOptions cache_options;
    cache_options.schema = server.schema(data.value_size());
    const psycache::AsyncPostgresCache cache(context.get_executor(), pool_options, cache_options);
    const auto run = [&](Schedule& schedule) {
        Histogram histogram;
        run_to_end(
            context,
            [&](std::size_t caller) {
                return paced_caller(context, cache, data, caller, schedule, histogram);
            },
            paced_callers);
        return histogram;
    };
    Schedule warm_up(rate, Seconds(0.2));
    run(warm_up);
    Schedule schedule(rate, time);
    return run(schedule);
}

void paced_thread(const PlainConnection& connection, const Data& data, std::size_t caller,
                  Schedule& schedule, Histogram& histogram) {
#ifdef __linux__
    // Sleeping would otherwise last 50 us longer than asked for; Asio's timers have no such slack.
    prctl(PR_SET_TIMERSLACK, 1UL);
#endif
    Choice choice(data, gets(), caller);
    Clock::time_point due;
    while (schedule.next(due)) {
        std::this_thread::sleep_until(due);
        const std::string& key = choice.get_key();
        const std::array<const char*, 1> values{key.c_str()};
        const ResultPtr result = connection.checked(
            PQexecPrepared(connection.get(), "get", 1, values.data(), nullptr, nullptr, 0));
        check(PQntuples(result.get()) == 1, "get");
        const json::value value = json::parse(
            std::string_view(PQgetvalue(result.get(), 0, 0),
                             static_cast<std::size_t>(PQgetlength(result.get(), 0, 0))));
        check(value.is_object(), "get");
        histogram.record(Clock::now() - due);
    }
}

Histogram paced_threads_run(const Postgres& server, const Data& data, double rate, Seconds time) {
    std::vector<std::unique_ptr<PlainConnection>> connections;
    const std::string sql = get_sql(server.table(data.value_size()), "$1");
    for (std::size_t i = 0; i < paced_threads; ++i) {
        connections.push_back(std::make_unique<PlainConnection>(server.dsn()));
        const PlainConnection& connection = *connections.back();
        connection.checked(PQprepare(connection.get(), "get", sql.c_str(), 1, nullptr));
    }
    const auto run = [&](Schedule& schedule) {
        std::vector<Histogram> histograms(paced_threads);
        std::vector<std::exception_ptr> failures(paced_threads);
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < paced_threads; ++i) {
            threads.emplace_back([&, i] {
                try {
                    paced_thread(*connections[i], data, i, schedule, histograms[i]);
                } catch (...) {
                    failures[i] = std::current_exception();
                }
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        Histogram whole;
        for (std::size_t i = 0; i < paced_threads; ++i) {
            if (failures[i]) {
                std::rethrow_exception(failures[i]);
            }
            whole.add(histograms[i]);
        }
        return whole;
    };
    Schedule warm_up(rate, Seconds(0.2));
    run(warm_up);
    Schedule schedule(rate, time);
    return run(schedule);
}

}  // namespace

PacedSample run_paced(const Arena& arena, const Data& data, double rate, Seconds time) {
    PacedSample sample;
    sample.offered = rate;
    const Histogram psycache = paced_psycache(*arena.postgres, data, rate, time);
    const Histogram one_by_one = paced_threads_run(*arena.postgres, data, rate, time);
    sample.answered = static_cast<double>(psycache.total()) / time.count();
    sample.psycache = percentiles(psycache);
    sample.one_by_one = percentiles(one_by_one);
    return sample;
}

}  // namespace bench
