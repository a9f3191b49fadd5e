// Calls of many keys, and JSON text that is passed through.

#include <catch2/catch.hpp>
#include <set>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

std::vector<std::string> names(std::size_t count) {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < count; ++i) {
        all.push_back("key" + std::to_string(i));
    }
    return all;
}

std::vector<Entry> entries(std::size_t count, Duration ttl = 1h) {
    std::vector<Entry> all;
    for (std::size_t i = 0; i < count; ++i) {
        all.emplace_back("key" + std::to_string(i), numbered(static_cast<std::int64_t>(i)), ttl);
    }
    return all;
}

std::string error_text(const boost::system::error_code& code) {
    return std::string("error ") + code.category().name() + ":" + std::to_string(code.value());
}

}  // namespace

TEST_CASE("Many entries are put, found in the order asked, and removed") {
    const auto flavour = EVERY_FLAVOUR();
    const std::size_t count = GENERATE(1u, 2u, 127u, 128u, 129u, 1500u);
    CAPTURE(flavour, count);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put_many(entries(count));
    CHECK(schema.rows() == static_cast<std::int64_t>(count));
    auto keys = names(count);
    std::reverse(keys.begin(), keys.end());
    keys.insert(keys.begin() + 1, "absent");
    const auto values = cache->get_many(keys);
    REQUIRE(values.size() == keys.size());
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const bool right = keys[i] == "absent"
                               ? !values[i].has_value()
                               : values[i] == numbered(std::stoll(keys[i].substr(3)));
        wrong += right ? 0 : 1;
    }
    CHECK(wrong == 0);
    CHECK(cache->statistics().hits == count);
    CHECK(cache->statistics().misses == 1);
    CHECK(cache->statistics().puts == count);
    CHECK(cache->remove_many(keys) == count);
    CHECK(schema.rows() == 0);
    CHECK(cache->remove_many(keys) == 0);
}

TEST_CASE("A blocking call of many does with the one connection that an application has") {
    TestSchema schema;
    auto options = schema.cache_options();
    options.timeout = 3s * slowness;
    const auto connections = std::make_shared<AppConnections>(dsn(), 1);
    PostgresCache cache(connections->pool(), options);
    cache.put_raw_many(entries(700));
    CHECK(schema.rows() == 700);
    CHECK(cache.get_raw_many(names(700)).size() == 700);

    // Calls of a locked row are tried apart from the others: not on a connection of their own.
    Psql holder;
    holder.exec("BEGIN; UPDATE " + schema.table() + " SET value = value WHERE key = 'key300'");
    const auto started = Clock::now();
    CHECK(failure_of([&] { cache.put_raw_many(entries(700)); }).code() == Errc::timed_out);
    CHECK(Clock::now() - started < 2 * options.timeout);
    holder.exec("ROLLBACK");
    cache.put_raw_many(entries(700));
    CHECK(cache.remove_many(names(700)) == 700);
}

TEST_CASE("No keys at all make no statement") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    const auto cache = make_cache(flavour, schema);
    CHECK(cache->get_many({}).empty());
    CHECK_NOTHROW(cache->put_many({}));
    CHECK(cache->remove_many({}) == 0);
    CHECK(cache->statistics().statements == 0);
}

TEST_CASE("Up to 128 keys make one statement") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->get("warm");
    const auto before = cache->statistics().statements;
    cache->put_many(entries(128));
    CHECK(cache->statistics().statements == before + 1);
    cache->get_many(names(128));
    CHECK(cache->statistics().statements == before + 2);
    cache->remove_many(names(128));
    CHECK(cache->statistics().statements == before + 3);
}

