// All contenders that there are. Each opens its connections when it is made.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "throughput/contender.hpp"
#include "throughput/data.hpp"
#include "throughput/postgres.hpp"
#include "throughput/redis.hpp"

namespace bench {

/// Where contenders run.
struct Arena {
    const Postgres* postgres = nullptr;
    const Redis* redis = nullptr;  // null when there is none
};

/// The connections that psycache's pool opens at most, by default.
std::size_t default_pool_size();

/// What runs the callers of AsyncPostgresCache: each io_context has a cache of its own.
struct Runners {
    std::size_t contexts = 1;
    std::size_t threads = 1;  // of each context
};
std::unique_ptr<Contender> psycache_async(const Arena& arena, const Data& data,
                                          const Workload& workload, std::size_t callers,
                                          Runners runners);
std::unique_ptr<Contender> psycache_blocking(const Arena& arena, const Data& data,
                                             const Workload& workload, std::size_t threads);

enum class Parse { no, yes };
std::unique_ptr<Contender> plain_libpq(const Arena& arena, const Data& data,
                                       const Workload& workload, std::size_t threads, Parse parse);

/// The following throw Unavailable when the benchmark was built without the library.
std::unique_ptr<Contender> libpqxx(const Arena& arena, const Data& data, const Workload& workload,
                                   std::size_t threads);
std::unique_ptr<Contender> hiredis_blocking(const Arena& arena, const Data& data,
                                            const Workload& workload);
/// So many commands outstanding on one connection, all the time.
std::unique_ptr<Contender> hiredis_pipelined(const Arena& arena, const Data& data,
                                             const Workload& workload, std::size_t outstanding);

/// The following throw Unavailable when the tool is not there.
enum class Traffic { plain, pipelined, python };
inline constexpr std::size_t pgbench_pipeline = 20;
std::unique_ptr<Contender> pgbench(const Arena& arena, const Data& data, const Workload& workload,
                                   std::size_t connections, Traffic traffic);
std::optional<std::string> find_pgbench();

std::unique_ptr<Contender> redis_benchmark(const Arena& arena, const Data& data,
                                           const Workload& workload, std::size_t connections,
                                           std::size_t pipeline);

}  // namespace bench
