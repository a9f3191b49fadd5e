// get_or_create in coroutines: who loads, who waits, and what is stored.

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <functional>
#include <stdexcept>

#include <psycache/psycache.hpp>

#include "support/run_coro.hpp"
#include "support/schema.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A loader that counts its calls, and ends when it is told.
class SlowLoader {
  public:
    explicit SlowLoader(asio::io_context& context) : gate_(context, Clock::time_point::max()) {}

    asio::awaitable<int> load() {
        const int number = ++calls;
        ++running;
        try {
            while (!open_) {
                const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
                if (state.cancelled() != asio::cancellation_type::none) {
                    throw boost::system::system_error(asio::error::operation_aborted);
                }
                boost::system::error_code error;
                co_await gate_.async_wait(asio::redirect_error(asio::use_awaitable, error));
            }
        } catch (...) {
            ++cancelled;
            --running;
            throw;
        }
        --running;
        if (fails) {
            throw std::runtime_error("the loader has failed");
        }
        co_return number;
    }
    auto function() {
        return [this] { return load(); };
    }
    void open() {
        open_ = true;
        gate_.cancel();
    }

    int calls = 0;
    int running = 0;
    int cancelled = 0;
    bool fails = false;

  private:
    asio::steady_timer gate_;
    bool open_ = false;
};

/// A cache of a process of its own, as far as leases are concerned.
struct Process {
    explicit Process(const TestSchema& schema) {
        CacheOptions options = schema.cache_options();
        options.instrumentations = {told};
        cache.emplace(context.get_executor(), server_pool(2), options);
        loader.emplace(context);
    }

    template <class F>
    auto run(F coro) {
        return run_coro(context, std::move(coro));
    }
    Started<int> start(CreateOptions options = CreateOptions(1h), const std::string& key = "key") {
        return test::start(context.get_executor(),
                           cache->get_or_create<int>(key, options, loader->function()));
    }
    /// Runs it on until something is so.
    bool until(const std::function<bool()>& condition) {
        const auto end = Clock::now() + patience;
        context.restart();
        while (!condition() && Clock::now() < end) {
            context.run_one_for(5ms);
            if (context.stopped()) {
                context.restart();
            }
        }
        return condition();
    }
    /// Runs it on for a while.
    void idle(Milliseconds time) {
        const auto end = Clock::now() + time;
        static_cast<void>(until([&] { return Clock::now() >= end; }));
    }
    CacheStatistics statistics() const { return cache->statistics(); }

    std::shared_ptr<LoadTally> told = std::make_shared<LoadTally>();
    asio::io_context context;
    std::optional<AsyncPostgresCache> cache;
    std::optional<SlowLoader> loader;
};

using Words = std::vector<std::string>;

/// Whether any process may load the key, as the table has it.
bool has_stub(TestSchema& schema, const std::string& key = "key") {
    return schema.rows("key = '" + key +
                       "' AND expires_at < now() AND value ? 'psycache load lease'") == 1;
}

int result_of(Process& process, Started<int>& started) {
    return process.run([&]() -> asio::awaitable<int> { co_return co_await started.get(); });
}
Failure failure_of(Process& process, Started<int>& started) {
    return process.run([&]() -> asio::awaitable<Failure> { co_return co_await started.failure(); });
}

/// A loader that has its value at once.
auto at_once(int value) {
    return [value]() -> asio::awaitable<int> { co_return value; };
}

CreateOptions stale_after(Duration ttl, Duration stale_for) {
    CreateOptions options(ttl);
    options.stale_for = stale_for;
    options.early = 0;
    return options;
}

/// Lets an entry have so much left of its time to live.
void set_left(TestSchema& schema, const std::string& left) {
    schema.sql().exec("UPDATE " + schema.table() +
                      " SET expires_at = statement_timestamp() + interval '" + left +
                      "' WHERE key = 'key'");
}

}  // namespace

TEST_CASE("A missing value is loaded once, stored, and found by all") {
    TestSchema schema;
    Process process(schema);
    std::vector<Started<int>> callers;
    for (int i = 0; i < 200; ++i) {
        callers.push_back(process.start());
    }
    REQUIRE(process.until([&] { return process.loader->running == 1; }));
    CHECK(has_stub(schema));
    process.loader->open();
    for (auto& caller : callers) {
        CHECK(result_of(process, caller) == 1);
    }
    CHECK(process.loader->calls == 1);
    CHECK(schema.expires_in("key") > 3500);
    auto later = process.start();
    CHECK(result_of(process, later) == 1);
    CHECK(process.loader->calls == 1);
    const auto statistics = process.statistics();
    CHECK(statistics.loads == 1);
    CHECK(statistics.load_joins == 199);
    CHECK(statistics.puts == 1);
    CHECK(statistics.hits == 1);
    CHECK(statistics.misses == 200);
    CHECK(statistics.statements < 20);
    CHECK(schema.rows() == 1);
    CHECK(process.told->words() == Words{"stored for 200"});
    CHECK(process.told->last().took > 0s);
    CHECK(process.told->last().waited == 0s);
}