TEST_CASE("Repeated keys: each is answered, the last entry counts, a removal counts once") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    std::vector<Entry> repeated;
    for (int i = 0; i < 1000; ++i) {
        repeated.emplace_back("a", numbered(i), 1h);
        repeated.emplace_back("b" + std::to_string(i % 300), numbered(i), 1h);
    }
    cache->put_many(repeated);
    CHECK(schema.rows() == 301);
    CHECK(cache->get("a") == numbered(999));
    CHECK(cache->get("b99") == numbered(999));
    CHECK(cache->get("b100") == numbered(700));
    const auto values = cache->get_many({"a", "absent", "a", "b99", "a", "absent"});
    REQUIRE(values.size() == 6);
    CHECK(values[0] == numbered(999));
    CHECK(values[1] == std::nullopt);
    CHECK(values[2] == numbered(999));
    CHECK(values[3] == numbered(999));
    CHECK(values[4] == numbered(999));
    CHECK(values[5] == std::nullopt);
    CHECK(cache->remove_many({"a", "a", "absent", "b99"}) == 2);
    CHECK(schema.rows() == 299);
}

TEST_CASE("Each of many entries has its own ttl") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put_many({{"short", numbered(1), 1min},
                     {"gone", numbered(2), -1s},
                     {"ever", numbered(3), no_expiry}});
    CHECK(schema.expires_in("short") == Approx(60).margin(20));
    const auto values = cache->get_many({"short", "gone", "ever"});
    CHECK(values[0] == numbered(1));
    CHECK(values[1] == std::nullopt);
    CHECK(values[2] == numbered(3));
    CHECK(schema.has("gone"));
}

TEST_CASE("What is wrong with one of many is told by its place, and nothing is sent") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const std::string secret(max_key_size + 1, 's');
    const auto refused = [&](const Failure& failure, Errc errc, const std::string& place) {
        CAPTURE(failure.what());
        CHECK(failure.code() == errc);
        CHECK(failure.what().find(place) != std::string::npos);
        CHECK(failure.what().find("sss") == std::string::npos);
    };
    const std::string no_text = secret + '\xFF';
    refused(failure_of([&] { cache->get_many({"a", "b", no_text}); }), Errc::invalid_key, "key 2");
    refused(failure_of([&] { cache->remove_many({no_text, "b"}); }), Errc::invalid_key, "key 0");
    auto wrong = entries(5);
    wrong[3].key = secret;
    refused(failure_of([&] { cache->put_many(wrong); }), Errc::invalid_key, "entry 3");
    wrong = entries(5);
    wrong[4].value["x"] = std::nan("");
    refused(failure_of([&] { cache->put_many(wrong); }), Errc::invalid_value, "entry 4");
    wrong = entries(5);
    wrong[1].ttl = Duration::max() - 1us;
    refused(failure_of([&] { cache->put_many(wrong); }), Errc::invalid_ttl, "entry 1");
    CHECK(cache->statistics().statements == 0);
    CHECK(schema.rows() == 0);
}

TEST_CASE("A value that cannot be read fails a call of many, and only that call") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put_many(entries(3));
    schema.insert("list", "[1]");
    const auto failure = failure_of([&] { cache->get_many({"key0", "list", "key1"}); });
    CHECK(failure.code() == Errc::unreadable_value);
    CHECK(cache->get_many({"key0", "key1"})[1] == numbered(1));
}

TEST_CASE("Errors of the server reach a call of many once") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    const auto cache = make_cache(flavour, schema);
    CHECK(failure_of([&] { cache->get_many(names(300)); }).code() == Errc::table_missing);
    CHECK(failure_of([&] { cache->put_many(entries(300)); }).code() == Errc::table_missing);
    CHECK(failure_of([&] { cache->remove_many(names(300)); }).code() == Errc::table_missing);
    CHECK(cache->statistics().errors == 3);
}

TEST_CASE("A call of many opens one span with all its keys") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    auto options = schema.cache_options();
    options.instrumentations.push_back(std::make_shared<SpyInstrumentation>(journal));
    const auto cache = make_cache(flavour, options, server_pool());
    cache->put_many(entries(2), "store");
    CHECK(journal->count("A put open key=key0 key=key1 name=store") == 1);
    CHECK(journal->count("A put put ") == 2);
    CHECK(journal->count("A put close") == 1);
    cache->get_many({"key1", "absent", "key0"}, "load");
    CHECK(journal->count("A get open key=key1 key=absent key=key0 name=load") == 1);
    CHECK(journal->count("A get hit ") == 2);
    CHECK(journal->count("A get miss") == 1);
    CHECK(journal->count("A get close") == 1);
    cache->remove_many({"key0", "key1"});
    CHECK(journal->count("A remove open key=key0 key=key1 name=") == 1);
    CHECK(journal->count("A remove removed") == 1);
    auto wrong = entries(1);
    wrong[0].value["x"] = std::nan("");
    CHECK(failure_of([&] { cache->put_many(wrong); }).code() == Errc::invalid_value);
    CHECK(journal->count("A put " + error_text(Errc::invalid_value)) == 1);
    CHECK(journal->count(" open") == journal->count(" close"));
}

