// Whatever becomes of the connection that listens, memory serves nothing that is too old.

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/both.hpp"
#include "support/gate.hpp"
#include "support/pgbouncer.hpp"
#include "support/private_server.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

constexpr Duration max_staleness = 400ms * slowness;

/// Writes growing numbers to a few keys by plain SQL, and knows what each of them must be.
class Writer {
  public:
    static constexpr int keys = 4;

    /// @param where      how to connect, which is done anew after each failure.
    explicit Writer(std::string where, std::string table)
        : where_(std::move(where)), table_(std::move(table)), thread_([this] { run(); }) {}
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;
    ~Writer() {
        over_ = true;
        thread_.join();
    }

    static std::string key(int number) { return "key " + std::to_string(number); }

    /// @returns the number that a value must have at least if it may be too old by so much.
    int least(int number, Clock::time_point since) {
        const std::lock_guard lock(mutex_);
        const auto& written = written_[static_cast<std::size_t>(number)];
        const auto after = std::partition_point(
            written.begin(), written.end(), [&](const auto& one) { return one.second <= since; });
        return after == written.begin() ? 0 : std::prev(after)->first;
    }
    int writes() const { return writes_; }

    /// Which server it is, by number; odd while one takes the place of another.
    int server() const { return server_; }
    /// What was written counts no more: the server takes the place of another, or is about to.
    void forget() {
        const std::lock_guard lock(mutex_);
        ++server_;
        for (auto& written : written_) {
            written.clear();
        }
    }
    void go_elsewhere(std::string where) {
        const std::lock_guard lock(mutex_);
        where_ = std::move(where);
        elsewhere_ = true;
    }

  private:
    void run() {
        std::unique_ptr<Psql> sql;
        std::minstd_rand random(1);
        for (int number = 1; !over_; ++number) {
            const auto which = random() % keys;
            try {
                {
                    const std::lock_guard lock(mutex_);
                    if (!sql || elsewhere_) {
                        elsewhere_ = false;
                        sql = nullptr;
                        sql = std::make_unique<Psql>(where_);
                    }
                }
                sql->exec("INSERT INTO " + table_ + " VALUES (" +
                          quote_literal(key(static_cast<int>(which))) +
                          ", '{\"n\": " + std::to_string(number) +
                          "}', now() + interval '1 hour') ON CONFLICT (key) DO UPDATE SET value = "
                          "excluded.value, expires_at = excluded.expires_at");
                const std::lock_guard lock(mutex_);
                if (elsewhere_) {
                    continue;  // it was stored where nobody looks any more
                }
                written_[which].emplace_back(number, Clock::now());
                ++writes_;
            } catch (const std::exception&) {
                sql = nullptr;
            }
            std::this_thread::sleep_for(10ms);
        }
    }

    std::mutex mutex_;
    std::string where_;
    bool elsewhere_ = false;
    const std::string table_;
    std::array<std::vector<std::pair<int, Clock::time_point>>, keys> written_;
    std::atomic<int> writes_{0};
    std::atomic<int> server_{0};
    std::atomic<bool> over_{false};
    std::thread thread_;
};

/// Threads that read from memory, or from the table, and check what they get.
class Readers {
  public:
    Readers(PostgresCache& cache, Writer& writer) : cache_(cache), writer_(writer) {
        for (unsigned i = 0; i < 3; ++i) {
            threads_.emplace_back([this, i] { run(i); });
        }
    }
    Readers(const Readers&) = delete;
    Readers& operator=(const Readers&) = delete;
    ~Readers() { end(); }

    void end() {
        over_ = true;
        for (auto& thread : threads_) {
            if (thread.joinable()) {
                thread.join();
            }
        }
    }
    /// Waits for hits that are still to come. @returns whether they came.
    bool hit_again() {
        const std::uint64_t before = hits;
        return eventually([&] { return hits > before + 20; });
    }

    std::atomic<std::uint64_t> hits{0};
    std::atomic<std::uint64_t> own{0};
    Journal wrong;

