// Entries kept in memory: who is answered from there, who changes what, and when nothing is.

#include <atomic>
#include <boost/describe.hpp>
#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

using Shared = std::shared_ptr<const json::object>;

CacheOptions near_options(const TestSchema& schema,
                          Invalidation invalidation = Invalidation::listen) {
    CacheOptions options = schema.cache_options();
    options.near_cache.emplace();
    options.near_cache->invalidation = invalidation;
    options.near_cache->max_staleness = 2s * slowness;
    return options;
}

/// A number that counts how often it was made of JSON.
struct Counted {
    std::int64_t n = 0;
    static inline std::atomic<int> made{0};

    friend Counted tag_invoke(const json::value_to_tag<Counted>& /*tag*/, const json::value& from) {
        ++made;
        return Counted{from.at("n").as_int64()};
    }
};
struct Page {
    std::int64_t n = 0;
};
BOOST_DESCRIBE_STRUCT(Page, (), (n))

/// Both kinds of cache, for what differs by type.
class Pair {
  public:
    explicit Pair(const CacheOptions& options)
        : async_(context_.get_executor(), server_pool(), options),
          blocking_(server_pool(), options) {}

    template <class T>
    std::shared_ptr<const T> get_shared(bool blocking, const std::string& key) {
        return blocking ? blocking_.get_shared<T>(key)
                        : run_coro(context_, async_.get_shared<T>(key));
    }
    template <class T>
    std::shared_ptr<const T> peek(bool blocking, const std::string& key) const {
        return blocking ? blocking_.peek<T>(key) : async_.peek<T>(key);
    }
    CacheStatistics statistics(bool blocking) const {
        return blocking ? blocking_.statistics() : async_.statistics();
    }

  private:
    asio::io_context context_;
    AsyncPostgresCache async_;
    PostgresCache blocking_;
};

/// A cache in memory that hears of changes all the time, called by the test's thread.
class NearUser {
  public:
    NearUser() = default;
    NearUser(const NearUser&) = delete;
    NearUser& operator=(const NearUser&) = delete;
    virtual ~NearUser() = default;

    virtual Shared get_shared(const std::string& key) = 0;
    virtual Shared peek(const std::string& key) = 0;
    virtual void put(const std::string& key, const json::object& value, Duration ttl) = 0;
    virtual int get_or_create(const std::string& key, const CreateOptions& options, int value) = 0;
    virtual CacheStatistics statistics() = 0;
    virtual PoolStatistics pool_statistics() = 0;
    virtual bool drain() = 0;
    virtual void warm_up() = 0;

    bool listens() { return statistics().near_cache->listening; }
    /// Gets the key until it is in memory. @returns whether that was in time.
    bool keeps(const std::string& key) {
        return eventually([&] {
            const Shared value = get_shared(key);
            return value != nullptr && peek(key) == value;
        });
    }
    bool forgets(const std::string& key) {
        return eventually([&] { return peek(key) == nullptr; });
    }
};

class AsyncNearUser final : public NearUser {
  public:
    AsyncNearUser(PoolOptions pool, CacheOptions options)
        : threads_(2),
          cache_(threads_.context().get_executor(), std::move(pool), std::move(options)) {}

    Shared get_shared(const std::string& key) override {
        return threads_.run(cache_.get_shared(key));
    }
    Shared peek(const std::string& key) override { return cache_.peek(key); }
    void put(const std::string& key, const json::object& value, Duration ttl) override {
        threads_.run(cache_.put_raw(key, value, ttl));
    }
    int get_or_create(const std::string& key, const CreateOptions& options, int value) override {
        const auto load = [value]() -> asio::awaitable<int> { co_return value; };
        return threads_.run(cache_.get_or_create<int>(key, options, load));
    }
    CacheStatistics statistics() override { return cache_.statistics(); }
    PoolStatistics pool_statistics() override { return *cache_.pool_statistics(); }
    bool drain() override { return threads_.run(cache_.drain(10s)); }
    void warm_up() override { threads_.run(cache_.warm_up()); }

  private:
    Threads threads_;
    AsyncPostgresCache cache_;
};