TEST_CASE("A call of many is cancelled as a whole, times out as a whole, and harms nobody") {
    TestSchema schema;
    asio::io_context context;
    auto options = schema.cache_options();
    options.timeout = 2s * slowness;
    AsyncPostgresCache cache(context.get_executor(), server_pool(2), options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.put_raw_many(entries(1500));
        {
            TableLock lock(schema);
            auto cancelled = start(context.get_executor(), cache.get_raw_many(names(1500)));
            const auto blocked = [&] { return lock.waiting() >= 1; };
            const bool is_blocked = co_await until(blocked);
            REQUIRE(is_blocked);
            cancelled.cancel();
            const auto failure = co_await cancelled.failure();
            CHECK(failure.code() == asio::error::operation_aborted);
            const auto late = co_await failure_of(cache.put_raw_many(entries(300)));
            CHECK(late.code() == Errc::timed_out);
            lock.release();
        }
        const auto values = co_await cache.get_raw_many(names(1500));
        CHECK(values.size() == 1500);
        // Those that timed out are forgotten when the statement before them has ended.
        const auto forgotten = [&] { return cache.statistics().queued == 0; };
        const bool is_forgotten = co_await until(forgotten);
        CHECK(is_forgotten);
    });
}

TEST_CASE("A call of many is larger than the queue") {
    TestSchema schema;
    asio::io_context context;
    auto options = schema.cache_options();
    options.max_queued_calls = 1024;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.put_raw_many(entries(5000));
        const auto values = co_await cache.get_raw_many(names(5000));
        const auto misses = std::count(values.begin(), values.end(), std::nullopt);
        CHECK(misses == 0);
        const auto removed = co_await cache.remove_many(names(5000));
        CHECK(removed == 5000);
    });
}

TEST_CASE("OnOutage::miss answers calls of many too") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    auto options = schema.cache_options();
    options.on_outage = OnOutage::miss;
    PoolOptions pool;
    pool.dsn = "host=127.0.0.1 port=1 user=x dbname=x";
    const auto cache = make_cache(flavour, options, pool);
    CHECK(cache->get_many({"a", "b"}) ==
          std::vector<std::optional<json::object>>{std::nullopt, std::nullopt});
    CHECK_NOTHROW(cache->put_many(entries(3)));
    CHECK(cache->remove_many({"a"}) == 0);
    CHECK(cache->get_text("a") == std::nullopt);
    CHECK_NOTHROW(cache->put_text("a", "{}", 1h));
    CHECK(cache->statistics().outage_misses == 3);
    CHECK(cache->statistics().dropped_writes == 5);
}

TEST_CASE("Text comes back as the server stores it, and is what an object is made of") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK(cache->get_text("key") == std::nullopt);
    cache->put_text("key", " {\"b\":1.50, \"a\" : [true,null], \"b\": 2.0} ", 1h, "name");
    CHECK(cache->get_text("key") == "{\"a\": [true, null], \"b\": 2.0}");
    CHECK(cache->get("key") == object("{\"a\": [true, null], \"b\": 2.0}"));
    CHECK(schema.expires_in("key") == Approx(3600).margin(60));
    cache->put("key", object("{\"n\": 1}"), 1h);
    CHECK(cache->get_text("key", "name") == "{\"n\": 1}");
    schema.expire("key");
    CHECK(cache->get_text("key") == std::nullopt);
    schema.insert("other", "[1e400]");
    CHECK(cache->get_text("other")->size() == 403);
    CHECK(failure_of([&] { cache->get("other"); }).code() == Errc::unreadable_value);
}

