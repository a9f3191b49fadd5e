// The operations on one key: each atomic, expired entries absent.

#include <algorithm>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <limits>
#include <set>
#include <thread>

#include "support/both.hpp"
#include "support/run_coro.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

TEST_CASE("put_if_absent stores only where nothing is live") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK(cache->put_if_absent("key", 1, 1h));
    CHECK_FALSE(cache->put_if_absent("key", 2, 2h));
    CHECK(cache->get_value("key") == json::value(1));
    CHECK(schema.expires_in("key") < 3601);
    schema.expire("key");
    CHECK(cache->put_if_absent("key", 3, 1h));
    CHECK(cache->get_value("key") == json::value(3));
    CHECK(cache->put_if_absent("gone", 1, 0s));
    CHECK(cache->put_if_absent("gone", 2, 1h));
    CHECK(cache->statistics().puts == 4);
}

TEST_CASE("replace stores only where an entry is live") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK_FALSE(cache->replace("key", 1, 1h));
    CHECK(schema.rows() == 0);
    cache->put_value("key", 1, 1h);
    CHECK(cache->replace("key", 2, 2h));
    CHECK(cache->get_value("key") == json::value(2));
    CHECK(schema.expires_in("key") > 7000);
    schema.expire("key");
    CHECK_FALSE(cache->replace("key", 3, 1h));
    CHECK(cache->get_value("key") == std::nullopt);
    CHECK(cache->statistics().puts == 2);
}

TEST_CASE("compare_and_put stores only where the value is the expected one, as JSONB compares") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const json::value first{{"a", 1}, {"b", {1, 2}}};
    CHECK_FALSE(cache->compare_and_put("key", first, 2, 1h));
    cache->put_value("key", first, 1h);
    CHECK_FALSE(cache->compare_and_put("key", json::value{{"a", 1}}, 2, 1h));
    CHECK(cache->compare_and_put("key", json::value{{"b", {1, 2}}, {"a", 1.0}}, "new", 2h));
    CHECK(cache->get_value("key") == json::value("new"));
    CHECK(schema.expires_in("key") > 7000);
    schema.expire("key");
    CHECK_FALSE(cache->compare_and_put("key", "new", 3, 1h));
    CHECK(failure_of([&] { cache->compare_and_put("key", std::nan(""), 3, 1h); }).code() ==
          Errc::invalid_value);
}

TEST_CASE("take gives an entry to one caller and deletes it") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK(cache->take("key") == std::nullopt);
    cache->put_value("key", {1, 2}, 1h);
    CHECK(cache->take("key") == json::value{1, 2});
    CHECK(schema.rows() == 0);
    cache->put_value("key", 1, 1h);
    schema.expire("key");
    CHECK(cache->take("key") == std::nullopt);
    cache->put_value("a", 1, 1h);
    cache->put_value("b", 2, 1h);
    using Found = std::vector<std::optional<json::value>>;
    CHECK(cache->take_many({"a", "absent", "b", "a"}) == Found{1, std::nullopt, 2, 1});
    CHECK_FALSE(schema.has("a"));
    const auto statistics = cache->statistics();
    CHECK(statistics.removes == 3);
    CHECK(statistics.hits == 4);
}

TEST_CASE("get_and_touch reads a live entry and gives it a new expiry") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK(cache->get_and_touch("key", 1h) == std::nullopt);
    cache->put_value("key", 1, 1h);
    CHECK(cache->get_and_touch("key", 2h) == json::value(1));
    CHECK(schema.expires_in("key") > 7000);
    CHECK(cache->get_and_touch("key", 0s) == json::value(1));
    CHECK(cache->get_and_touch("key", 1h) == std::nullopt);
    CHECK(cache->statistics().touches == 2);
    cache->put_value("a", 1, 1h);
    cache->put_value("b", 2, 1h);
    CHECK(cache->touch_many({"a", "absent", "b", "a"}, 3h) ==
          std::vector<bool>{true, false, true, true});
    CHECK(schema.expires_in("b") > 10000);
}