class BlockingNearUser final : public NearUser {
  public:
    BlockingNearUser(PoolOptions pool, CacheOptions options)
        : cache_(std::move(pool), std::move(options)) {}

    Shared get_shared(const std::string& key) override { return cache_.get_shared(key); }
    Shared peek(const std::string& key) override { return cache_.peek(key); }
    void put(const std::string& key, const json::object& value, Duration ttl) override {
        cache_.put_raw(key, value, ttl);
    }
    int get_or_create(const std::string& key, const CreateOptions& options, int value) override {
        return cache_.get_or_create<int>(key, options, [value] { return value; });
    }
    CacheStatistics statistics() override { return cache_.statistics(); }
    PoolStatistics pool_statistics() override { return *cache_.pool_statistics(); }
    bool drain() override { return cache_.drain(10s); }
    void warm_up() override { cache_.warm_up(); }

  private:
    PostgresCache cache_;
};

std::unique_ptr<NearUser> make_user(bool blocking, PoolOptions pool, CacheOptions options) {
    if (blocking) {
        return std::make_unique<BlockingNearUser>(std::move(pool), std::move(options));
    }
    return std::make_unique<AsyncNearUser>(std::move(pool), std::move(options));
}

}  // namespace

TEST_CASE("What is shared is asked of the server where there is no near cache") {
    const auto flavour = EVERY_FLAVOUR();
    TestSchema schema;
    schema.insert("number", "1");
    const auto cache = make_cache(flavour, schema);
    CHECK(cache->get_shared("key") == nullptr);
    cache->put("key", numbered(1), 1h);
    const Shared value = cache->get_shared("key");
    REQUIRE(value != nullptr);
    CHECK(*value == numbered(1));
    CHECK(cache->peek("key") == nullptr);
    CHECK(failure_of([&] { cache->get_shared("number"); }).code() == Errc::unreadable_value);
    CHECK(failure_of([&] { cache->get_shared(std::string("a\0b", 3)); }).code() ==
          Errc::invalid_key);
    CHECK_FALSE(cache->statistics().near_cache.has_value());
}

TEST_CASE("Without a listener an entry is served from memory for max_age") {
    const auto flavour = EVERY_FLAVOUR();
    TestSchema schema;
    auto options = near_options(schema, Invalidation::none);
    options.near_cache->max_age = 500ms * slowness;
    const auto cache = make_cache(flavour, options, server_pool());
    schema.insert("key", "{\"n\": 1}");
    const Shared first = cache->get_shared("key");
    const auto since = Clock::now();
    const Shared second = cache->get_shared("key");
    const Shared third = cache->peek("key");
    // A machine that stands still for so long has the answer from the server.
    if (Clock::now() - since < options.near_cache->max_age / 2) {
        CHECK(first == second);
        CHECK(first == third);
        CHECK(cache->statistics().near_cache->hits == 2);
    }
    schema.sql().exec("UPDATE " + schema.table() + " SET value = '{\"n\": 2}'");
    CHECK(eventually([&] { return *cache->get_shared("key") == numbered(2); }));
    CHECK(Clock::now() - since > options.near_cache->max_age / 2);
    CHECK(*first == numbered(1));
    const auto numbers = *cache->statistics().near_cache;
    CHECK(numbers.misses >= 2);
    CHECK(numbers.entries == 1);
    CHECK(numbers.bytes > 0);
    CHECK_FALSE(numbers.listening);
}

