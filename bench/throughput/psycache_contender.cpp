// The library that all this is about.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <psycache/psycache.hpp>

#include "throughput/async_run.hpp"
#include "throughput/blocking.hpp"
#include "throughput/contenders.hpp"
#include "throughput/measured.hpp"

namespace bench {

namespace {

psycache::PoolOptions pool_options(const Postgres& server) {
    psycache::PoolOptions options;
    options.dsn = server.dsn();
    return options;
}

psycache::CacheOptions cache_options(const Postgres& server, const Data& data) {
    psycache::CacheOptions options;
    options.schema = server.schema(data.value_size());
    return options;
}

/// An io_context with a cache.
struct Home {
    Home(const Postgres& server, const Data& data, std::size_t threads)
        : context(static_cast<int>(threads)),
          cache(context.get_executor(), pool_options(server), cache_options(server, data)) {}

    asio::io_context context;
    psycache::AsyncPostgresCache cache;
};

/// Of the thread that runs a caller right now.
thread_local Histogram* histogram_here = nullptr;

class AsyncContender : public Contender {
  public:
    AsyncContender(const Postgres& server, const Data& data, const Workload& workload,
                   std::size_t callers, Runners runners)
        : server_(server),
          data_(data),
          workload_(workload),
          callers_(callers),
          threads_(runners.threads) {
        for (std::size_t i = 0; i < runners.contexts; ++i) {
            homes_.push_back(std::make_unique<Home>(server, data, runners.threads));
        }
    }

    void verify() override {
        for (const auto& home : homes_) {
            run_to_end(
                home->context, [&](std::size_t) { return verify_answers(home->cache); }, 1);
        }
    }

    Sample run(Seconds time) override {
        const auto cpu = [this] { return server_.cpu_seconds(); };
        return measured(cpu, workload_, [this, time](Histogram& histogram) {
            const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
            if (homes_.size() == 1 && threads_ == 1) {
                histogram_here = &histogram;
                run_to_end(
                    homes_.front()->context,
                    [this, end](std::size_t caller) {
                        return call_until(end, homes_.front()->cache, caller);
                    },
                    callers_);
            } else {
                run_on_threads(end, histogram);
            }
        });
    }

