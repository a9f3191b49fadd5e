#include "throughput/memory.hpp"

#include <algorithm>

#include <psycache/psycache.hpp>

#include "throughput/async_run.hpp"
#include "throughput/cpu_time.hpp"

namespace bench {

namespace {

asio::awaitable<void> call(psycache::AsyncPostgresCache cache, const Data& data, Choice& choice,
                           std::uint64_t calls, Clock::time_point end, std::uint64_t& made) {
    for (; made < calls && Clock::now() < end; ++made) {
        if (choice.next_is_put()) {
            std::string key = choice.put_key();
            json::object value = data.put_value();
            co_await cache.put_raw(std::move(key), std::move(value), entry_ttl);
        } else {
            std::string key = choice.get_key();
            const auto value = co_await cache.get_raw(std::move(key));
            check(value.has_value(), "get");
        }
    }
}

}  // namespace

std::optional<MemorySample> run_memory(const Arena& arena, const Data& data,
                                       std::uint64_t first_calls, std::uint64_t all_calls,
                                       Seconds limit, const std::function<void()>& between) {
    asio::io_context context(1);
    psycache::PoolOptions pool_options;
    pool_options.dsn = arena.postgres->dsn();
    psycache::CacheOptions cache_options;
    cache_options.schema = arena.postgres->schema(data.value_size());
    const psycache::AsyncPostgresCache cache(context.get_executor(), pool_options, cache_options);

    Workload mix;
    mix.operation = Operation::mix;
    Choice choice(data, mix, 0);
    MemorySample sample;
    const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(limit);
    std::uint64_t made = 0;
    const auto run = [&](std::uint64_t calls) {
        while (made < calls && Clock::now() < end) {
            const std::uint64_t next = std::min<std::uint64_t>(made + 10000, calls);
            run_to_end(
                context, [&](std::size_t) { return call(cache, data, choice, next, end, made); },
                1);
            between();
        }
        return resident_bytes();
    };
    const auto first = run(first_calls);
    sample.first_calls = made;
    const auto all = run(all_calls);
    sample.all_calls = made;
    if (!first || !all) {
        return std::nullopt;
    }
    sample.first_bytes = static_cast<double>(*first);
    sample.all_bytes = static_cast<double>(*all);
    return sample;
}

}  // namespace bench