TEST_CASE("Any type that converts can be loaded, also nothing") {
    TestSchema schema;
    Process process(schema);
    const auto words = [&] {
        return process.run(process.cache->get_or_create<Words>("words", CreateOptions(1h),
                                                               []() -> asio::awaitable<Words> {
                                                                   Words loaded;
                                                                   loaded.emplace_back("a");
                                                                   co_return loaded;
                                                               }));
    };
    CHECK(words() == Words{"a"});
    CHECK(words() == Words{"a"});
    int calls = 0;
    const auto nothing = [&] {
        return process.run(process.cache->get_or_create<std::optional<int>>(
            "nothing", CreateOptions(1h), [&]() -> asio::awaitable<std::optional<int>> {
                ++calls;
                co_return std::nullopt;
            }));
    };
    CHECK(nothing() == std::nullopt);
    CHECK(nothing() == std::nullopt);
    CHECK(calls == 2);
    CHECK(process.until([&] { return !schema.has("nothing"); }));
    // What cannot be copied is a loader, too.
    auto only = std::make_unique<int>(7);
    CHECK(process.run(process.cache->get_or_create<int>(
              "moved", CreateOptions(1h),
              [only = std::move(only)]() -> asio::awaitable<int> { co_return *only; })) == 7);
    const Failure wrong = process.run([&]() -> asio::awaitable<Failure> {
        auto call = process.cache->get_or_create<int>("words", CreateOptions(1h), at_once(1));
        co_return co_await test::failure_of(std::move(call));
    });
    CHECK(wrong.code() == Errc::unreadable_value);
}

TEST_CASE(
    "What a loader throws reaches all of its callers as itself, and is not tried again at once") {
    TestSchema schema;
    Process process(schema);
    process.loader->fails = true;
    CreateOptions options(1h);
    options.retry_after_error = 300ms * slowness;
    std::vector<Started<int>> callers;
    for (int i = 0; i < 3; ++i) {
        callers.push_back(process.start(options));
    }
    REQUIRE(process.until([&] { return process.loader->running == 1; }));
    process.loader->open();
    for (auto& caller : callers) {
        CHECK_THROWS_WITH(result_of(process, caller), "the loader has failed");
    }
    auto soon = process.start(options);
    CHECK_THROWS_WITH(result_of(process, soon), "the loader has failed");
    CHECK(process.loader->calls == 1);
    // Another process waits for as long.
    Process other(schema);
    other.loader->open();
    auto elsewhere = other.start(options);
    CHECK(result_of(other, elsewhere) == 1);
    CHECK(other.statistics().load_waits == 1);
    CHECK(process.statistics().load_failures == 1);
    CHECK(process.told->words() == Words{"failed for 3"});
    CHECK(other.told->words() == Words{"stored for 1"});
    CHECK(other.told->last().waited > 50ms);
}

TEST_CASE("Callers leave one by one, and the loader is cancelled with the last one") {
    TestSchema schema;
    Process process(schema);
    std::vector<Started<int>> callers;
    for (int i = 0; i < 3; ++i) {
        callers.push_back(process.start());
    }
    REQUIRE(process.until([&] { return process.loader->running == 1; }));
    // The one that has started it is the first to leave.
    callers[0].cancel();
    CHECK(failure_of(process, callers[0]).code() == asio::error::operation_aborted);
    CreateOptions impatient(1h);
    impatient.timeout = 50ms;
    auto late = process.start(impatient);
    const Failure timed_out = failure_of(process, late);
    CHECK(timed_out.code() == Errc::timed_out);
    CHECK(process.loader->cancelled == 0);
    SECTION("somebody stays") {
        process.loader->open();
        CHECK(result_of(process, callers[1]) == 1);
        CHECK(result_of(process, callers[2]) == 1);
        CHECK(process.loader->cancelled == 0);
    }
    SECTION("nobody stays") {
        callers[1].cancel();
        callers[2].cancel();
        CHECK(failure_of(process, callers[2]).code() == asio::error::operation_aborted);
        CHECK(process.until([&] { return process.loader->cancelled == 1; }));
        CHECK(process.until([&] { return schema.rows() == 0; }));
        // The next one begins anew.
        process.loader->open();
        auto next = process.start();
        CHECK(result_of(process, next) == 2);
        CHECK(process.told->words() == Words{"abandoned for 0", "stored for 1"});
    }
}