TEST_CASE("get_entry and expires_in tell what is left, by the server's clock") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK_FALSE(cache->get_entry("key"));
    CHECK_FALSE(cache->expires_in("key"));
    cache->put_value("key", json::string(300, 'x'), 1h);
    const auto entry = cache->get_entry("key");
    REQUIRE(entry);
    CHECK(entry->value == json::value(json::string(300, 'x')));
    CHECK(entry->size > 300);
    CHECK(entry->expires_in > 3590s);
    CHECK(entry->expires_in <= 3600s);
    const auto left = cache->expires_in("key");
    REQUIRE(left);
    CHECK(*left <= entry->expires_in);
    CHECK(*left > 3590s);
    cache->put_value("key", 1, no_expiry);
    CHECK(cache->get_entry("key")->expires_in == no_expiry);
    CHECK(cache->expires_in("key") == no_expiry);
    cache->put_value("far", 1, max_ttl);
    CHECK(cache->expires_in("far") > max_ttl - 10s);
    schema.expire("key");
    CHECK_FALSE(cache->get_entry("key"));
    CHECK_FALSE(cache->expires_in("key"));
}

TEST_CASE("increment counts, makes what is absent, and keeps the expiry") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK(cache->increment("key", 5, 1h) == 5);
    CHECK(cache->increment("key", -7, 5h) == -2);
    CHECK(schema.expires_in("key") < 3601);
    CHECK(cache->get_value("key") == json::value(-2));
    schema.expire("key");
    CHECK(cache->increment("key", 1, 2h) == 1);
    CHECK(schema.expires_in("key") > 7000);
    CHECK(cache->increment("key", 0, 1h) == 1);
    schema.insert("python", "41");
    CHECK(cache->increment("python", 1, 1h) == 42);
}

TEST_CASE("increment changes nothing that is no counter, nor leaves its range") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    for (const char* stored : {"\"5\"", "1.5", "1.0", "{}", "[1]", "null", "true",
                               "1000000000000000000000000000000", "9223372036854775808"}) {
        CAPTURE(stored);
        schema.sql().exec("DELETE FROM " + schema.table());
        schema.insert("key", stored);
        const Failure failure = failure_of([&] { cache->increment("key", 1, 1h); });
        CHECK(failure.code() == Errc::unreadable_value);
        CHECK(
            std::string(failure.what()) ==
            "psycache: increment: the stored value is no integer of 64 bits, and was not changed");
        CHECK(cache->get_text("key") == stored);
        // Once it has expired a counter may take its place.
        schema.expire("key");
        CHECK(cache->increment("key", 3, 1h) == 3);
    }
    constexpr auto most = std::numeric_limits<std::int64_t>::max();
    constexpr auto least = std::numeric_limits<std::int64_t>::min();
    CHECK(cache->increment("high", most, 1h) == most);
    CHECK(failure_of([&] { cache->increment("high", 1, 1h); }).code() == Errc::counter_overflow);
    CHECK(cache->increment("high", least, 1h) == -1);
    CHECK(cache->increment("low", least, 1h) == least);
    CHECK(failure_of([&] { cache->increment("low", -1, 1h); }).code() == Errc::counter_overflow);
    CHECK(cache->get_value("low") == json::value(least));
    CHECK(failure_of([&] { cache->increment("key", 1, 0s); }).code() == Errc::invalid_ttl);
}

