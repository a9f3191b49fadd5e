// The library that all this is about.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <fstream>
#include <mutex>
#include <thread>
#include <utility>

#include <psycache/psycache.hpp>

#ifdef PSYCACHE_BENCH_PROMETHEUS
#include <prometheus/registry.h>

#include <psycache/instrumentation/prometheus.hpp>
#endif

#include "calls/contender.hpp"
#include "calls/postgres.hpp"

namespace asio = boost::asio;

namespace bench {

namespace {

class EmptySpans : public psycache::CacheInstrumentation {
  public:
    std::unique_ptr<psycache::CacheGetSpan> start_cache_get_span(
        const psycache::SpanInfo&) override {
        return std::make_unique<psycache::CacheGetSpan>();
    }
};

std::shared_ptr<psycache::CacheInstrumentation> provider_of(const Job& job) {
    if (job.provider == "does nothing") {
        return std::make_shared<psycache::CacheInstrumentation>();
    }
    if (job.provider == "empty spans") {
        return std::make_shared<EmptySpans>();
    }
#ifdef PSYCACHE_BENCH_PROMETHEUS
    return std::make_shared<psycache::PrometheusInstrumentation>(
        std::make_shared<prometheus::Registry>());
#else
    throw Unavailable("built without prometheus-cpp (Debian: prometheus-cpp-dev)");
#endif
}

psycache::PoolOptions pool_options() {
    psycache::PoolOptions options;
    options.dsn = dsn_of_environment();
    return options;
}

psycache::CacheOptions cache_options(const Job& job) {
    psycache::CacheOptions options;
    options.schema = job.schema;
    if (!job.provider.empty()) {
        options.instrumentations.push_back(provider_of(job));
    }
    return options;
}

/// An io_context with a cache.
struct Home {
    explicit Home(const Job& job)
        : context(static_cast<int>(job.threads)),
          cache(context.get_executor(), pool_options(), cache_options(job)) {}

    /// Runs a coroutine to its end; throws what it threw.
    template <class T>
    T answer(asio::awaitable<T> call) {
        std::exception_ptr failure;
        std::optional<T> result;
        asio::co_spawn(context, std::move(call), [&](std::exception_ptr e, T value) {
            failure = e;
            result = std::move(value);
        });
        context.restart();
        context.run();
        if (failure) {
            std::rethrow_exception(failure);
        }
        return std::move(*result);
    }

    asio::io_context context;
    psycache::AsyncPostgresCache cache;
};

asio::awaitable<std::optional<json::object>> get_once(psycache::AsyncPostgresCache cache,
                                                      std::string key) {
    co_return co_await cache.get_raw(std::move(key));
}

asio::awaitable<bool> put_once(psycache::AsyncPostgresCache cache, std::string key,
                               json::object value) {
    co_await cache.put_raw(std::move(key), std::move(value), entry_ttl);
    co_return true;
}

/// Of the thread that runs a caller right now.
thread_local Histogram* histogram_here = nullptr;

class AsyncContender : public Contender {
  public:
    AsyncContender(const Job& job, const Data& data) : job_(job), data_(data) {
        for (std::size_t i = 0; i < job.contexts; ++i) {
            homes_.push_back(std::make_unique<Home>(job));
        }
    }

    void verify() override {
        for (const auto& home : homes_) {
            check_answers(
                data_,
                [&](const std::string& key) { return home->answer(get_once(home->cache, key)); },
                [&](const std::string& key, const json::object& value) {
                    home->answer(put_once(home->cache, key, value));
                });
        }
    }

    Figures run(Seconds time) override {
        return measured(keys_per_call(job_), [this, time](Histogram& histogram) {
            Pace pace(job_, time);
            std::mutex mutex;
            std::exception_ptr failure;
            for (std::size_t i = 0; i < job_.callers; ++i) {
                Home& home = *homes_[i % homes_.size()];
                asio::co_spawn(home.context, call_until_over(pace, home, i),
                               [&](std::exception_ptr e) {
                                   const std::lock_guard lock(mutex);
                                   failure = failure ? failure : e;
                               });
            }
            if (homes_.size() == 1 && job_.threads == 1) {
                histogram_here = &histogram;
                homes_.front()->context.restart();
                homes_.front()->context.run();
            } else {
                run_threads(histogram);
            }
            if (failure) {
                std::rethrow_exception(failure);
            }
        });
    }

  private:
    void run_threads(Histogram& histogram) {
        std::vector<Histogram> histograms(homes_.size() * job_.threads);
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < histograms.size(); ++i) {
            asio::io_context& context = homes_[i / job_.threads]->context;
            if (i % job_.threads == 0) {
                context.restart();
            }
            threads.emplace_back([&context, &mine = histograms[i]] {
                histogram_here = &mine;
                context.run();
            });
        }
        for (std::size_t i = 0; i < histograms.size(); ++i) {
            threads[i].join();
            histogram.add(histograms[i]);
        }
    }