TEST_CASE("A loader may use the cache, and may throw before there is anything to await") {
    TestSchema schema;
    Process process(schema);
    auto outer = [&]() -> asio::awaitable<int> {
        auto inner = process.cache->get_or_create<int>("inner", CreateOptions(1h), at_once(20));
        const int value = co_await std::move(inner);
        co_await process.cache->put("beside", value, 1h);
        co_return value + 1;
    };
    CHECK(process.run(process.cache->get_or_create<int>("outer", CreateOptions(1h), outer)) == 21);
    CHECK(process.run(process.cache->get<int>("inner")) == 20);
    CHECK(process.run(process.cache->get<int>("beside")) == 20);
    struct Plain {
        asio::awaitable<int> operator()() const { return fail(); }
        [[noreturn]] static asio::awaitable<int> fail() { throw std::runtime_error("at once"); }
    };
    CHECK_THROWS_WITH(
        process.run(process.cache->get_or_create<int>("plain", CreateOptions(1h), Plain())),
        "at once");
}

TEST_CASE("A loader that does not heed its cancellation holds up nobody, and is not stored") {
    TestSchema schema;
    Process process(schema);
    asio::steady_timer gate(process.context, Clock::time_point::max());
    bool began = false;
    bool ended = false;
    auto stubborn = [&]() -> asio::awaitable<int> {
        co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
        co_await asio::this_coro::throw_if_cancelled(false);
        began = true;
        boost::system::error_code error;
        co_await gate.async_wait(asio::redirect_error(asio::use_awaitable, error));
        ended = true;
        co_return 100;
    };
    auto first = test::start(process.context.get_executor(),
                             process.cache->get_or_create<int>("key", CreateOptions(1h), stubborn));
    REQUIRE(process.until([&] { return began; }));
    first.cancel();
    CHECK(failure_of(process, first).code() == asio::error::operation_aborted);
    process.loader->open();
    auto second = process.start();
    CHECK(result_of(process, second) == 1);
    gate.cancel();
    CHECK(process.until([&] { return ended; }));
    process.idle(50ms);
    auto third = process.start();
    CHECK(result_of(process, third) == 1);
}

TEST_CASE("One of several processes loads a value") {
    TestSchema schema;
    Process one(schema);
    Process other(schema);
    auto first = one.start();
    REQUIRE(one.until([&] { return one.loader->running == 1; }));
    std::vector<Started<int>> waiting;
    for (int i = 0; i < 50; ++i) {
        waiting.push_back(other.start());
    }
    REQUIRE(other.until([&] { return other.statistics().load_waits == 1; }));
    other.idle(200ms);
    CHECK(other.loader->calls == 0);
    // It looks now and then, once for all.
    CHECK(other.statistics().statements < 30);
    one.loader->open();
    CHECK(result_of(one, first) == 1);
    for (auto& caller : waiting) {
        CHECK(result_of(other, caller) == 1);
    }
    CHECK(other.loader->calls == 0);
    CHECK(other.statistics().loads == 0);
    CHECK(other.told->words() == Words{"elsewhere for 50"});
    CHECK(other.told->last().waited > 100ms);
}

TEST_CASE("A lease that has ended is taken over, and what comes late is not stored") {
    TestSchema schema;
    Process one(schema);
    Process other(schema);
    CreateOptions options(1h);
    options.load_lease = 200ms;
    auto first = one.start(options);
    REQUIRE(one.until([&] { return one.loader->running == 1; }));
    other.loader->calls = 10;
    other.loader->open();
    auto second = other.start();
    CHECK(result_of(other, second) == 11);
    one.loader->open();
    // Its caller wants a value, though another one is stored.
    CHECK(result_of(one, first) == 1);
    CHECK(one.statistics().late_loads == 1);
    auto third = one.start();
    CHECK(result_of(one, third) == 11);
    CHECK(one.told->words() == Words{"late for 1"});
}

TEST_CASE("A lease that ends is no reason to drop what nobody else has loaded") {
    TestSchema schema;
    Process process(schema);
    CreateOptions options(1h);
    options.load_lease = 20ms;
    auto first = process.start(options);
    REQUIRE(process.until([&] { return process.loader->running == 1; }));
    process.idle(50ms);
    process.loader->open();
    CHECK(result_of(process, first) == 1);
    CHECK(process.statistics().late_loads == 0);
    CHECK(schema.expires_in("key") > 3500);
}