TEST_CASE("An object of the caller's type is made once and shared") {
    const bool blocking = GENERATE(false, true);
    TestSchema schema;
    schema.insert("key", "{\"n\": 1}");
    schema.insert("list", "[1, 2]");
    auto options = near_options(schema, Invalidation::none);
    options.near_cache->max_age = 1h;
    Pair caches(options);
    Counted::made = 0;
    CHECK(caches.peek<Counted>(blocking, "key") == nullptr);
    const auto first = caches.get_shared<Counted>(blocking, "key");
    REQUIRE(first != nullptr);
    CHECK(first->n == 1);
    CHECK(caches.get_shared<Counted>(blocking, "key") == first);
    CHECK(caches.peek<Counted>(blocking, "key") == first);
    CHECK(Counted::made == 1);
    CHECK(caches.get_shared<Counted>(blocking, "nothing") == nullptr);

    // The value is there too, and one of another type takes the object's place.
    CHECK(*caches.get_shared<json::object>(blocking, "key") == numbered(1));
    CHECK(*caches.get_shared<json::value>(blocking, "key") == numbered(1));
    CHECK(caches.peek<json::object>(blocking, "key") != nullptr);
    CHECK(*caches.peek<json::value>(blocking, "key") == numbered(1));
    CHECK(caches.peek<Counted>(blocking, "key") == first);
    CHECK(caches.get_shared<Page>(blocking, "key")->n == 1);
    CHECK(caches.peek<Counted>(blocking, "key") == nullptr);
    CHECK(caches.get_shared<Counted>(blocking, "key") != first);
    CHECK(Counted::made == 2);
    CHECK(caches.statistics(blocking).statements == 2);

    // What was kept for one type is of no use to another that does not fit.
    CHECK(*caches.get_shared<std::vector<int>>(blocking, "list") == std::vector<int>{1, 2});
    const auto no_page = failure_of([&] { caches.get_shared<Page>(blocking, "list"); });
    CHECK(no_page.code() == Errc::unreadable_value);
    CHECK_THAT(no_page.what(), Catch::Contains("get_shared") && Catch::Contains("no object"));
    CHECK(caches.statistics(blocking).errors == 1);
    CHECK(caches.peek<std::vector<int>>(blocking, "list") != nullptr);
    CHECK(caches.statistics(blocking).statements == 3);
    // Nor is it where the table has to be asked.
    schema.insert("text", "\"x\"");
    const auto no_number = failure_of([&] { caches.get_shared<int>(blocking, "text"); });
    CHECK(no_number.code() == Errc::unreadable_value);
    CHECK(*caches.get_shared<std::string>(blocking, "text") == "x");
}

TEST_CASE("An object of the caller's type goes with its value") {
    TestSchema schema(Table::notifying);
    schema.insert("key", "{\"n\": 1}");
    PostgresCache cache(server_pool(), near_options(schema));
    const auto keeps = [&](std::int64_t n) {
        return eventually([&] {
            const auto shared = cache.get_shared<Page>("key");
            return shared->n == n && cache.peek<Page>("key") == shared;
        });
    };
    CHECK(keeps(1));
    const auto old = cache.peek<Page>("key");
    cache.put_raw("key", numbered(2), 1h);
    CHECK(cache.peek<Page>("key") == nullptr);
    CHECK(cache.get_shared<Page>("key")->n == 2);
    CHECK(keeps(2));
    schema.sql().exec("UPDATE " + schema.table() + " SET value = '{\"n\": 3}'");
    CHECK(keeps(3));
    CHECK((old == nullptr || old->n == 1));
}

