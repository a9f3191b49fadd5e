// An old primary that comes back though another one was promoted: nobody has shut it off, and what
// it answers is stale.

#include <catch2/catch.hpp>
#include <thread>

#include "support/both.hpp"
#include "support/private_server.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

TEST_CASE("A pool of several hosts answers from no old primary once it has seen the new one") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PrivateServer primary;
    init_db(primary.dsn());
    const auto standby = PrivateServer::standby_of(primary);
    PoolOptions pool;
    // The old one is asked first, every time.
    pool.dsn = primary.dsn({{"host", primary.folder() + "," + standby->folder()},
                            {"port", primary.port() + "," + standby->port()},
                            {"target_session_attrs", "read-write"}});
    pool.connect_timeout = 1s * slowness;
    pool.acquire_timeout = 2s * slowness;
    pool.max_lifetime = 50ms;
    CacheOptions options;
    options.timeout = 3s * slowness;
    const auto cache = make_cache(flavour, options, pool);
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));

    primary.freeze();
    standby->promote();
    const auto stored = [&] { return !failure_of([&] { cache->put("key", numbered(2), 1h); }); };
    REQUIRE(eventually(stored));
    primary.thaw();
    REQUIRE(Psql(primary.dsn()).truth("SELECT NOT pg_is_in_recovery()"));
    const auto before =
        Psql(standby->dsn()).number("SELECT sum(numbackends) FROM pg_stat_database");
    CHECK(before > 0);
    std::size_t answers = 0;
    std::size_t stale = 0;
    const auto end = Clock::now() + 2s;
    while (Clock::now() < end) {
        std::optional<json::object> value;
        const auto failure = failure_of([&] { value = cache->get("key"); });
        if (!failure) {
            ++answers;
            stale += value == numbered(2) ? 0 : 1;
        }
    }
    CHECK(answers > 20);
    CHECK(stale == 0);

    // It stays so when the new one goes: an outage rather than a wrong answer.
    standby->stop();
    const auto refused = [&] {
        const auto failure = failure_of([&] { cache->get("key"); });
        return std::string(failure.what()).find("old primary") != std::string::npos;
    };
    CHECK(eventually(refused));
    standby->start();
    CHECK(eventually([&] { return !failure_of([&] { cache->get("key"); }); }));
}