TEST_CASE("With Scope::process nobody waits for another process, and one value is stored") {
    TestSchema schema;
    Process one(schema);
    Process other(schema);
    CreateOptions options(1h);
    options.scope = Scope::process;
    auto first = one.start(options);
    REQUIRE(one.until([&] { return one.loader->running == 1; }));
    other.loader->calls = 10;
    auto second = other.start(options);
    REQUIRE(other.until([&] { return other.loader->running == 1; }));
    one.loader->open();
    CHECK(result_of(one, first) == 1);
    other.loader->open();
    CHECK(result_of(other, second) == 11);
    CHECK(one.statistics().late_loads == 1);
    auto third = one.start(options);
    CHECK(result_of(one, third) == 11);
}

TEST_CASE("What is loaded is not stored when the entry has changed meanwhile") {
    TestSchema schema(Table::tagged);
    Process process(schema);
    CreateOptions options(1h);
    options.stale_for = 1min;
    options.early = 0;
    options.tags = {"tag"};
    const bool renewal = GENERATE(false, true);
    CAPTURE(renewal);
    if (renewal) {
        // It was stored without the tag.
        process.run(process.cache->put("key", 0, 30s));
    }
    auto loading = process.start(options);
    REQUIRE(process.until([&] { return process.loader->running == 1; }));
    if (!renewal) {
        CHECK(has_stub(schema));
    }
    std::optional<int> after;
    const auto python = [&](const std::string& sql) { schema.sql().exec(sql); };
    Psql own;
    const auto in_transaction = [&](const auto& change) {
        own.exec("BEGIN");
        TransactionCache cache(own.native(), schema.cache_options());
        change(cache);
        own.exec("COMMIT");
    };
    const std::vector<std::function<void()>> changes{
        [&] {
            process.run(process.cache->put("key", 5, 1h));
            after = 5;
        },
        [&] { process.run(process.cache->remove("key")); },
        [&] { process.run(process.cache->remove_prefix("ke")); },
        [&] { process.run(process.cache->remove_tag("tag")); },
        [&] { process.run(process.cache->flush()); },
        [&] { process.run(process.cache->clear()); },
        [&] { python("DELETE FROM " + schema.table() + " WHERE key = 'key'"); },
        [&] {
            python("INSERT INTO " + schema.table() +
                   " (key, value, expires_at) VALUES ('key', '6', now() + interval '1 hour')"
                   " ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at ="
                   " excluded.expires_at");
            after = 6;
        },
        [&] { in_transaction([](TransactionCache& cache) { cache.remove("key"); }); },
        [&] { in_transaction([](TransactionCache& cache) { cache.remove_tag("tag"); }); },
        [&] {
            in_transaction([](TransactionCache& cache) { cache.put("key", 7, 1h); });
            after = 7;
        },
    };
    const auto which = GENERATE(range(std::size_t{0}, std::size_t{11}));
    CAPTURE(which);
    changes[which]();
    process.loader->open();
    CHECK(result_of(process, loading) == (renewal ? 0 : 1));
    REQUIRE(process.until([&] { return process.statistics().late_loads == 1; }));
    CHECK(process.run(process.cache->get<int>("key")) == after);
}

TEST_CASE("Who comes after a change does not wait for what was begun before it") {
    TestSchema schema;
    Process process(schema);
    auto before = process.start();
    REQUIRE(process.until([&] { return process.loader->running == 1; }));
    auto beside = process.start();
    REQUIRE(process.until([&] { return process.statistics().load_joins == 1; }));
    SECTION("made by this process") {
        process.run(process.cache->remove("key"));
    }
    SECTION("made by another one") {
        schema.sql().exec("DELETE FROM " + schema.table());
    }
    std::vector<Started<int>> after;
    for (int i = 0; i < 5; ++i) {
        after.push_back(process.start());
    }
    REQUIRE(process.until([&] { return process.loader->running == 2; }));
    process.loader->open();
    CHECK(result_of(process, before) == 1);
    CHECK(result_of(process, beside) == 1);
    for (auto& caller : after) {
        CHECK(result_of(process, caller) == 2);
    }
    CHECK(process.loader->calls == 2);
    CHECK(process.run(process.cache->get<int>("key")) == 2);
}

TEST_CASE("What rolls back has changed nothing: the loaded value is stored") {
    TestSchema schema;
    Process process(schema);
    auto loading = process.start();
    REQUIRE(process.until([&] { return process.loader->running == 1; }));
    Psql own;
    own.exec("BEGIN");
    TransactionCache inside(own.native(), schema.cache_options());
    inside.remove("key");
    process.loader->open();
    process.idle(50ms);
    CHECK_FALSE(loading.done());
    own.exec("ROLLBACK");
    CHECK(result_of(process, loading) == 1);
    CHECK(process.run(process.cache->get<int>("key")) == 1);
}

