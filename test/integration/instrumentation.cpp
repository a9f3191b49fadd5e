// What instrumentations are told.

#include <catch2/catch.hpp>
#include <stdexcept>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

using Lines = std::vector<std::string>;

/// Options with spies A, B, ... on one journal.
CacheOptions with_spies(const TestSchema& schema, const std::shared_ptr<Journal>& journal,
                        const std::vector<std::string>& names) {
    auto options = schema.cache_options();
    for (const auto& name : names) {
        options.instrumentations.push_back(std::make_shared<SpyInstrumentation>(journal, name));
    }
    return options;
}

/// The number at the end of the only line that begins with @p start.
std::int64_t number_after(const Journal& journal, const std::string& start) {
    for (const auto& line : journal.lines()) {
        if (line.rfind(start, 0) == 0) {
            return std::stoll(line.substr(start.size()));
        }
    }
    FAIL("no line begins with " << start);
    return 0;
}

/// Throws wherever it can.
class Thrower : public CacheInstrumentation {
  public:
    enum class Where { start, record };
    explicit Thrower(Where where) : where_(where) {}

    std::unique_ptr<CacheGetSpan> start_cache_get_span(const SpanInfo&) override {
        return span<Get>();
    }
    std::unique_ptr<CachePutSpan> start_cache_put_span(const SpanInfo&) override {
        return span<Put>();
    }
    std::unique_ptr<CacheRemoveSpan> start_cache_remove_span(const SpanInfo&) override {
        return span<Remove>();
    }
    std::unique_ptr<CacheFlushSpan> start_cache_flush_span() override { return span<Flush>(); }
    std::unique_ptr<CacheCleanupSpan> start_cache_cleanup_span() override {
        return span<Cleanup>();
    }

  private:
    [[noreturn]] static void fail() { throw std::runtime_error("a provider failed"); }

    struct Get : CacheGetSpan {
        void record_cache_hit(std::size_t) override { fail(); }
        void record_cache_miss() override { fail(); }
        void record_error(const boost::system::error_code&) override { fail(); }
    };
    struct Put : CachePutSpan {
        void record_put(std::size_t) override { fail(); }
        void record_error(const boost::system::error_code&) override { fail(); }
    };
    struct Remove : CacheRemoveSpan {
        void record_removed() override { fail(); }
        void record_error(const boost::system::error_code&) override { throw 5; }
    };
    struct Flush : CacheFlushSpan {
        void record_flush(std::uint64_t) override { fail(); }
    };
    struct Cleanup : CacheCleanupSpan {
        void record_cleanup(std::uint64_t) override { fail(); }
    };

    template <class T>
    std::unique_ptr<T> span() const {
        if (where_ == Where::start) {
            fail();
        }
        return std::make_unique<T>();
    }

    Where where_;
};

}  // namespace

TEST_CASE("Every call opens a span per provider in order and closes them in reverse") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    const auto cache =
        make_cache(flavour, with_spies(schema, journal, {"A", "B", "C"}), server_pool());

    cache->get("absent");
    CHECK(journal->lines() == Lines{"A get open key=absent name=", "B get open key=absent name=",
                                    "C get open key=absent name=", "A get miss", "B get miss",
                                    "C get miss", "C get close", "B get close", "A get close"});
    journal->clear();
    cache->remove("absent");
    CHECK(journal->lines() ==
          Lines{"A remove open key=absent name=", "B remove open key=absent name=",
                "C remove open key=absent name=", "A remove removed", "B remove removed",
                "C remove removed", "C remove close", "B remove close", "A remove close"});
    journal->clear();
    cache->put("key", numbered(1), 1h);
    auto lines = journal->lines();
    REQUIRE(lines.size() == 9);
    CHECK(lines[0] == "A put open key=key name=");
    CHECK(lines[3].rfind("A put put ", 0) == 0);
    CHECK(lines[5].rfind("C put put ", 0) == 0);
    CHECK(lines[8] == "A put close");
    journal->clear();
    cache->flush();
    CHECK(journal->lines() == Lines{"A flush open", "B flush open", "C flush open",
                                    "A flush flushed 1", "B flush flushed 1", "C flush flushed 1",
                                    "C flush close", "B flush close", "A flush close"});
    journal->clear();
    cache->cleanup();
    CHECK(journal->lines() == Lines{"A cleanup open", "B cleanup open", "C cleanup open",
                                    "A cleanup cleaned 0", "B cleanup cleaned 0",
                                    "C cleanup cleaned 0", "C cleanup close", "B cleanup close",
                                    "A cleanup close"});
}