TEST_CASE("merge puts members into a live object and keeps its expiry") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK_FALSE(cache->merge("key", {{"a", 1}}));
    CHECK(schema.rows() == 0);
    cache->put("key", {{"a", 1}, {"b", {{"c", 1}, {"d", 2}}}}, 1h);
    CHECK(cache->merge("key", {{"b", {{"c", 3}}}, {"e", nullptr}}));
    CHECK(cache->get("key") == json::object{{"a", 1}, {"b", {{"c", 3}}}, {"e", nullptr}});
    CHECK(schema.expires_in("key") > 3590);
    CHECK(cache->merge("key", {}));
    schema.expire("key");
    CHECK_FALSE(cache->merge("key", {{"a", 1}}));
    for (const char* stored : {"1", "[1]", "\"x\"", "null"}) {
        CAPTURE(stored);
        cache->put_value("other", json::parse(stored), 1h);
        CHECK(failure_of([&] {
                  cache->merge("other", {{"a", 1}});
              }).code() == Errc::unreadable_value);
        CHECK(cache->get_text("other") == stored);
    }
}

TEST_CASE("Operations on one key refuse what put refuses") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const std::string bad = "\xFF";
    const Duration late = max_ttl + 1us;
    CHECK(failure_of([&] { cache->put_if_absent(bad, 1, 1h); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->replace(bad, 1, 1h); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->compare_and_put(bad, 1, 1, 1h); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->take(bad); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->get_and_touch(bad, 1h); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->get_entry(bad); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->expires_in(bad); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->increment(bad, 1, 1h); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->merge(bad, {}); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->put_if_absent("k", 1, late); }).code() == Errc::invalid_ttl);
    CHECK(failure_of([&] { cache->get_and_touch("k", late); }).code() == Errc::invalid_ttl);
    CHECK(failure_of([&] { cache->increment("k", 1, late); }).code() == Errc::invalid_ttl);
    CHECK(failure_of([&] { cache->touch_many({"a", "b"}, late); }).code() == Errc::invalid_ttl);
    CHECK(failure_of([&] {
              cache->merge("k", {{"a", std::nan("")}});
          }).code() == Errc::invalid_value);
    CHECK(cache->statistics().statements == 0);
}