TEST_CASE("A stub is a miss for every reader, and no cleanup but a foreign one takes it") {
    TestSchema schema;
    Process process(schema);
    Process other(schema);
    auto loading = process.start();
    REQUIRE(process.until([&] { return process.loader->running == 1; }));
    REQUIRE(has_stub(schema));
    CHECK(other.run(other.cache->get<json::value>("key")) == std::nullopt);
    CHECK_FALSE(other.run(other.cache->replace("key", 1, 1h)));
    CHECK_FALSE(other.run(other.cache->expires_in("key")));
    CHECK(other.run(other.cache->cleanup_expired()) == 0);
    CHECK(has_stub(schema));
    SECTION("it is left alone") {
        process.loader->open();
        CHECK(result_of(process, loading) == 1);
        CHECK(process.statistics().late_loads == 0);
    }
    SECTION("as psycache for Python cleans up") {
        schema.sql().exec("DELETE FROM " + schema.table() + " WHERE expires_at < now()");
        // Another process loads then, and one of the two is stored.
        other.loader->calls = 10;
        other.loader->open();
        auto second = other.start();
        CHECK(result_of(other, second) == 11);
        process.loader->open();
        CHECK(result_of(process, loading) == 1);
        CHECK(process.statistics().late_loads == 1);
        CHECK(process.run(process.cache->get<int>("key")) == 11);
    }
}

TEST_CASE("A stale value is answered at once while one caller has it loaded anew") {
    TestSchema schema;
    Process one(schema);
    Process other(schema);
    const auto options = stale_after(1h, 10min);
    one.run(one.cache->put("key", 0, 1h));
    set_left(schema, "5 minutes");
    for (int i = 0; i < 20; ++i) {
        auto caller = one.start(options);
        CHECK(result_of(one, caller) == 0);
    }
    REQUIRE(one.until([&] { return one.loader->running == 1; }));
    auto elsewhere = other.start(options);
    CHECK(result_of(other, elsewhere) == 0);
    other.idle(100ms);
    CHECK(other.loader->calls == 0);
    CHECK(one.loader->calls == 1);
    CHECK(one.statistics().stale_hits == 20);
    one.loader->open();
    REQUIRE(one.until([&] { return schema.expires_in("key") > 4000; }));
    auto fresh = other.start(options);
    CHECK(result_of(other, fresh) == 1);
    // Its lease is given back.
    CHECK(one.until([&] { return schema.rows() == 1; }));
    CHECK(one.told->words().front() == "stale");
    CHECK(one.told->words().back() == "stored renewal for 0");
    CHECK(one.told->words().size() == 21);
    set_left(schema, "5 minutes");
    other.loader->calls = 10;
    other.loader->open();
    other.idle(150ms);
    auto again = other.start(options);
    CHECK(result_of(other, again) == 1);
    CHECK(other.until([&] { return schema.expires_in("key") > 4000; }));
}

TEST_CASE("A renewal that another process does is no answer to those who have joined it") {
    TestSchema schema;
    Process one(schema);
    Process other(schema);
    const auto options = stale_after(1h, 10min);
    one.run(one.cache->put("key", 0, 1h));
    set_left(schema, "400 milliseconds");
    auto first = one.start(options);
    CHECK(result_of(one, first) == 0);
    REQUIRE(one.until([&] { return one.loader->running == 1; }));
    // The other one asks for the lease, and is not answered until the entry has expired.
    Psql lock;
    lock.exec("BEGIN; SELECT FROM " + schema.table() + " WHERE key <> 'key' FOR UPDATE");
    auto stale = other.start(options);
    CHECK(result_of(other, stale) == 0);
    other.idle(500ms);
    other.loader->calls = 10;
    other.loader->open();
    auto joins = test::start(other.context.get_executor(),
                             other.cache->get_or_create<std::optional<int>>(
                                 "key", options, [&]() -> asio::awaitable<std::optional<int>> {
                                     auto loading = other.loader->load();
                                     const int value = co_await std::move(loading);
                                     co_return value;
                                 }));
    REQUIRE(other.until([&] { return other.statistics().load_joins == 1; }));
    lock.exec("COMMIT");
    CHECK(other.run([&]() -> asio::awaitable<std::optional<int>> {
        co_return co_await joins.get();
    }) == 11);
    one.loader->open();
    CHECK(one.until([&] { return one.statistics().late_loads == 1; }));
}