TEST_CASE("What a cache writes is never served from its memory as it was before") {
    const auto flavour = EVERY_FLAVOUR();
    using Write = std::function<void(AnyCache&)>;
    const std::vector<std::pair<std::string, Write>> writes = {
        {"put", [](AnyCache& cache) { cache.put("key", numbered(2), 1h); }},
        {"put_text", [](AnyCache& cache) { cache.put_text("key", "{\"n\": 2}", 1h); }},
        {"put_many", [](AnyCache& cache) { cache.put_many({Entry("key", numbered(2), 1h)}); }},
        {"remove", [](AnyCache& cache) { cache.remove("key"); }},
        {"remove_many",
         [](AnyCache& cache) {
             cache.remove_many({"other", "key"});
         }},
        {"touch", [](AnyCache& cache) { cache.touch("key", 0s); }},
        {"touch_many", [](AnyCache& cache) { cache.touch_many({"key"}, 0s); }},
        {"replace", [](AnyCache& cache) { cache.replace("key", numbered(2), 1h); }},
        {"compare_and_put",
         [](AnyCache& cache) { cache.compare_and_put("key", numbered(1), numbered(2), 1h); }},
        {"take", [](AnyCache& cache) { cache.take("key"); }},
        {"take_many", [](AnyCache& cache) { cache.take_many({"key"}); }},
        {"get_and_touch", [](AnyCache& cache) { cache.get_and_touch("key", 0s); }},
        {"merge", [](AnyCache& cache) { cache.merge("key", numbered(2)); }},
        {"replace_many",
         [](AnyCache& cache) {
             cache.replace_many({{"key", numbered(2)}}, 1h);
         }},
        {"remove_prefix", [](AnyCache& cache) { cache.remove_prefix("k"); }},
        {"remove_tag", [](AnyCache& cache) { cache.remove_tag("tag"); }},
        {"clear", [](AnyCache& cache) { cache.clear(); }},
        {"flush", [](AnyCache& cache) { cache.flush(); }},
    };
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(flavour, near_options(schema, Invalidation::none), server_pool());
    PutOptions tagged;
    tagged.tags.emplace_back("tag");
    for (const auto& [name, write] : writes) {
        CAPTURE(name);
        cache->put_with("key", numbered(1), 1h, tagged);
        CHECK(*cache->get_shared("key") == numbered(1));
        CHECK(cache->peek("key") != nullptr);
        write(*cache);
        CHECK(cache->peek("key") == nullptr);
        const auto stored = cache->get("key");
        const Shared shared = cache->get_shared("key");
        CHECK((shared ? std::optional(*shared) : std::nullopt) == stored);
        CHECK(stored != numbered(1));
    }
}

TEST_CASE("What others change is heard of, whoever they are") {
    const bool blocking = GENERATE(false, true);
    TestSchema schema(Table::notifying);
    const auto cache = make_user(blocking, server_pool(), near_options(schema));
    PostgresCache other(server_pool(), schema.cache_options());
    const std::string key = "'key'";
    const std::vector<std::pair<std::string, std::function<void()>>> changes = {
        {"another cache puts", [&] { other.put_raw("key", numbered(2), 1h); }},
        {"another cache removes", [&] { other.remove("key"); }},
        {"another cache touches", [&] { other.touch("key", 1min); }},
        {"another cache removes a prefix", [&] { other.remove_prefix("k"); }},
        {"another cache removes a tag", [&] { other.remove_tag("tag"); }},
        {"another cache is cleared", [&] { other.clear(); }},
        {"another cache is flushed", [&] { other.flush(); }},
        {"SQL updates",
         [&] { schema.sql().exec("UPDATE " + schema.table() + " SET value = '{\"n\": 3}'"); }},
        {"SQL as Python sends it",
         [&] {
             schema.sql().exec("INSERT INTO " + schema.table() +
                               " (key, value, expires_at) VALUES ('key', '{\"n\": 4}', now() + "
                               "interval '1 hour') ON CONFLICT (key) DO UPDATE SET value = "
                               "EXCLUDED.value, expires_at = EXCLUDED.expires_at");
         }},
        {"SQL deletes", [&] { schema.sql().exec("DELETE FROM " + schema.table()); }},
        {"SQL changes the key",
         [&] { schema.sql().exec("UPDATE " + schema.table() + " SET key = 'another'"); }},
        {"SQL deletes hundreds",
         [&] {
             schema.insert_many("many", 1000, "now() + interval '1 hour'");
             schema.sql().exec("DELETE FROM " + schema.table());
         }},
        {"SQL truncates", [&] { schema.sql().exec("TRUNCATE " + schema.table()); }},
    };
    PutOptions tagged;
    tagged.tags.emplace_back("tag");
    for (const auto& [name, change] : changes) {
        CAPTURE(name);
        other.put_raw("key", numbered(1), 1h, tagged);
        CHECK(cache->keeps("key"));
        change();
        CHECK(cache->forgets("key"));
        const auto stored = other.get_raw("key");
        const Shared shared = cache->get_shared("key");
        CHECK((shared ? std::optional(*shared) : std::nullopt) == stored);
        other.clear();
    }
    CHECK(cache->statistics().near_cache->invalidations >= 8);
    CHECK(cache->statistics().near_cache->lag > 0s);
    CHECK(cache->pool_statistics().listening == 1);
}