TEST_CASE("Text that PostgreSQL would refuse is refused before it is sent") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const auto before = cache->statistics().statements;
    for (const std::string text :
         {"", "  ", "[1]", "1", "null", "\"x\"", "{\"a\": \"\xff\"}", "{", "{\"a\"}", "{} {}",
          "{\"a\": NaN}", "{\"a\": \"\\u0000\"}", "{\"secret\": 01}"}) {
        CAPTURE(text);
        const auto failure = failure_of([&] { cache->put_text("key", text, 1h); });
        CHECK(failure.code() == Errc::invalid_value);
        CHECK(failure.sqlstate().empty());
        CHECK(failure.what().find("secret") == std::string::npos);
    }
    const std::string nul("{\"a\": \"\0\"}", 10);
    const auto failure = failure_of([&] { cache->put_text("key", nul, 1h); });
    CHECK(failure.code() == Errc::invalid_value);
    CHECK_THAT(failure.what(), Catch::Contains("at byte 7"));
    CHECK(cache->statistics().statements == before);
    CHECK(schema.rows() == 0);
    cache->put_text("key", "{}", 1h);
    CHECK(cache->get("key") == json::object());
}

TEST_CASE("A text that only the server refuses hurts no other call of its statement") {
    TestSchema schema;
    asio::io_context context;
    // Its stack is too small for what others take.
    auto pool = server_pool(1);
    pool.dsn = dsn_with({{"options", "-cmax_stack_depth=100kB"}});
    const std::string deep = "{\"a\": " + std::string(5000, '[') + std::string(5000, ']') + "}";
    AsyncPostgresCache cache(context.get_executor(), pool, schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        const auto executor = context.get_executor();
        std::vector<Started<void>> good;
        std::vector<Started<void>> bad;
        for (int i = 0; i < 40; ++i) {
            const auto key = "key" + std::to_string(i);
            if (i % 10 == 3) {
                bad.push_back(start(executor, cache.put_text(key, deep, 1h)));
            } else if (i % 2 == 0) {
                good.push_back(start(executor, cache.put_raw(key, numbered(i), 1h)));
            } else {
                good.push_back(start(executor, cache.put_text(key, "{\"n\": 1}", 1h)));
            }
        }
        for (auto& one : good) {
            co_await one.get();
        }
        for (auto& one : bad) {
            const auto failure = co_await one.failure();
            CHECK(failure.code() == Errc::invalid_value);
            CHECK(failure.sqlstate() == "54001");
        }
    });
    CHECK(schema.rows() == 36);
}

TEST_CASE("Gets of text and of objects share a statement and a key") {
    TestSchema schema;
    schema.insert("key", "{\"n\": 1}");
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1), schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        const auto before = cache.statistics().statements;
        const auto executor = context.get_executor();
        std::vector<Started<std::optional<std::string>>> texts;
        std::vector<Started<std::optional<json::object>>> objects;
        for (int i = 0; i < 12; ++i) {
            const std::string key = i % 4 == 3 ? "absent" : "key";
            if (i % 3 == 0) {
                texts.push_back(start(executor, cache.get_text(key)));
            } else {
                objects.push_back(start(executor, cache.get_raw(key)));
            }
        }
        int hits = 0;
        for (auto& one : texts) {
            const auto text = co_await one.get();
            const bool right = !text || *text == "{\"n\": 1}";
            CHECK(right);
            hits += text ? 1 : 0;
        }
        for (auto& one : objects) {
            const auto value = co_await one.get();
            const bool right = !value || *value == numbered(1);
            CHECK(right);
            hits += value ? 1 : 0;
        }
        CHECK(hits == 9);
        // Where there are several processors few calls are divided between two statements.
        CHECK(cache.statistics().statements <= before + 2);
    });
}

TEST_CASE("A key that many want at once is asked for once") {
    TestSchema schema;
    schema.insert("key", "{\"n\": 1}");
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        const auto before = cache.statistics().statements;
        std::vector<Started<std::optional<json::object>>> callers;
        for (int i = 0; i < 50; ++i) {
            callers.push_back(start(context.get_executor(), cache.get_raw("key")));
        }
        for (auto& one : callers) {
            const auto value = co_await one.get();
            CHECK(value == numbered(1));
        }
        CHECK(cache.statistics().statements == before + 1);
    });
}