TEST_CASE("Operations on many keys do what those on one do, each key by itself") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(flavour, schema);
    using Flags = std::vector<bool>;
    using Found = std::vector<std::optional<json::value>>;
    PutOptions tagged;
    tagged.tags = {"t"};

    SECTION("put_if_absent_many and replace_many") {
        cache->put_value("live", 0, 1h);
        cache->put_value("late", 0, 0s);
        CHECK(cache->put_if_absent_many({{"live", 1}, {"late", 2}, {"new", 3}, {"new", 4}}, 1h) ==
              Flags{false, true, true, false});
        CHECK(cache->get_values({"live", "late", "new"}) == Found{0, 2, 3});
        CHECK(cache->replace_many({{"live", 5}, {"absent", 6}, {"new", 7}, {"new", 8}}, 2h) ==
              Flags{true, false, true, true});
        CHECK(cache->get_values({"live", "absent", "new"}) == Found{5, std::nullopt, 8});
        CHECK(schema.expires_in("new") > 7000);
        // One that expires at once keeps no other out, and is the last one to replace anything.
        CHECK(cache->put_if_absent_many({{"x", 1}, {"x", 2}}, 0s) == Flags{true, true});
        CHECK(cache->replace_many({{"live", 1}, {"live", 2}}, 0s) == Flags{true, false});
        CHECK(cache->statistics().puts == 10);
    }
    SECTION("with tags") {
        CHECK(cache->put_if_absent_many({{"a", 1}, {"b", 2}, {"a", 3}}, 1h, tagged) ==
              Flags{true, true, false});
        cache->put_value("c", 1, 1h);
        CHECK(cache->replace_many({{"c", 2}, {"absent", 3}}, 1h, tagged) == Flags{true, false});
        CHECK(cache->remove_tag("t") == 3);
        CHECK(schema.rows() == 0);
    }
    SECTION("get_and_touch_many and get_entry_many") {
        cache->put_value("a", 1, 1h);
        cache->put_value("b", "two", 1h);
        const std::vector<std::string> keys{"a", "absent", "b", "a"};
        CHECK(cache->get_and_touch_many(keys, 3h) == Found{1, std::nullopt, "two", 1});
        CHECK(schema.expires_in("b") > 10000);
        CHECK(cache->statistics().touches == 2);
        cache->put_value("c", 1, no_expiry);
        const auto entries = cache->get_entry_many({"c", "absent", "b", "b"});
        REQUIRE(entries.size() == 4);
        REQUIRE(entries[0]);
        CHECK(entries[0]->expires_in == no_expiry);
        CHECK_FALSE(entries[1]);
        REQUIRE(entries[2]);
        CHECK(entries[2]->value == json::value("two"));
        CHECK(entries[2]->expires_in > 2h);
        CHECK(entries[2]->size > 0);
        REQUIRE(entries[3]);
        CHECK(entries[3]->value == entries[2]->value);
    }
    SECTION("increment_many") {
        cache->put_value("old", 40, 1h);
        CHECK(cache->increment_many({{"old", 2}, {"new", -1}}, 2h) ==
              std::vector<std::int64_t>{42, -1});
        CHECK(schema.expires_in("old") < 3601);
        CHECK(schema.expires_in("new") > 7000);
        auto twice = cache->increment_many({{"new", 5}, {"new", 5}}, 1h);
        std::sort(twice.begin(), twice.end());
        CHECK(twice == std::vector<std::int64_t>{4, 9});
        cache->put_value("text", "x", 1h);
        CHECK(failure_of([&] {
                  cache->increment_many({{"text", 1}}, 1h);
              }).code() == Errc::unreadable_value);
        CHECK(cache->get_value("text") == json::value("x"));
    }
    SECTION("nothing at all") {
        const auto before = cache->statistics().statements;
        CHECK(cache->put_if_absent_many({}, 1h).empty());
        CHECK(cache->replace_many({}, 1h).empty());
        CHECK(cache->get_and_touch_many({}, 1h).empty());
        CHECK(cache->get_entry_many({}).empty());
        CHECK(cache->increment_many({}, 1h).empty());
        CHECK(cache->statistics().statements == before);
    }
    SECTION("a wrong one is told with its place, and nothing is done") {
        const auto what = [](auto call) { return std::string(failure_of(call).what()); };
        const std::string bad = "\xFF";
        CHECK_THAT(what([&] {
                       cache->put_if_absent_many({{"a", 1}, {bad, 1}}, 1h);
                   }),
                   Catch::Contains("put_if_absent_many") && Catch::Contains("entry 1"));
        CHECK_THAT(what([&] {
                       cache->replace_many({{"a", std::nan("")}}, 1h);
                   }),
                   Catch::Contains("replace_many") && Catch::Contains("entry 0"));
        CHECK_THAT(what([&] {
                       cache->get_and_touch_many({"a", "b", bad}, 1h);
                   }),
                   Catch::Contains("get_and_touch_many") && Catch::Contains("key 2"));
        CHECK_THAT(what([&] { cache->get_entry_many({bad}); }),
                   Catch::Contains("get_entry_many") && Catch::Contains("key 0"));
        CHECK_THAT(what([&] {
                       cache->increment_many({{"a", 1}, {bad, 1}}, 1h);
                   }),
                   Catch::Contains("increment_many") && Catch::Contains("counter 1"));
        CHECK(failure_of([&] {
                  cache->increment_many({{"a", 1}}, 0s);
              }).code() == Errc::invalid_ttl);
        CHECK(schema.rows() == 0);
    }
}