TEST_CASE("What is in memory costs no statement, and outlives neither its row nor an outage") {
    const bool blocking = GENERATE(false, true);
    TestSchema schema(Table::notifying);
    const auto cache = make_user(blocking, server_pool(), near_options(schema));
    cache->put("key", numbered(1), 1h);
    CHECK(cache->keeps("key"));
    const auto before = cache->statistics();
    std::uint64_t hits = 0;
    for (int i = 0; i < 1000; ++i) {
        const Shared value = cache->get_shared("key");
        CHECK((value != nullptr && *value == numbered(1)));
        hits += cache->peek("key") == value ? 1 : 0;
    }
    const auto after = cache->statistics();
    // None but for what a machine that stands still has made too old.
    CHECK(after.statements - before.statements < 10);
    CHECK(after.near_cache->hits - before.near_cache->hits > 1900);
    CHECK(hits > 990);

    cache->put("short", numbered(2), 300ms);
    cache->get_shared("short");
    CHECK(cache->forgets("short"));
    CHECK(schema.expires_in("short") < 0.3);
    // Memory counts from before the statement was sent: it forgets a moment before the server does.
    CHECK(eventually([&] { return cache->get_shared("short") == nullptr; }, 1s));
}

TEST_CASE("A cache that is warmed up listens before its first call") {
    TestSchema schema(Table::notifying);
    const auto user = make_user(GENERATE(false, true), server_pool(), near_options(schema));
    user->warm_up();
    CHECK(eventually([&] { return user->listens(); }));
    CHECK(user->statistics().statements == 0);
}

TEST_CASE("When the listener is lost nothing is served before changes are heard of again") {
    const bool blocking = GENERATE(false, true);
    TestSchema schema(Table::notifying);
    NamedPool named;
    auto options = near_options(schema);
    LogCapture log;
    options.log = log.sink();
    const auto cache = make_user(blocking, named.options, options);
    for (int round = 0; round < 3; ++round) {
        cache->put("key", numbered(2 * round), 1h);
        CHECK(cache->keeps("key"));
        schema.sql().terminate(named.name);
        schema.sql().exec("UPDATE " + schema.table() +
                          " SET value = '{\"n\": " + std::to_string(2 * round + 1) + "}'");
        CHECK(cache->forgets("key"));
        CHECK(*cache->get_shared("key") == numbered(2 * round + 1));
        CHECK(cache->keeps("key"));
    }
    CHECK(eventually([&] { return cache->listens(); }));
    CHECK(log.journal().contains("near cache"));
}

TEST_CASE("Where nothing tells of changes nothing is kept, or as long as one has allowed") {
    const bool blocking = GENERATE(false, true);
    const bool fallback = GENERATE(false, true);
    TestSchema schema;
    schema.insert("key", "{\"n\": 1}");
    auto options = near_options(schema);
    LogCapture log;
    options.log = log.sink();
    options.near_cache->fallback_max_age = fallback ? Duration(1h) : Duration(0);
    const auto cache = make_user(blocking, server_pool(), options);
    CHECK(*cache->get_shared("key") == numbered(1));
    CHECK(eventually([&] { return log.journal().contains("init_db"); }));
    if (fallback) {
        CHECK(cache->keeps("key"));
    } else {
        CHECK(*cache->get_shared("key") == numbered(1));
        CHECK(cache->peek("key") == nullptr);
    }
    CHECK_FALSE(cache->listens());

    // The triggers are made while the cache is in use.
    auto table = schema.table_options();
    table.notify = true;
    init_db(dsn(), table);
    CHECK(eventually([&] { return cache->get_shared("key") && cache->listens(); }));
    CHECK(cache->keeps("key"));
    schema.sql().exec("UPDATE " + schema.table() + " SET value = '{\"n\": 2}'");
    CHECK(cache->forgets("key"));

    // And they go away again.
    schema.sql().exec("DROP TRIGGER psycache_notify_update ON " + schema.table());
    CHECK(eventually([&] { return !cache->listens(); }));
}

