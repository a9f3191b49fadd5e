#include "cli/entries.hpp"

#include <utility>

#include <psycache/postgres_cache.hpp>

#include "cli/outcome.hpp"

namespace psycache::cli {

int clear(const Place& place) {
    return run("clear", [&] {
        PoolOptions pool;
        pool.dsn = place.dsn;
        pool.max_size = 1;
        CacheOptions options;
        options.schema = place.schema;
        PostgresCache(std::move(pool), std::move(options)).clear();
        return print("clear", "psycache: cleared the cache table.\n");
    });
}

}  // namespace psycache::cli
