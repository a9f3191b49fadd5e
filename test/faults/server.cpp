// The whole server, or one of its processes, goes away, comes back or stands still under load.

#include <catch2/catch.hpp>

#include "faults/load.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A server of the test's own with the cache's table.
class LoadedServer {
  public:
    explicit LoadedServer(const std::vector<std::string>& configuration = {})
        : server(configuration) {
        init_db(server.dsn());
    }

    PrivateServer server;
};

/// What connections that break may bring.
const std::initializer_list<boost::system::error_code> broken_connections{
    Errc::connect_failed, Errc::connection_lost, Errc::outcome_unknown};

/// What a server that says nothing may bring.
const std::initializer_list<boost::system::error_code> silence{
    Errc::timed_out, Errc::connect_failed, Errc::acquire_timed_out};

}  // namespace

TEST_CASE("A server that is restarted under load fails calls only while it is away") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    LoadedServer loaded;
    Trial trial(flavour, loaded.server.dsn());
    REQUIRE(trial.load().works());

    for (int round = 0; round < 3; ++round) {
        loaded.server.restart();
        CHECK(trial.load().works());
    }

    const auto before = trial.record().failures();
    CHECK(trial.load().works());
    CHECK(trial.record().failures() == before);
    // A server that stops in good order says so, and what it refused is tried again; a write whose
    // answer was on its way may be unknown. Entries outlive it.
    trial.finish({Errc::connect_failed, Errc::outcome_unknown});
}

TEST_CASE("While the server is stopped calls fail soon, and work by themselves when it is back") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    LoadedServer loaded;
    Trial trial(flavour, loaded.server.dsn());
    REQUIRE(trial.load().works());

    loaded.server.stop();
    for (int i = 0; i < 3; ++i) {
        CHECK(trial.load().fails());
    }
    CHECK(trial.load().pool_statistics().open == 0);
    loaded.server.start();
    CHECK(trial.load().works());

    CHECK(trial.record().count(Errc::connect_failed) >= 3);
    CHECK(trial.record().slowest() < usual_timeout);
    trial.finish({Errc::connect_failed, Errc::outcome_unknown});
}

TEST_CASE("A server that is away is asked with pauses") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    Trial trial(flavour, dsn(), CacheOptions(), {{"host", "/nonexistent"}});
    const auto before = trial.load().pool_statistics().connect_failures;
    const auto began = Clock::now();
    CHECK(trial.load().fails());
    std::this_thread::sleep_for(1s);
    // The pauses grow from 50 ms, less some jitter.
    const auto most = static_cast<std::uint64_t>((Clock::now() - began) / 25ms);
    CHECK(trial.load().pool_statistics().connect_failures - before <= most);
    trial.finish({Errc::connect_failed});
}

TEST_CASE("After a crash of the whole server entries are misses and nothing fails any more") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    LoadedServer loaded;
    PoolOptions pool;
    pool.dsn = loaded.server.dsn();
    const auto bystander = make_cache(flavour, CacheOptions(), pool);
    bystander->put("kept", numbered(1), no_expiry);
    Trial trial(flavour, loaded.server.dsn());
    REQUIRE(trial.load().works());

    trial.load().entries(Entries::vanish);
    loaded.server.crash();
    CHECK(trial.load().fails());
    CHECK(failure_of([&] { bystander->get("kept"); }).code() == Errc::connect_failed);
    loaded.server.start();
    CHECK(trial.load().works());
    trial.load().entries(Entries::stay);

    const auto before = trial.record().failures();
    CHECK(trial.load().works());
    CHECK(trial.record().failures() == before);
    CHECK(eventually([&] { return !failure_of([&] { bystander->get("kept"); }); }));
    CHECK(bystander->get("kept") == std::nullopt);
    trial.finish(broken_connections);
}

TEST_CASE("A backend that is killed makes the server start anew, and calls work by themselves") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    LoadedServer loaded;
    Trial trial(flavour, loaded.server.dsn());
    REQUIRE(trial.load().works());

    trial.load().entries(Entries::vanish);
    {
        // A stranger's: the server ends the sessions of all others with 57P02.
        Psql victim(loaded.server.dsn());
        ::kill(static_cast<pid_t>(victim.number("SELECT pg_backend_pid()")), SIGKILL);
        CHECK_THROWS_AS(victim.exec("SELECT pg_sleep(60)"), SqlError);
    }
    // The victim's client knows of it before the server does.
    CHECK(eventually([&] {
        return loaded.server.log().find("all server processes terminated") != std::string::npos;
    }));
    CHECK(trial.load().works());
    trial.load().entries(Entries::stay);

    const auto before = trial.record().failures();
    CHECK(trial.load().works());
    CHECK(trial.record().failures() == before);
    CHECK(trial.load().pool_statistics().lost >= 1);
    CHECK(loaded.server.log().find("terminated by signal 9") != std::string::npos);
    trial.finish(broken_connections);
}