TEST_CASE("Operations on many keys take few statements, and their answers keep their order") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    constexpr std::int64_t keys = 2500;
    KeyedValues entries;
    std::vector<std::string> names;
    std::vector<std::pair<std::string, std::int64_t>> counters;
    for (std::int64_t i = 0; i < keys; ++i) {
        names.push_back(std::to_string(i));
        entries.emplace_back(names.back(), i);
        counters.emplace_back(names.back(), i);
    }
    const auto stored = cache->put_if_absent_many(entries, 1h);
    CHECK(std::count(stored.begin(), stored.end(), true) == keys);
    const auto counted = cache->increment_many(counters, 1h);
    const auto read = cache->get_entry_many(names);
    const auto touched = cache->get_and_touch_many(names, 1h);
    bool right = true;
    for (std::size_t i = 0; i < names.size(); ++i) {
        const auto n = static_cast<std::int64_t>(i);
        right = right && counted[i] == 2 * n && read[i] && read[i]->value == json::value(2 * n) &&
                touched[i] == json::value(2 * n);
    }
    CHECK(right);
    CHECK(cache->statistics().statements <= 4 * (keys / 128 + 8));
}

namespace {

/// GCC 12 cannot have an initializer list in a coroutine.
json::object member(std::string_view name, int value) {
    json::object object;
    object[name] = value;
    return object;
}

}  // namespace

TEST_CASE("Calls that share a statement each hear of what they have done") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1), schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto executor = co_await asio::this_coro::executor;
        co_await cache.put("number", 1, 1h);
        co_await cache.put("text", "x", 1h);
        co_await cache.put("object", member("a", 1), 1h);

        std::vector<Started<bool>> stored;
        std::vector<Started<std::optional<int>>> taken;
        std::vector<Started<std::int64_t>> counted;
        for (int i = 0; i < 8; ++i) {
            stored.push_back(start(executor, cache.put_if_absent("new", i, 1h)));
            taken.push_back(start(executor, cache.take<int>("number")));
            counted.push_back(start(executor, cache.increment("count", 1, 1h)));
        }
        auto no_counter = start(executor, cache.increment("text", 1, 1h));
        auto too_far =
            start(executor, cache.increment("most", std::numeric_limits<std::int64_t>::max(), 1h));
        auto further = start(executor, cache.increment("most", 1, 1h));
        std::vector<Started<bool>> merged;
        for (int i = 0; i < 3; ++i) {
            merged.push_back(start(executor, cache.merge("object", member(std::to_string(i), i))));
        }
        auto no_object = start(executor, cache.merge("text", member("a", 1)));

        int winners = 0;
        for (auto& one : stored) {
            const bool its = co_await one.get();
            winners += its ? 1 : 0;
        }
        CHECK(winners == 1);
        const auto winner = co_await cache.get<int>("new");
        CHECK(winner == 0);
        int takers = 0;
        for (auto& one : taken) {
            const auto value = co_await one.get();
            takers += value ? 1 : 0;
        }
        CHECK(takers == 1);
        std::vector<std::int64_t> counts;
        for (auto& one : counted) {
            const auto count = co_await one.get();
            counts.push_back(count);
        }
        CHECK(counts == std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8});
        const Failure text_counter = co_await no_counter.failure();
        CHECK(text_counter.code() == Errc::unreadable_value);
        const Failure first = co_await too_far.failure();
        CHECK_FALSE(first);
        const Failure second = co_await further.failure();
        CHECK(second.code() == Errc::counter_overflow);
        for (auto& one : merged) {
            const bool live = co_await one.get();
            CHECK(live);
        }
        const Failure text_object = co_await no_object.failure();
        CHECK(text_object.code() == Errc::unreadable_value);
        const auto object = co_await cache.get_raw("object");
        CHECK(object == json::parse(R"({"a": 1, "0": 0, "1": 1, "2": 2})").get_object());
    });
    CHECK(cache.statistics().statements < 40);
}