    asio::awaitable<void> call_until_over(Pace& pace, Home& home, std::size_t caller) {
        Keys keys(data_, caller);
        asio::steady_timer timer(home.context);
        for (auto at = Clock::now(); pace.next(at);) {
            if (job_.rate > 0 && at > Clock::now()) {
                timer.expires_at(at);
                co_await timer.async_wait(asio::use_awaitable);
            }
            // Here and not in a coroutine for each call, which would be measured too.
            if (job_.operation == Operation::get) {
                std::string key = keys.hit();
                const auto value = co_await home.cache.get_raw(std::move(key));
                check(value.has_value(), "get");
            } else if (job_.operation == Operation::put) {
                std::string key = keys.put();
                json::object value = data_.put_value();
                co_await home.cache.put_raw(std::move(key), std::move(value), entry_ttl);
            } else if (job_.operation == Operation::get_text) {
                std::string key = keys.hit();
                const auto text = co_await home.cache.get_text(std::move(key));
                check(text.has_value(), "get_text");
            } else if (job_.operation == Operation::touch) {
                std::string key = keys.hit();
                const bool live = co_await home.cache.touch(std::move(key), entry_ttl);
                check(live, "touch");
            } else if (job_.operation == Operation::put_if_absent) {
                std::string key = keys.with(absent_digit);
                co_await home.cache.put_if_absent(std::move(key), data_.put_value(), entry_ttl);
            } else if (job_.operation == Operation::increment) {
                std::string key = keys.with(counter_digit);
                const auto count = co_await home.cache.increment(std::move(key), 1, entry_ttl);
                check(count > 0, "increment");
            } else {
                std::vector<std::string> batch = keys.batch();
                const auto values = co_await home.cache.get_raw_many(std::move(batch));
                for (const auto& value : values) {
                    check(value.has_value(), "get_raw_many");
                }
            }
            const auto now = Clock::now();
            histogram_here->record(now - at);
            at = work_on(job_, now);
        }
    }

    const Job job_;
    const Data& data_;
    std::vector<std::unique_ptr<Home>> homes_;
};

class MemoryContender : public Contender {
  public:
    MemoryContender(const Job& job, const Data& data) : job_(job), data_(data), home_(job) {}

    void warm_up(Seconds /*time*/) override {}

    Figures run(Seconds /*time*/) override {
        Keys keys(data_, 0);
        const double first = home_.answer(make_calls(keys, job_.calls / 100));
        const double all = home_.answer(make_calls(keys, job_.calls - job_.calls / 100));
        return {{"memory_growth_mib", (all - first) / (1 << 20)}, {"memory_mib", all / (1 << 20)}};
    }

  private:
    /// Gets, and a put now and then; fewer on a machine that would take minutes for them.
    /// @returns the bytes that are resident then.
    asio::awaitable<double> make_calls(Keys& keys, std::uint64_t calls) {
        const auto end = after(Seconds(60));
        for (std::uint64_t call = 0; call < calls && Clock::now() < end; ++call) {
            if (call % 10 == 9) {
                std::string key = keys.put();
                json::object value = data_.put_value();
                co_await home_.cache.put_raw(std::move(key), std::move(value), entry_ttl);
            } else {
                std::string key = keys.hit();
                const auto value = co_await home_.cache.get_raw(std::move(key));
                check(value.has_value(), "get");
            }
        }
        std::ifstream file("/proc/self/status");
        for (std::string line; std::getline(file, line);) {
            if (line.rfind("VmRSS:", 0) == 0) {
                co_return std::stod(line.substr(6)) * 1024;
            }
        }
        throw Unavailable("memory cannot be told here");
    }

    const Job job_;
    const Data& data_;
    Home home_;
};

class BlockingSession : public Session {
  public:
    explicit BlockingSession(std::shared_ptr<psycache::PostgresCache> cache)
        : cache_(std::move(cache)) {}

    std::optional<json::object> get(const std::string& key) override {
        return cache_->get_raw(key);
    }
    void put(const std::string& key, const json::object& value) override {
        cache_->put_raw(key, value, entry_ttl);
    }
    std::size_t get_many(const std::vector<std::string>& keys) override {
        std::size_t found = 0;
        for (const auto& value : cache_->get_raw_many(keys)) {
            found += value ? 1U : 0U;
        }
        return found;
    }

  private:
    std::shared_ptr<psycache::PostgresCache> cache_;
};

}  // namespace

std::unique_ptr<Contender> cache_async(const Job& job, const Data& data) {
    return std::make_unique<AsyncContender>(job, data);
}

std::unique_ptr<Contender> cache_memory(const Job& job, const Data& data) {
    return std::make_unique<MemoryContender>(job, data);
}

std::unique_ptr<Contender> cache_blocking(const Job& job, const Data& data) {
    const auto cache =
        std::make_shared<psycache::PostgresCache>(pool_options(), cache_options(job));
    return std::make_unique<ThreadsContender>(
        job, data, [&cache] { return std::make_unique<BlockingSession>(cache); });
}

}  // namespace bench