  private:
    void check(const char* how, const json::object& value, int key, Clock::time_point began) {
        const int least = writer_.least(key, began - max_staleness);
        const auto number = value.at("n").as_int64();
        if (number < least) {
            wrong.write(std::string(how) + ": " + std::to_string(number) + " though " +
                        std::to_string(least) + " was written long before");
        }
    }
    void run(unsigned seed) {
        std::minstd_rand random(seed);
        const std::string mine = "mine " + std::to_string(seed);
        for (std::int64_t number = 1; !over_; ++number) {
            const int key = static_cast<int>(random() % Writer::keys);
            auto began = Clock::now();
            if (const auto value = cache_.peek(Writer::key(key))) {
                ++hits;
                check("peek", *value, key, began);
            }
            began = Clock::now();
            try {
                if (const auto value = cache_.get_shared(Writer::key(key))) {
                    check("get_shared", *value, key, began);
                }
                if (number % 50 == 0) {
                    // A primary that is given up takes with it what no standby has heard of yet.
                    const int server = writer_.server();
                    cache_.put_raw(mine, numbered(number), 1h);
                    for (int look = 0; look < 3; ++look) {
                        const auto value = cache_.get_shared(mine);
                        if (value && *value != numbered(number) && server % 2 == 0 &&
                            server == writer_.server()) {
                            wrong.write("not what this process has written");
                        }
                        own += value ? 1 : 0;
                    }
                }
            } catch (const Error&) {
                std::this_thread::sleep_for(1ms);
            }
            if (number % 16 == 0) {
                std::this_thread::sleep_for(1ms);  // leaves the processor to the writer
            }
        }
    }

    PostgresCache& cache_;
    Writer& writer_;
    std::atomic<bool> over_{false};
    std::vector<std::thread> threads_;
};

CacheOptions near_options() {
    CacheOptions options;
    options.timeout = 3s * slowness;
    options.near_cache.emplace();
    options.near_cache->max_staleness = max_staleness;
    options.log = [](LogLevel, std::string_view) {};
    return options;
}

TableOptions with_triggers() {
    TableOptions options;
    options.notify = true;
    return options;
}

/// Long enough for what is too old to show.
void wait_twice() {
    std::this_thread::sleep_for(2 * max_staleness);
}

}  // namespace

TEST_CASE("Memory serves nothing too old while sessions end, stand still, or are cut off") {
    if (!PrivateServer::available()) {
        return;
    }
    PrivateServer server;
    const auto make_database = [&] { Psql(server.dsn()).exec("CREATE DATABASE cache"); };
    make_database();
    const std::string database = server.dsn({{"dbname", "cache"}});
    init_db(database, with_triggers());
    Gate gate(server.port());
    gate.switch_on();
    PoolOptions pool;
    pool.dsn = server.tcp_dsn({{"port", gate.port()},
                               {"dbname", "cache"},
                               {"application_name", "near"},
                               {"sslmode", "disable"},
                               {"gssencmode", "disable"}});
    pool.connect_timeout = 1s * slowness;
    pool.acquire_timeout = 2s * slowness;
    PostgresCache cache(pool, near_options());
    Writer writer(database, "psycache");
    Readers readers(cache, writer);
    CHECK(readers.hit_again());

    const std::string sessions = " FROM pg_stat_activity WHERE application_name = 'near'";
    const std::vector<std::pair<std::string, std::function<void()>>> faults = {
        {"the listener's session is ended",
         [&] {
             Psql(server.dsn())
                 .exec("SELECT pg_terminate_backend(pid)" + sessions +
                       " AND query LIKE '%pg_notify%'");
         }},
        {"all sessions are ended",
         [&] { Psql(server.dsn()).exec("SELECT pg_terminate_backend(pid)" + sessions); }},
        {"the listener's session stands still",
         [&] {
             const auto rows =
                 Psql(server.dsn()).exec("SELECT pid" + sessions + " AND query LIKE '%pg_notify%'");
             for (const auto& row : rows) {
                 PrivateServer::freeze(std::stoi(row[0]));
             }
             wait_twice();
             for (const auto& row : rows) {
                 PrivateServer::thaw(std::stoi(row[0]));
             }
         }},
        {"nothing passes any more",
         [&] {
             gate.break_all(Gate::Cut::silent);
             wait_twice();
         }},
        {"the network is reset", [&] { gate.break_all(Gate::Cut::reset); }},
        {"the server is restarted", [&] { server.restart(); }},
        {"the triggers are gone for a while",
         [&] {
             Psql sql(database);
             sql.exec("DROP TRIGGER psycache_notify_update ON psycache");
             wait_twice();
             init_db(database, with_triggers());
         }},
        {"the table is made anew",
         [&] {
             writer.forget();
             Psql(database).exec("DROP TABLE psycache");
             init_db(database, with_triggers());
             writer.forget();
         }},
        {"the database is dropped and made anew",
         [&] {
             writer.forget();
             Psql(server.dsn()).exec("DROP DATABASE cache WITH (FORCE)");
             make_database();
             init_db(database, with_triggers());
             writer.forget();
         }},
    };
    for (const auto& [name, fault] : faults) {
        CAPTURE(name);
        fault();
        wait_twice();
        CHECK(readers.hit_again());
        CHECK(readers.wrong.lines() == std::vector<std::string>{});
        if (!readers.wrong.lines().empty()) {
            break;
        }
    }
    readers.end();
    CHECK(readers.own > 0);
    CHECK(writer.writes() > 20);
}