TEST_CASE("What is taken for a caller who has left goes to the next one") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1), schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto executor = co_await asio::this_coro::executor;
        co_await cache.put("key", 1, 1h);
        const auto absent = co_await cache.take<int>("absent");
        CHECK_FALSE(absent);
        const auto before = cache.statistics().statements;
        TableLock lock(schema);
        auto first = start(executor, cache.take<int>("key"));
        auto second = start(executor, cache.take<int>("key"));
        const auto blocked = [&] { return lock.waiting() == 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        first.cancel();
        const Failure left = co_await first.failure();
        CHECK(left.code() == asio::error::operation_aborted);
        lock.release();
        const auto value = co_await second.get();
        CHECK(value == 1);
        CHECK(cache.statistics().statements == before + 1);
    });
    CHECK(schema.rows() == 0);
}

TEST_CASE("Of many who compare and put at once one succeeds at a time, and none is lost") {
    const auto flavour = GENERATE(true, false);
    CAPTURE(flavour);
    TestSchema schema;
    constexpr int callers = 8;
    constexpr int each = 15;
    const auto count_up = [&](auto get, auto swap) {
        for (int i = 0; i < each;) {
            const std::int64_t now = get();
            i += swap(now, now + 1) ? 1 : 0;
        }
    };
    // Two caches, as two processes have them.
    PostgresCache one(server_pool(2), schema.cache_options());
    PostgresCache other(server_pool(2), schema.cache_options());
    one.put("key", 0, 1h);
    std::vector<std::thread> threads;
    for (int i = 0; i < callers; ++i) {
        PostgresCache& cache = flavour && i % 2 == 0 ? other : one;
        threads.emplace_back([&] {
            count_up([&] { return *cache.get<std::int64_t>("key"); },
                     [&](std::int64_t expected, std::int64_t desired) {
                         return cache.compare_and_put("key", expected, desired, 1h);
                     });
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(one.get<int>("key") == callers * each);
}

namespace {

asio::awaitable<void> count_and_take(AsyncPostgresCache& cache, int times,
                                     std::set<std::int64_t>& counts, int& taken) {
    for (int n = 0; n < times; ++n) {
        const std::int64_t count = co_await cache.increment("count", 1, 1h);
        counts.insert(count);
        co_await cache.put_if_absent("lock", n, 1h);
        const auto lock = co_await cache.take<int>("lock");
        taken += lock ? 1 : 0;
    }
}

}  // namespace

TEST_CASE("Counters are exact, however many count at once") {
    TestSchema schema;
    constexpr int callers = 64;
    constexpr int each = 20;
    asio::io_context context;
    AsyncPostgresCache one(context.get_executor(), server_pool(3), schema.cache_options());
    AsyncPostgresCache other(context.get_executor(), server_pool(3), schema.cache_options());
    std::set<std::int64_t> counts;
    int taken = 0;
    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto executor = co_await asio::this_coro::executor;
        std::vector<Started<void>> all;
        for (int i = 0; i < callers; ++i) {
            AsyncPostgresCache& cache = i % 2 == 0 ? one : other;
            all.push_back(start(executor, count_and_take(cache, each, counts, taken)));
        }
        for (auto& caller : all) {
            co_await caller.get();
        }
    });
    CHECK(counts.size() == callers * each);
    CHECK(*counts.rbegin() == callers * each);
    CHECK(taken >= 1);
    CHECK(one.statistics().puts + other.statistics().puts ==
          static_cast<std::uint64_t>(callers * each + taken + (schema.has("lock") ? 1 : 0)));
}

TEST_CASE("Operations on one key open the spans of what they do") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    auto options = schema.cache_options();
    options.instrumentations = {std::make_shared<SpyInstrumentation>(journal)};
    const auto cache = make_cache(flavour, options, server_pool());
    cache->put_if_absent("a", 1, 1h);
    cache->put_if_absent("a", 1, 1h);
    cache->increment("n", 1, 1h);
    cache->take("a");
    cache->take("a");
    cache->expires_in("n");
    CHECK(journal->count(" put open") == 3);
    CHECK(journal->count(" put put ") == 2);
    CHECK(journal->count(" get open") == 3);
    CHECK(journal->count(" close") == 6);
}