TEST_CASE("The table of a near cache may be made anew") {
    TestSchema schema(Table::notifying);
    const auto cache = make_user(true, server_pool(), near_options(schema));
    cache->put("key", numbered(1), 1h);
    CHECK(cache->keeps("key"));
    schema.sql().exec("DROP TABLE " + schema.table());
    auto table = schema.table_options();
    table.notify = true;
    init_db(dsn(), table);
    CHECK(cache->forgets("key"));
    CHECK(cache->get_shared("key") == nullptr);
    cache->put("key", numbered(2), 1h);
    CHECK(cache->keeps("key"));
    schema.sql().exec("DELETE FROM " + schema.table());
    CHECK(cache->forgets("key"));
}

TEST_CASE("The listener ends with its cache, by drain(), and when nobody asks memory") {
    TestSchema schema(Table::notifying);
    NamedPool named;
    const auto ending = GENERATE(0, 1, 2);
    CAPTURE(ending);
    auto options = near_options(schema);
    if (ending == 2) {
        options.near_cache->max_age = 300ms;
        options.near_cache->max_staleness = 1s * slowness;
    }
    asio::io_context context;
    std::optional<AsyncPostgresCache> cache;
    cache.emplace(context.get_executor(), named.options, options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto putting = cache->put_raw("key", numbered(1), 1h);
        co_await std::move(putting);
        const auto listens = [&] { return cache->statistics().near_cache->listening; };
        auto getting = cache->get_shared("key");
        co_await std::move(getting);
        auto waiting = until(listens);
        const bool came = co_await std::move(waiting);
        CHECK(came);
        if (ending == 1) {
            auto draining = cache->drain(10s);
            co_await std::move(draining);
            CHECK(cache->peek("key") == nullptr);
        }
    });
    if (ending == 0) {
        cache.reset();
    }
    CHECK(run_out(context));
    if (ending == 2) {
        CHECK(cache->pool_statistics()->listening == 0);
        CHECK(cache->peek("key") == nullptr);
        CHECK(*run_coro(context, cache->get_shared("key")) == numbered(1));
    }
}

TEST_CASE("A context is destroyed while the near cache listens") {
    TestSchema schema(Table::notifying);
    NamedPool named;
    {
        asio::io_context context;
        AsyncPostgresCache cache(context.get_executor(), named.options, near_options(schema));
        run_coro(context, cache.put_raw("key", numbered(1), 1h));
        run_coro(context, [&]() -> asio::awaitable<void> {
            auto getting = cache.get_shared("key");
            co_await std::move(getting);
            const auto listens = [&] { return cache.pool_statistics()->listening == 1; };
            auto waiting = until(listens);
            const bool came = co_await std::move(waiting);
            CHECK(came);
        });
        // The last handle asks the listener to end, which nobody runs any more.
    }
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 0; }));
}

TEST_CASE("get_or_create takes fresh values from memory, and no others") {
    const bool blocking = GENERATE(false, true);
    TestSchema schema(Table::notifying);
    const auto cache = make_user(blocking, server_pool(), near_options(schema));
    CreateOptions create(1h);
    CHECK(cache->get_or_create("key", create, 1) == 1);
    CHECK(eventually([&] {
        const auto before = cache->statistics();
        CHECK(cache->get_or_create("key", create, 2) == 1);
        const auto after = cache->statistics();
        return after.near_cache->hits == before.near_cache->hits + 1 &&
               after.statements == before.statements;
    }));
    // The same entry is stale to whoever takes the last hour of its time for that.
    CreateOptions stale(1h);
    stale.stale_for = 2h;
    CHECK(eventually([&] { return cache->get_or_create("key", stale, 3) == 3; }));
    // What another one has changed is looked up.
    schema.sql().exec("UPDATE " + schema.table() + " SET value = '7' WHERE key = 'key'");
    CHECK(eventually([&] { return cache->get_or_create("key", create, 8) == 7; }));
    schema.sql().exec("DELETE FROM " + schema.table());
    CHECK(eventually([&] { return cache->get_or_create("key", create, 9) == 9; }));
}