TEST_CASE("Who gets what, and who loads") {
    // The table of the reference. "soon" is within retry_after_error after a loader has failed.
    struct Row {
        const char* what;
        const char* left;  // of the entry; "" for none
        bool failed;       // the last load
        bool stale_on_error;
        const char* answer;  // "old", "new", or "error"
        int loads;           // that begin because of the call
    };
    const auto row = GENERATE(values<Row>({
        {"fresh", "30 minutes", false, true, "old", 0},
        {"fresh, failed", "30 minutes", true, true, "old", 0},
        {"stale", "5 minutes", false, true, "old", 1},
        {"stale, failed", "5 minutes", true, true, "old", 0},
        {"stale, failed, not wanted then", "5 minutes", true, false, "error", 0},
        {"expired", "-1 second", false, true, "new", 1},
        {"expired, failed", "-1 second", true, true, "error", 0},
        {"absent", "", false, true, "new", 1},
        {"absent, failed", "", true, true, "error", 0},
    }));
    CAPTURE(row.what);
    TestSchema schema;
    Process process(schema);
    auto options = stale_after(1h, 10min);
    options.retry_after_error = 1min;
    options.stale_on_error = row.stale_on_error;
    if (row.failed) {
        process.loader->fails = true;
        process.loader->open();
        auto failing = process.start(options);
        CHECK_THROWS_WITH(result_of(process, failing), "the loader has failed");
        process.loader->fails = false;
        process.idle(20ms);
    }
    process.loader->open();
    process.loader->calls = 0;
    if (*row.left != '\0') {
        process.run(process.cache->put("key", 100, 1h));
        set_left(schema, row.left);
    }
    auto caller = process.start(options);
    if (std::string_view(row.answer) == "error") {
        CHECK_THROWS_WITH(result_of(process, caller), "the loader has failed");
    } else {
        CHECK(result_of(process, caller) == (std::string_view(row.answer) == "old" ? 100 : 1));
    }
    process.idle(50ms);
    CHECK(process.loader->calls == row.loads);
}

TEST_CASE("A value that takes long is loaded anew before it is stale") {
    TestSchema schema;
    Process process(schema);
    CreateOptions options(1h);
    options.early = 1e6;  // as if it had taken a million times as long
    auto first = process.start(options);
    REQUIRE(process.until([&] { return process.loader->running == 1; }));
    process.idle(30ms);
    process.loader->open();
    CHECK(result_of(process, first) == 1);
    // Each call throws the dice.
    CHECK(process.until([&] {
        auto hit = process.start(options);
        return result_of(process, hit) >= 1 && process.loader->calls >= 2;
    }));
    CHECK(process.until([&] {
        auto third = process.start(CreateOptions(1h));
        return result_of(process, third) >= 2;
    }));
    CHECK(process.statistics().stale_hits == 0);
}

TEST_CASE("While the server is away the loader answers, once for all callers") {
    TestSchema schema;
    asio::io_context context;
    CacheOptions options;
    options.on_outage = OnOutage::miss;
    PoolOptions pool;
    pool.dsn = "host=/nowhere";
    AsyncPostgresCache cache(context.get_executor(), pool, options);
    SlowLoader loader(context);
    std::vector<Started<int>> callers;
    for (int i = 0; i < 10; ++i) {
        callers.push_back(
            test::start(context.get_executor(),
                        cache.get_or_create<int>("key", CreateOptions(1h), loader.function())));
    }
    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto runs = [&] { return loader.running == 1; };
        CHECK(co_await until(runs));
        const auto waits = [&] { return cache.statistics().load_joins == 9; };
        CHECK(co_await until(waits));
        loader.open();
        for (auto& caller : callers) {
            const int value = co_await caller.get();
            CHECK(value == 1);
        }
    });
    CHECK(loader.calls == 1);

    options.on_outage = OnOutage::raise;
    pool.acquire_timeout = 300ms;
    AsyncPostgresCache raising(context.get_executor(), pool, options);
    const Failure failure = run_coro(context, [&]() -> asio::awaitable<Failure> {
        auto call = raising.get_or_create<int>("key", CreateOptions(1h), loader.function());
        co_return co_await test::failure_of(std::move(call));
    });
    CHECK(failure.code() == Condition::unavailable);
    CHECK(loader.calls == 1);
}

TEST_CASE("get_or_create refuses options that make no sense, and keys that cannot be stored") {
    TestSchema schema;
    Process process(schema);
    const auto with = [&](const std::function<void(CreateOptions&)>& change) {
        CreateOptions options(1h);
        change(options);
        auto call = process.start(options);
        return result_of(process, call);
    };
    CHECK_THROWS_WITH(with([](auto& options) { options.ttl = 0s; }), "ttl must be positive");
    CHECK_THROWS_WITH(with([](auto& options) { options.stale_for = -1s; }),
                      "stale_for must not be negative");
    CHECK_THROWS_WITH(with([](auto& options) { options.load_lease = 0s; }),
                      Catch::Contains("load_lease must be positive"));
    CHECK_THROWS_WITH(with([](auto& options) { options.load_lease = 25h; }),
                      "load_lease must be at most a day");
    CHECK_THROWS_WITH(with([](auto& options) { options.early = -1; }),
                      Catch::Contains("early must be between"));
    CHECK_THROWS_WITH(with([](auto& options) { options.retry_after_error = -1s; }),
                      "retry_after_error must not be negative");
    CHECK_THROWS_WITH(with([](auto& options) { options.timeout = 0s; }),
                      Catch::Contains("timeout must be positive"));
    CHECK_THROWS_WITH(with([](auto& options) { options.tags = {""}; }),
                      Catch::Contains("get_or_create") && Catch::Contains("tag"));
    auto bad = process.start(CreateOptions(1h), "\xFF");
    CHECK(failure_of(process, bad).code() == Errc::invalid_key);
    CHECK(process.loader->calls == 0);
    CHECK(process.statistics().statements == 0);
}