TEST_CASE("Backends that are terminated under load are hardly noticed by the callers") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    Trial trial(flavour, dsn(), schema.cache_options());
    REQUIRE(trial.load().works());

    for (int round = 0; round < 20; ++round) {
        CHECK(trial.terminate() >= 1);
        CHECK(trial.load().works());
    }

    CHECK(trial.load().statistics().retries >= 1);
    trial.finish({Errc::outcome_unknown});
}

namespace {

/// @returns whether a new client of the server gets an answer.
bool serves(const PrivateServer& server) {
    try {
        Psql client(
            server.dsn({{"connect_timeout", "2"}, {"options", "-cstatement_timeout=1000"}}));
        client.exec("CREATE TABLE IF NOT EXISTS served (n int); INSERT INTO served VALUES (1)");
        return true;
    } catch (const SqlError&) {
        return false;
    }
}

}  // namespace

TEST_CASE("A backend that hangs fails its own calls at their deadline and nobody else's") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    LoadedServer loaded;
    CacheOptions options;
    options.timeout = 3s * slowness;
    Trial trial(flavour, loaded.server.dsn(), options);
    REQUIRE(trial.load().works());

    // While it is idle, since it could hold something that all others need while it works. Even
    // then it may just be reporting its statistics: a server that serves nobody is another test's.
    // The backend that was used last is lent first.
    REQUIRE(trial.load().hold());
    const auto newest = [&] {
        return static_cast<pid_t>(
            trial.sql().number("SELECT pid FROM pg_stat_activity WHERE application_name = '" +
                               trial.name() + "' ORDER BY state_change DESC LIMIT 1"));
    };
    pid_t backend = newest();
    PrivateServer::freeze(backend);
    for (int i = 0; i < 10 && !serves(loaded.server); ++i) {
        PrivateServer::thaw(backend);
        backend = newest();
        PrivateServer::freeze(backend);
    }
    trial.load().go_on();
    CHECK(trial.load().fails());
    CHECK(trial.load().works());
    const auto failures = trial.record().failures();
    CHECK(trial.load().works());
    CHECK(trial.record().failures() == failures);
    PrivateServer::thaw(backend);

    INFO(trial.record().unexpected({}));
    // At most all those that shared a statement.
    CHECK(failures <= (flavour == Flavour::async ? 64 : 1));
    trial.finish({Errc::timed_out});
}

TEST_CASE("While the whole server hangs calls fail at their deadline, and work when it goes on") {
    if (!PrivateServer::available()) {
        return;
    }
    enum class Moment { busy, idle, connecting };
    const auto flavour = OWN_CONNECTIONS();
    const auto moment = GENERATE(Moment::busy, Moment::idle, Moment::connecting);
    CAPTURE(flavour, static_cast<int>(moment));
    LoadedServer loaded;
    CacheOptions options;
    options.timeout = 1s * slowness;
    std::optional<Trial> trial;
    if (moment == Moment::connecting) {
        loaded.server.freeze();
        trial.emplace(flavour, loaded.server.dsn(), options);
    } else {
        trial.emplace(flavour, loaded.server.dsn(), options);
        REQUIRE(trial->load().works());
        REQUIRE((moment == Moment::busy || trial->load().hold()));
        loaded.server.freeze();
        trial->load().go_on();
    }

    CHECK(trial->load().fails());
    CHECK(trial->load().fails());
    loaded.server.thaw();
    CHECK(trial->load().works());

    trial->finish(silence);
}

TEST_CASE("Flush and cleanup ask the server while a circuit is open") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PrivateServer server;
    init_db(server.dsn());
    CacheOptions options;
    options.on_outage = OnOutage::miss;
    PoolOptions pool;
    pool.dsn = server.dsn();
    const auto cache = make_cache(flavour, options, pool);
    cache->put("key", numbered(1), no_expiry);
    server.stop();
    const auto opens = [&] {
        CHECK(cache->get("key") == std::nullopt);
        return cache->statistics().circuit_open;
    };
    REQUIRE(eventually(opens));
    // They are for people who want to know: they say that there is no server.
    CHECK(failure_of([&] { cache->flush(); }).code() == Condition::unavailable);

    server.start();
    Psql(server.dsn()).exec("INSERT INTO psycache VALUES ('other', '{}', now() - interval '1 s')");
    CHECK(cache->statistics().circuit_open);
    CHECK(cache->cleanup() == 1);
    CHECK(cache->flush() <= 1);  // the table is UNLOGGED
    CHECK(cache->statistics().circuit_open);
    const auto closes = [&] {
        cache->get("key");
        return !cache->statistics().circuit_open;
    };
    CHECK(eventually(closes));
}