TEST_CASE("Spans are closed in reverse also when the call fails") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    const auto journal = std::make_shared<Journal>();
    const auto cache = make_cache(flavour, with_spies(schema, journal, {"A", "B"}), server_pool());
    const auto error = " error psycache:" + std::to_string(static_cast<int>(Errc::table_missing));
    const auto expect = [&](const std::string& operation, const std::string& info) {
        CHECK(journal->lines() == Lines{"A " + operation + " open" + info,
                                        "B " + operation + " open" + info, "A " + operation + error,
                                        "B " + operation + error, "B " + operation + " close",
                                        "A " + operation + " close"});
        journal->clear();
    };
    CHECK(failure_of([&] { cache->get("key"); }));
    expect("get", " key=key name=");
    CHECK(failure_of([&] { cache->put("key", numbered(1), 1h); }));
    expect("put", " key=key name=");
    CHECK(failure_of([&] { cache->remove("key"); }));
    expect("remove", " key=key name=");
    CHECK(failure_of([&] { cache->flush(); }));
    expect("flush", "");
    CHECK(failure_of([&] { cache->cleanup(); }));
    expect("cleanup", "");
}

TEST_CASE("A hit and a put are told the stored size") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    const auto cache = make_cache(flavour, with_spies(schema, journal, {"A"}), server_pool());
    for (const auto size : {0u, 10u, 500u, 1500u}) {
        CAPTURE(size);
        json::object value;
        value["text"] = std::string(size, 'x');
        journal->clear();
        cache->put("key", value, 1h);
        cache->get("key");
        const auto stored =
            schema.sql().number("SELECT pg_column_size(value) FROM " + schema.table());
        CHECK(number_after(*journal, "A get hit ") == stored);
        // At the time of the statement the row's own header may be longer than what is stored.
        CHECK(number_after(*journal, "A put put ") >= stored);
        CHECK(number_after(*journal, "A put put ") <= stored + 8);
    }
}

TEST_CASE("A hit on a large compressed value is told its compressed size") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    const auto cache = make_cache(flavour, with_spies(schema, journal, {"A"}), server_pool());
    json::object value;
    value["text"] = std::string(100000, 'x');
    cache->put("key", value, 1h);
    cache->get("key");
    const auto stored = schema.sql().number("SELECT pg_column_size(value) FROM " + schema.table());
    REQUIRE(stored < 50000);
    CHECK(number_after(*journal, "A get hit ") == stored);
}

TEST_CASE("Get and put carry their span name") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    const auto cache = make_cache(flavour, with_spies(schema, journal, {"A"}), server_pool());
    cache->put("key", numbered(1), 1h, "store user");
    cache->get("key", "load user");
    cache->get("key");
    const auto lines = journal->lines();
    REQUIRE(lines.size() == 9);
    CHECK(lines[0] == "A put open key=key name=store user");
    CHECK(lines[3] == "A get open key=key name=load user");
    CHECK(lines[6] == "A get open key=key name=");
}

TEST_CASE("An expired entry is told as a miss, remove tells that it was done either way") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    const auto cache = make_cache(flavour, with_spies(schema, journal, {"A"}), server_pool());
    cache->put("key", numbered(1), -1s);
    journal->clear();
    cache->get("key");
    cache->remove("key");
    cache->remove("key");
    CHECK(journal->count("A get miss") == 1);
    CHECK(journal->count("A remove removed") == 2);
    CHECK_FALSE(journal->contains("hit"));
    CHECK_FALSE(journal->contains("error"));
}