TEST_CASE(
    "A context may be destroyed while values are loaded, and a handle while its loader runs") {
    TestSchema schema;
    {
        Process process(schema);
        std::vector<Started<int>> callers;
        for (int i = 0; i < 5; ++i) {
            callers.push_back(process.start());
        }
        REQUIRE(process.until([&] { return process.loader->running == 1; }));
        process.loader->open();
    }
    Process process(schema);
    schema.sql().exec("DELETE FROM " + schema.table());
    const int value = process.run([&]() -> asio::awaitable<int> {
        auto destroys = [&]() -> asio::awaitable<int> {
            process.cache.reset();
            co_return 3;
        };
        auto call = process.cache->get_or_create<int>("key", CreateOptions(1h), destroys);
        co_return co_await std::move(call);
    });
    CHECK(value == 3);
    CHECK(schema.has("key"));
}

namespace {

using Numbers = std::vector<int>;
using Names = std::vector<std::string>;

/// Loads many values: the number at the end of each key, and what was asked for.
struct ManyLoader {
    explicit ManyLoader(asio::io_context& context) : gate(context, Clock::time_point::max()) {}

    auto function() {
        return [this](Names keys) { return load(std::move(keys)); };
    }
    asio::awaitable<Numbers> load(Names keys) {
        asked.push_back(keys);
        if (!open) {
            boost::system::error_code error;
            co_await gate.async_wait(asio::redirect_error(asio::use_awaitable, error));
        }
        Numbers values;
        for (const auto& key : keys) {
            values.push_back(std::stoi(key.substr(1)) + base);
        }
        values.resize(values.size() - (forgets ? 1 : 0));
        co_return values;
    }

    asio::steady_timer gate;
    bool open = true;
    bool forgets = false;
    int base = 0;
    std::vector<Names> asked;
};

Names names(int from, int to) {
    Names all;
    for (int i = from; i < to; ++i) {
        all.push_back("k" + std::to_string(i));
    }
    return all;
}

}  // namespace

TEST_CASE("Of many keys those that are missing are loaded by one call of the loader") {
    TestSchema schema;
    Process process(schema);
    ManyLoader loader(process.context);
    const auto get = [&](const Names& keys, const CreateOptions& options = CreateOptions(1h)) {
        return process.run(
            process.cache->get_or_create_many<int>(keys, options, loader.function()));
    };
    process.run(process.cache->put("k1", 101, 1h));
    CHECK(get({"k0", "k1", "k2", "k0"}) == Numbers{0, 101, 2, 0});
    CHECK(loader.asked == std::vector<Names>{{"k0", "k2"}});
    CHECK(get({"k2", "k3"}) == Numbers{2, 3});
    CHECK(loader.asked.back() == Names{"k3"});
    CHECK(get({}) == Numbers{});
    CHECK(loader.asked.size() == 2);

    SECTION("many of them in few statements") {
        const auto before = process.statistics().statements;
        const Names many = names(100, 3100);
        const Numbers values = get(many);
        REQUIRE(values.size() == 3000);
        CHECK(values.front() == 100);
        CHECK(values.back() == 3099);
        CHECK(loader.asked.size() == 3);
        CHECK(process.statistics().statements - before < 3 * 3000 / 50);
        CHECK(schema.rows("expires_at > now() AND NOT value ? 'psycache load lease'") == 3004);
    }
    SECTION("stale ones are answered, and loaded anew by one call, too") {
        schema.sql().exec("UPDATE " + schema.table() +
                          " SET expires_at = statement_timestamp() + interval '5 minutes'");
        loader.base = 1000;
        CHECK(get({"k0", "k2", "k3"}, stale_after(1h, 10min)) == Numbers{0, 2, 3});
        CHECK(process.until([&] { return loader.asked.size() == 3; }));
        CHECK(loader.asked.back() == Names{"k0", "k2", "k3"});
        CHECK(process.until(
            [&] { return schema.rows("expires_at > now() + interval '1 hour'") == 3; }));
        CHECK(get({"k0", "k2", "k3"}) == Numbers{1000, 1002, 1003});
        CHECK(process.until([&] { return schema.rows() == 4; }));
    }
    SECTION("a loader that forgets one is told so, and nothing is stored") {
        loader.forgets = true;
        CHECK_THROWS_WITH(get({"k7", "k8"}), Catch::Contains("asked for 2 values"));
        CHECK_FALSE(process.run(process.cache->get<int>("k7")));
    }
    SECTION("a wrong key is told with its place") {
        const Failure failure = process.run([&]() -> asio::awaitable<Failure> {
            Names keys;
            keys.emplace_back("k9");
            keys.emplace_back("\xFF");
            auto call = process.cache->get_or_create_many<int>(std::move(keys), CreateOptions(1h),
                                                               loader.function());
            co_return co_await test::failure_of(std::move(call));
        });
        CHECK_THAT(failure.what(),
                   Catch::Contains("get_or_create_many") && Catch::Contains("key 1"));
        CHECK(loader.asked.size() == 2);
    }
}

