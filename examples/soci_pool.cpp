// A cache on the sessions of a SOCI connection pool: the application's queries and its cache share
// a handful of connections. Needs the target psycache::soci.
//
// The database is that of PSYCACHE_DSN.

#include <soci/postgresql/soci-postgresql.h>
#include <soci/soci.h>

#include <boost/json/object.hpp>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

#include <psycache/psycache.hpp>
#include <psycache/soci.hpp>

namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

/// What the application computes with SOCI and would rather not compute twice.
json::object count_tables(soci::connection_pool& pool) {
    soci::session session(pool);  // leases one of the pool's sessions
    long long count = 0;
    session << "SELECT count(*) FROM pg_class WHERE relkind = 'r'", soci::into(count);
    return {{"tables", count}};
}

void share_sessions(const std::string& dsn) {
    psycache::init_db(dsn);

    constexpr std::size_t size = 2;
    soci::connection_pool pool(size);
    for (std::size_t i = 0; i < size; ++i) {
        pool.at(i).open(soci::postgresql, dsn);
        pool.at(i) << "SET client_encoding TO 'UTF8'";  // whatever the database's own encoding is
    }

    // Each call of the cache borrows a session, waiting up to two seconds for a free one.
    psycache::PostgresCache cache(std::make_shared<psycache::SociCachePool>(pool, 2s));

    const std::string key = "soci_pool:tables:" + std::to_string(std::random_device{}());
    expect(!cache.get_raw(key), "a miss at first");
    const json::object counted = count_tables(pool);
    cache.put_raw(key, counted, 1min);
    expect(cache.get_raw(key) == counted, "then a hit");
    std::cout << "a miss, then a hit, on sessions of SOCI\n";

    // The cache never works inside of a transaction that somebody left open in a session. The
    // session is refused, comes back as it was, and the transaction goes on.
    {
        std::size_t other = 0;
        expect(pool.try_lease(other, 0), "a session is free");  // out of the cache's reach
        std::size_t position = 0;
        expect(pool.try_lease(position, 0), "another one is free");
        pool.at(position).begin();
        pool.give_back(position);

        boost::system::error_code code;
        try {
            cache.remove(key);
        } catch (const psycache::Error& error) {
            code = error.code();
            std::cout << "refused, as it must be: " << error.what() << '\n';
        }
        expect(code == psycache::Errc::connection_unusable, "Errc::connection_unusable");
        pool.at(position).rollback();
        pool.give_back(other);
    }
    expect(cache.remove(key), "the next call works");

    // Every session is free again.
    for (std::size_t i = 0, position = 0; i < size; ++i) {
        expect(pool.try_lease(position, 0), "no session was kept");
    }
}

}  // namespace

int main() {
    try {
        const char* const dsn = std::getenv("PSYCACHE_DSN");
        share_sessions(dsn != nullptr ? dsn : "");
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "soci_pool: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
