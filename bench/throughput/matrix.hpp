// Which contenders are measured with which workloads.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "throughput/contender.hpp"
#include "throughput/contenders.hpp"
#include "throughput/data.hpp"
#include "throughput/placement.hpp"

namespace bench {

// How the contenders are called, wherever they are looked up.
inline constexpr const char* async_name = "psycache async";
inline constexpr const char* threads_name = "psycache async, 2 threads";
inline constexpr const char* contexts_name = "psycache async, 2 contexts";
inline constexpr const char* blocking_name = "psycache blocking";
inline constexpr const char* libpq_name = "libpq + JSON";
inline constexpr const char* libpq_text_name = "libpq, JSON not parsed";
inline constexpr const char* pqxx_name = "libpqxx + JSON";
inline constexpr const char* pgbench_name = "pgbench prepared";
inline constexpr const char* pgbench_pipeline_name = "pgbench, 20 in a pipeline";
inline constexpr const char* pgbench_batch_name = "pgbench, 64 keys a statement";
inline constexpr const char* python_name = "Python package's statements*";
inline constexpr const char* redis_name = "redis-benchmark";
inline constexpr const char* redis_pipeline_name = "redis-benchmark -P 16";
inline constexpr const char* redis_batch_name = "redis-benchmark MGET/MSET";
inline constexpr const char* hiredis_name = "hiredis + JSON";
inline constexpr const char* hiredis_pipeline_name = "hiredis + JSON, 1 connection";
inline constexpr const char* hiredis_batch_name = "hiredis + JSON, MGET";

inline constexpr const char* get_name = "get hit";
inline constexpr const char* get_apart_name = "get hit, on two cores";
inline constexpr const char* get_busy_name = "get hit, callers that work 20 us";
inline constexpr const char* put_name = "put";

/// One contender with one workload, and what was measured of it.
struct Case {
    std::string contender;
    std::size_t callers = 1;
    Placement placement = Placement::as_scheduled;
    std::function<std::unique_ptr<Contender>()> make;
    std::vector<std::optional<Sample>> rounds{};
    std::string skipped{};  // why, when it cannot run here
};

/// Cases that are compared with each other, and therefore run shortly after one another.
struct Group {
    Workload workload;
    /// Whether bars and the picture are taken from it; others get three rounds at most.
    bool important = false;
    std::vector<Case> cases{};
};

enum class Scale { smoke, quick, whole };

/// The value sizes that a run needs; the first is that of the most comparisons.
std::vector<std::size_t> value_sizes(Scale scale);
std::size_t key_count(Scale scale, std::size_t value_size);

std::vector<Group> matrix(Scale scale, const Arena& arena,
                          const std::map<std::size_t, std::unique_ptr<Data>>& data);

/// @returns null when that is not measured.
const Case* find_case(const std::vector<Group>& groups, const std::string& workload,
                      std::size_t value_size, const std::string& contender, std::size_t callers);
const Case* find_case(const Group& group, const std::string& contender, std::size_t callers);

}  // namespace bench