TEST_CASE("Flush and cleanup tell how many rows, all batches together") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    const auto cache = make_cache(flavour, with_spies(schema, journal, {"A"}), server_pool());
    schema.insert_many("expired", 2500, "'-infinity'");
    schema.insert_many("live", 7, "'infinity'");
    cache->cleanup();
    cache->flush();
    CHECK(journal->lines() == Lines{"A cleanup open", "A cleanup cleaned 2500", "A cleanup close",
                                    "A flush open", "A flush flushed 7", "A flush close"});
}

TEST_CASE("A refused argument is told as an error of its span, if it opens one") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    const auto cache = make_cache(flavour, with_spies(schema, journal, {"A"}), server_pool());
    CHECK(failure_of([&] { cache->get("\xFF"); }).code() == Errc::invalid_key);
    CHECK(journal->lines().size() ==
          journal->count(" open") + journal->count(" error") + journal->count(" close"));
    CHECK(journal->count(" open") == 1);
    CHECK(journal->count(" error psycache:" +
                         std::to_string(static_cast<int>(Errc::invalid_key))) == 1);
    CHECK(journal->count(" close") == 1);
}

TEST_CASE("Providers without spans of their own do nothing") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    auto options = with_spies(schema, journal, {"A", "B"});
    options.instrumentations.insert(options.instrumentations.begin() + 1,
                                    std::make_shared<CacheInstrumentation>());
    const auto cache = make_cache(flavour, options, server_pool());
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    cache->remove("key");
    cache->cleanup();
    cache->flush();
    CHECK(journal->count(" open") == 10);
    CHECK(journal->count(" close") == 10);
}

TEST_CASE("Spans that record nothing of their own do nothing") {
    class Plain : public CacheInstrumentation {
      public:
        std::unique_ptr<CacheGetSpan> start_cache_get_span(const SpanInfo&) override {
            return std::make_unique<CacheGetSpan>();
        }
        std::unique_ptr<CachePutSpan> start_cache_put_span(const SpanInfo&) override {
            return std::make_unique<CachePutSpan>();
        }
        std::unique_ptr<CacheRemoveSpan> start_cache_remove_span(const SpanInfo&) override {
            return std::make_unique<CacheRemoveSpan>();
        }
        std::unique_ptr<CacheFlushSpan> start_cache_flush_span() override {
            return std::make_unique<CacheFlushSpan>();
        }
        std::unique_ptr<CacheCleanupSpan> start_cache_cleanup_span() override {
            return std::make_unique<CacheCleanupSpan>();
        }
    };
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    auto options = schema.cache_options();
    options.instrumentations.push_back(std::make_shared<Plain>());
    const auto cache = make_cache(flavour, options, server_pool());
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->get("absent") == std::nullopt);
    CHECK(cache->remove("key"));
    CHECK(cache->cleanup() == 0);
    CHECK(cache->flush() == 0);
    CHECK(failure_of([&] { cache->get("\xFF"); }).code() == Errc::invalid_key);
}

TEST_CASE("A provider that throws hurts neither the call nor other providers, and is logged once") {
    const auto flavour = EVERY_FLAVOUR();
    const auto where = GENERATE(Thrower::Where::start, Thrower::Where::record);
    CAPTURE(flavour, static_cast<int>(where));
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    LogCapture log;
    auto options = with_spies(schema, journal, {"A", "B"});
    options.log = log.sink();
    options.instrumentations.insert(options.instrumentations.begin() + 1,
                                    std::make_shared<Thrower>(where));
    const auto cache = make_cache(flavour, options, server_pool(1));

    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->get("absent") == std::nullopt);
    CHECK(cache->remove("key"));
    CHECK(cache->cleanup() == 0);
    CHECK(cache->flush() == 0);
    CHECK(failure_of([&] { cache->get("\xFF"); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->remove("\xFF"); }).code() == Errc::invalid_key);
    CHECK(journal->count("A ") == 3 * 8);
    CHECK(journal->count("B ") == 3 * 8);
    CHECK(log.journal().lines().size() == 1);
}