  private:
    void run_on_threads(Clock::time_point end, Histogram& histogram) {
        std::mutex mutex;
        std::exception_ptr failure;
        for (std::size_t i = 0; i < callers_; ++i) {
            Home& home = *homes_[i % homes_.size()];
            asio::co_spawn(home.context, call_until(end, home.cache, i), [&](std::exception_ptr e) {
                const std::lock_guard lock(mutex);
                failure = failure ? failure : e;
            });
        }
        std::vector<Histogram> histograms(homes_.size() * threads_);
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < histograms.size(); ++i) {
            asio::io_context& context = homes_[i / threads_]->context;
            if (i % threads_ == 0) {
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
        if (failure) {
            std::rethrow_exception(failure);
        }
    }

    asio::awaitable<void> verify_answers(psycache::AsyncPostgresCache& cache) {
        const std::size_t last = data_.key_count() - 1;
        for (const std::size_t id : {std::size_t{0}, last / 2, last}) {
            std::string key = data_.hits()[id];
            const auto value = co_await cache.get_raw(std::move(key));
            check(value == value_of(data_.value_size(), id), "another value");
        }
        std::string missing = key_of(miss_digit, last);
        const auto none = co_await cache.get_raw(std::move(missing));
        check(!none, "get miss");

        json::object changed = data_.put_value();
        changed["name"] = "Grace Hopper";
        const std::vector<json::object> values_to_put{changed, data_.put_value()};
        for (const json::object& written : values_to_put) {
            std::string put_key = data_.puts()[last];
            json::object value = written;
            co_await cache.put_raw(std::move(put_key), std::move(value), entry_ttl);
            std::string key = data_.puts()[last];
            const auto now_there = co_await cache.get_raw(std::move(key));
            check(now_there == written, "another value than was put");
        }
        co_await verify_many(cache);
        co_await verify_text(cache);
    }

    asio::awaitable<void> verify_many(psycache::AsyncPostgresCache& cache) {
        std::vector<std::string> keys(data_.hits().begin(), data_.hits().begin() + 2);
        keys.push_back(key_of(miss_digit, 0));
        const auto values = co_await cache.get_raw_many(std::move(keys));
        check(values.size() == 3 && values[0] == value_of(data_.value_size(), 0) &&
                  values[1] == value_of(data_.value_size(), 1) && !values[2],
              "get_raw_many");

        const std::vector<json::object> values_to_put{value_of(data_.value_size(), 1),
                                                      data_.put_value()};
        for (const json::object& written : values_to_put) {
            std::vector<psycache::Entry> entries;
            entries.emplace_back(data_.puts()[0], written, entry_ttl);
            entries.emplace_back(data_.puts()[1], written, entry_ttl);
            co_await cache.put_raw_many(std::move(entries));
            std::vector<std::string> written_keys(data_.puts().begin(), data_.puts().begin() + 2);
            const auto now_there = co_await cache.get_raw_many(std::move(written_keys));
            check(now_there.size() == 2 && now_there[0] == written && now_there[1] == written,
                  "put_raw_many");
        }
    }

    asio::awaitable<void> verify_text(psycache::AsyncPostgresCache& cache) {
        std::string key = data_.hits().front();
        const auto text = co_await cache.get_text(std::move(key));
        check(text && json::parse(*text) == value_of(data_.value_size(), 0), "get_text");

        const std::vector<json::object> values_to_put{value_of(data_.value_size(), 1),
                                                      data_.put_value()};
        for (const json::object& written : values_to_put) {
            std::string put_key = data_.puts().front();
            std::string new_text = json::serialize(written);
            co_await cache.put_text(std::move(put_key), std::move(new_text), entry_ttl);
            std::string read_key = data_.puts().front();
            const auto now_there = co_await cache.get_text(std::move(read_key));
            check(now_there && json::parse(*now_there) == written, "put_text");
        }
    }

    asio::awaitable<void> call_until(Clock::time_point end, psycache::AsyncPostgresCache& cache,
                                     std::size_t caller) {
        Choice choice(data_, workload_, caller);
        for (auto start = Clock::now(); start < end;) {
            if (workload_.operation == Operation::put || choice.next_is_put()) {
                std::string key = choice.put_key();
                json::object value = data_.put_value();
                co_await cache.put_raw(std::move(key), std::move(value), entry_ttl);
            } else if (workload_.operation == Operation::get ||
                       workload_.operation == Operation::mix) {
                std::string key = choice.get_key();
                const auto value = co_await cache.get_raw(std::move(key));
                check(value.has_value() != workload_.miss, "get");
            } else {
                co_await other_call(cache, choice);
            }
            const auto now = Clock::now();
            histogram_here->record(now - start);
            start = workload_.own_work.count() > 0 ? work_for(workload_.own_work) : now;
        }
    }

    /// Not for the calls that the bars are taken from: another coroutine for each would be
    /// measured.
    asio::awaitable<void> other_call(psycache::AsyncPostgresCache& cache, Choice& choice) {
        switch (workload_.operation) {
            case Operation::get_many: {
                std::vector<std::string> keys = choice.get_keys();
                const auto values = co_await cache.get_raw_many(std::move(keys));
                for (const auto& value : values) {
                    check(value.has_value(), "get_raw_many");
                }
                break;
            }
            case Operation::put_many: {
                std::vector<psycache::Entry> entries;
                for (const std::string& key : choice.put_keys()) {
                    entries.emplace_back(key, data_.put_value(), entry_ttl);
                }
                co_await cache.put_raw_many(std::move(entries));
                break;
            }
            case Operation::get_text: {
                std::string key = choice.get_key();
                const auto text = co_await cache.get_text(std::move(key));
                check(text.has_value(), "get_text");
                break;
            }
            case Operation::put_text: {
                std::string key = choice.put_key();
                std::string text = data_.put_text();
                co_await cache.put_text(std::move(key), std::move(text), entry_ttl);
                break;
            }
            default:
                break;
        }
    }

    const Postgres& server_;
    const Data& data_;
    const Workload workload_;
    const std::size_t callers_;
    const std::size_t threads_;  // of each home
    std::vector<std::unique_ptr<Home>> homes_;
};

/// All threads share one cache, as an application's would.
class BlockingSession : public Session {
  public:
    explicit BlockingSession(std::shared_ptr<psycache::PostgresCache> cache)
        : cache_(std::move(cache)) {}

    bool get(const std::string& key) override { return cache_->get_raw(key).has_value(); }
    std::optional<json::object> read(const std::string& key) override {
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
    void put_many(const std::vector<std::string>& keys, const json::object& value) override {
        std::vector<psycache::Entry> entries;
        for (const std::string& key : keys) {
            entries.emplace_back(key, value, entry_ttl);
        }
        cache_->put_raw_many(entries);
    }

  private:
    std::shared_ptr<psycache::PostgresCache> cache_;
};

}  // namespace

std::size_t default_pool_size() {
    return psycache::PoolOptions().max_size;
}

std::unique_ptr<Contender> psycache_async(const Arena& arena, const Data& data,
                                          const Workload& workload, std::size_t callers,
                                          Runners runners) {
    return std::make_unique<AsyncContender>(*arena.postgres, data, workload, callers, runners);
}

std::unique_ptr<Contender> psycache_blocking(const Arena& arena, const Data& data,
                                             const Workload& workload, std::size_t threads) {
    const Postgres& server = *arena.postgres;
    psycache::PoolOptions options = pool_options(server);
    options.max_size = threads;
    const auto cache =
        std::make_shared<psycache::PostgresCache>(options, cache_options(server, data));
    std::vector<std::unique_ptr<Session>> sessions;
    for (std::size_t i = 0; i < threads; ++i) {
        sessions.push_back(std::make_unique<BlockingSession>(cache));
    }
    return blocking_contender(
        data, workload, [&server] { return server.cpu_seconds(); }, std::move(sessions));
}

}  // namespace bench