TEST_CASE("Of many keys get_or_create loads those that memory has no fresh value of") {
    TestSchema schema;
    PostgresCache cache(server_pool(), near_options(schema, Invalidation::none));
    const CreateOptions create(1h);
    std::vector<std::string> loaded;
    const auto load = [&](const std::vector<std::string>& keys) {
        loaded.insert(loaded.end(), keys.begin(), keys.end());
        return std::vector<int>(keys.size(), 1);
    };
    cache.get_or_create_many<int>({"a", "b"}, create, load);
    cache.get_or_create_many<int>({"a", "b"}, create, load);  // what is found is kept
    const auto before = cache.statistics();
    CHECK(cache.get_or_create_many<int>({"b", "a"}, create, load) == std::vector<int>{1, 1});
    CHECK(cache.statistics().statements == before.statements);
    CHECK(cache.statistics().near_cache->hits == before.near_cache->hits + 2);
    CHECK(cache.get_or_create_many<int>({"a", "c"}, create, load) == std::vector<int>{1, 1});
    CHECK(loaded == std::vector<std::string>{"a", "b", "c"});
}

TEST_CASE("Instrumentations hear of what memory answers, but for peek") {
    const auto flavour = OWN_CONNECTIONS();
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    auto options = near_options(schema, Invalidation::none);
    options.instrumentations = {std::make_shared<SpyInstrumentation>(journal)};
    const auto cache = make_cache(flavour, options, server_pool());
    cache->put("key", numbered(1), 1h);
    cache->get_shared("key");
    journal->clear();
    CHECK(cache->get_shared("key") != nullptr);
    CHECK(cache->peek("key") != nullptr);
    CHECK(journal->count("get open") == 1);
    CHECK(journal->count("get hit") == 1);
    CHECK(journal->count("get close") == 1);
    CHECK(journal->lines().size() == 3);
}

TEST_CASE("A process that waits for the load of another one is woken by its end") {
    TestSchema schema(Table::notifying);
    const auto here = make_user(GENERATE(false, true), server_pool(), near_options(schema));
    here->put("other", numbered(1), 1h);
    CHECK(here->keeps("other"));
    PostgresCache there(server_pool(), schema.cache_options());
    CreateOptions create(1h);
    Clock::time_point stored;
    std::thread loader([&] {
        there.get_or_create<int>("key", create, [] {
            std::this_thread::sleep_for(400ms);
            return 1;
        });
        stored = Clock::now();
    });
    CHECK(eventually([&] { return schema.has("key"); }));
    CHECK(here->get_or_create("key", create, 2) == 1);
    loader.join();
    CHECK(here->statistics().load_waits == 1);
}

TEST_CASE("A near cache that cannot be is refused when the cache is made") {
    TestSchema schema;
    asio::io_context context;
    const auto make = [&](const std::function<void(NearCacheOptions&)>& change) {
        auto options = near_options(schema);
        change(*options.near_cache);
        AsyncPostgresCache(context.get_executor(), server_pool(), options);
    };
    CHECK_THROWS_WITH(make([](auto& near) { near.max_bytes = 1000; }),
                      Catch::Contains("max_bytes"));
    CHECK_THROWS_WITH(make([](auto& near) { near.max_age = 0s; }), Catch::Contains("max_age"));
    CHECK_THROWS_WITH(make([](auto& near) { near.max_age = no_expiry; }),
                      Catch::Contains("max_age"));
    CHECK_THROWS_WITH(make([](auto& near) { near.max_staleness = 1ms; }),
                      Catch::Contains("max_staleness"));
    CHECK_THROWS_WITH(make([](auto& near) { near.fallback_max_age = -1s; }),
                      Catch::Contains("fallback_max_age"));
    const auto connections = std::make_shared<AppConnections>();
    CHECK_THROWS_WITH(
        AsyncPostgresCache(connections->pool(context.get_executor()), near_options(schema)),
        Catch::Contains("Invalidation::none"));
}