TEST_CASE("An application may log by throwing: a sink's exceptions are swallowed") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    auto options = schema.cache_options();
    int lines = 0;
    options.log = [&](LogLevel, std::string_view) {
        ++lines;
        throw std::runtime_error("the disk is full");
    };
    options.instrumentations.push_back(std::make_shared<Thrower>(Thrower::Where::start));
    const auto cache = make_cache(flavour, options, server_pool(1));
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    CHECK(lines >= 1);
}

TEST_CASE("A cancelled call is told as operation_aborted, one that timed out as timed_out") {
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    asio::io_context context;
    auto options = with_spies(schema, journal, {"A"});
    options.timeout = 300ms * slowness;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        journal->clear();
        TableLock lock(schema);
        auto cancelled = start(context.get_executor(), cache.get_raw("a"));
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        cancelled.cancel();
        co_await cancelled.failure();
        CHECK(journal->lines() ==
              Lines{"A get open key=a name=",
                    "A get error " + std::string(asio::error::get_system_category().name()) + ":" +
                        std::to_string(asio::error::operation_aborted),
                    "A get close"});
        journal->clear();
        const auto failure = co_await failure_of(cache.put_raw("b", numbered(1), 1h));
        CHECK(failure.code() == Errc::timed_out);
        CHECK(journal->lines() ==
              Lines{"A put open key=b name=",
                    "A put error psycache:" + std::to_string(static_cast<int>(Errc::timed_out)),
                    "A put close"});
        lock.release();
    });
}

TEST_CASE("A miss for an outage is told as the error that it is") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    const auto journal = std::make_shared<Journal>();
    auto options = with_spies(schema, journal, {"A"});
    options.on_outage = OnOutage::miss;
    PoolOptions pool;
    pool.dsn = "host=127.0.0.1 port=1 user=x dbname=x";
    pool.connect_timeout = 1s;
    const auto cache = make_cache(flavour, options, pool);
    CHECK(cache->get("key") == std::nullopt);
    CHECK(journal->count(" open") == 1);
    CHECK(journal->count(" close") == 1);
    CHECK(journal->count(" error psycache:" +
                         std::to_string(static_cast<int>(Errc::connect_failed))) == 1);
}

TEST_CASE("Every run of a cleanup service opens a span") {
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    schema.insert_many("expired", 3, "'-infinity'");
    PostgresCache cache(server_pool(), with_spies(schema, journal, {"A"}));
    auto service = cache.start_cleanup_thread(5ms);
    CHECK(eventually([&] { return journal->count("A cleanup close") >= 3; }));
    CHECK(service.stop());
    CHECK(journal->count("A cleanup cleaned 3") == 1);
    CHECK(journal->count(" open") == journal->count(" close"));
}

TEST_CASE("Spans of many calls at once all end, each with one outcome") {
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    Threads threads(4);
    AsyncPostgresCache cache(threads.context().get_executor(), server_pool(),
                             with_spies(schema, journal, {"A", "B"}));
    std::vector<std::future<void>> users;
    for (int user = 0; user < 16; ++user) {
        users.push_back(threads.spawn([&, user]() -> asio::awaitable<void> {
            for (int i = 0; i < 10; ++i) {
                co_await cache.put_raw(std::to_string(user), numbered(i), 1h);
                co_await cache.get_raw(std::to_string(user));
                co_await cache.get_raw("absent");
            }
        }));
    }
    for (auto& user : users) {
        REQUIRE(user.wait_for(patience) == std::future_status::ready);
        CHECK_NOTHROW(user.get());
    }
    for (const std::string provider : {"A ", "B "}) {
        CHECK(journal->count(provider + "put open") == 160);
        CHECK(journal->count(provider + "put put") == 160);
        CHECK(journal->count(provider + "put close") == 160);
        CHECK(journal->count(provider + "get open") == 320);
        CHECK(journal->count(provider + "get hit") == 160);
        CHECK(journal->count(provider + "get miss") == 160);
        CHECK(journal->count(provider + "get close") == 320);
    }
    CHECK_FALSE(journal->contains("error"));
}