TEST_CASE("Of many keys those that others load are waited for") {
    TestSchema schema;
    Process one(schema);
    Process other(schema);
    ManyLoader first(one.context);
    ManyLoader second(other.context);
    first.open = false;
    second.base = 1000;
    auto loading = test::start(
        one.context.get_executor(),
        one.cache->get_or_create_many<int>(names(0, 3), CreateOptions(1h), first.function()));
    REQUIRE(one.until([&] { return first.asked.size() == 1; }));
    // Of the same process one joins it, of another one waits for it; each loads the rest.
    ManyLoader joins(one.context);
    joins.base = 2000;
    auto joining = test::start(
        one.context.get_executor(),
        one.cache->get_or_create_many<int>(names(2, 5), CreateOptions(1h), joins.function()));
    auto waiting = test::start(
        other.context.get_executor(),
        other.cache->get_or_create_many<int>(names(1, 4), CreateOptions(1h), second.function()));
    REQUIRE(one.until([&] { return joins.asked.size() == 1; }));
    CHECK(joins.asked.front() == Names{"k3", "k4"});
    one.idle(50ms);
    REQUIRE(other.until([&] { return other.statistics().load_waits >= 2; }));
    CHECK(second.asked.empty());
    // A key that somebody else loads is there before all the others.
    auto single = test::start(other.context.get_executor(),
                              other.cache->get_or_create<int>("k3", CreateOptions(1h), at_once(7)));
    CHECK(result_of(other, single) == 2003);
    CHECK_FALSE(loading.done());
    first.open = true;
    first.gate.cancel();
    const auto numbers = [](Process& process, Started<Numbers>& started) {
        return process.run([&]() -> asio::awaitable<Numbers> { co_return co_await started.get(); });
    };
    CHECK(numbers(one, loading) == Numbers{0, 1, 2});
    CHECK(numbers(one, joining) == Numbers{2, 2003, 2004});
    CHECK(numbers(other, waiting) == Numbers{1, 2, 2003});
    CHECK(second.asked.empty());
}

TEST_CASE("A loader of many keys is cancelled when nobody waits for any of them") {
    TestSchema schema;
    Process process(schema);
    asio::steady_timer gate(process.context, Clock::time_point::max());
    int running = 0;
    int cancelled = 0;
    auto slow = [&](Names keys) -> asio::awaitable<Numbers> {
        ++running;
        boost::system::error_code error;
        co_await gate.async_wait(asio::redirect_error(asio::use_awaitable, error));
        const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() != asio::cancellation_type::none) {
            ++cancelled;
            throw boost::system::system_error(error);
        }
        co_return Numbers(keys.size(), 5);
    };
    auto many =
        test::start(process.context.get_executor(),
                    process.cache->get_or_create_many<int>(names(0, 3), CreateOptions(1h), slow));
    REQUIRE(process.until([&] { return running == 1; }));
    auto joined = process.start(CreateOptions(1h), "k1");
    REQUIRE(process.until([&] { return process.statistics().load_joins == 1; }));
    many.cancel();
    CHECK(process.run([&]() -> asio::awaitable<Failure> { co_return co_await many.failure(); })
              .code() == asio::error::operation_aborted);
    process.idle(30ms);
    CHECK(cancelled == 0);
    SECTION("one stays for one of them") {
        gate.cancel();
        CHECK(result_of(process, joined) == 5);
        CHECK(process.until([&] { return schema.rows("expires_at > now()") == 3; }));
    }
    SECTION("nobody stays") {
        joined.cancel();
        CHECK(failure_of(process, joined).code() == asio::error::operation_aborted);
        CHECK(process.until([&] { return cancelled == 1; }));
        CHECK(process.until([&] { return schema.rows() == 0; }));
    }
}