TEST_CASE("After a failover memory hears of the new primary, not of the old one") {
    if (!PrivateServer::available()) {
        return;
    }
    PrivateServer primary;
    init_db(primary.dsn(), [] {
        TableOptions logged = with_triggers();
        logged.unlogged = false;
        return logged;
    }());
    const auto standby = PrivateServer::standby_of(primary);
    PoolOptions pool;
    pool.dsn = primary.dsn({{"host", primary.folder() + "," + standby->folder()},
                            {"port", primary.port() + "," + standby->port()},
                            {"target_session_attrs", "read-write"}});
    pool.connect_timeout = 1s * slowness;
    pool.acquire_timeout = 2s * slowness;
    pool.max_lifetime = 50ms;
    PostgresCache cache(pool, near_options());
    Writer writer(primary.dsn(), "psycache");
    Readers readers(cache, writer);
    CHECK(readers.hit_again());

    writer.forget();
    primary.freeze();
    standby->promote();
    writer.go_elsewhere(standby->dsn());
    writer.forget();
    CHECK(eventually([&] { return !failure_of([&] { cache.put_raw("x", numbered(1), 1h); }); }));
    // It is back, and does not know: what is said there is not to be believed.
    primary.thaw();
    const int before = writer.writes();
    CHECK(eventually([&] { return writer.writes() > before + 10; }));
    wait_twice();
    CHECK(readers.hit_again());
    CHECK(readers.wrong.lines() == std::vector<std::string>{});
}

TEST_CASE("A pooler that does not keep sessions is found out, and nothing is served") {
    const auto mode = GENERATE(std::string("transaction"), std::string("session"));
    if (!PgBouncer::installed()) {
        return;
    }
    TestSchema schema(Table::notifying);
    PgBouncer pooler({{"pool_mode", mode}, {"default_pool_size", "4"}});
    auto options = near_options();
    options.schema = schema.name();
    LogCapture log;
    options.log = log.sink();
    PoolOptions pool;
    pool.dsn = pooler.dsn();
    PostgresCache cache(pool, options);
    cache.put_raw("key", numbered(1), 1h);
    CHECK(*cache.get_shared("key") == numbered(1));
    if (mode == "session") {
        CHECK(eventually([&] {
            cache.get_shared("key");
            return cache.peek("key") != nullptr;
        }));
    } else {
        CHECK(eventually([&] { return log.journal().contains("pooler"); }));
        CHECK(*cache.get_shared("key") == numbered(1));
        CHECK(cache.peek("key") == nullptr);
    }
}
