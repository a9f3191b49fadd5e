// touch: a live entry gets a new expiry.

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "support/both.hpp"
#include "support/run_coro.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

TEST_CASE("touch gives a live entry a new expiry, and leaves its value") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 1min);

    CHECK(cache->touch("key", 2h));

    CHECK(schema.expires_in("key") > 7190);
    CHECK(schema.expires_in("key") <= 7200);
    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->touch("key", no_expiry));
    CHECK(schema.rows("expires_at = 'infinity'") == 1);
    CHECK(cache->statistics().touches == 2);
}

TEST_CASE("touch brings no expired entry back, and makes none") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 1h);
    schema.expire("key");

    CHECK_FALSE(cache->touch("key", 1h));
    CHECK_FALSE(cache->touch("other", 1h));

    CHECK(cache->get("key") == std::nullopt);
    CHECK(schema.rows() == 1);
    CHECK(cache->statistics().touches == 0);
}

TEST_CASE("touch with a ttl of zero or less expires an entry") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 1h);
    CHECK(cache->touch("key", 0s));
    CHECK(cache->get("key") == std::nullopt);
    CHECK_FALSE(cache->touch("key", 1h));
}

TEST_CASE("touch refuses what put refuses") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK(failure_of([&] { cache->touch("\xFF", 1h); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->touch("key", max_ttl + 1us); }).code() == Errc::invalid_ttl);
}

TEST_CASE("touches that share a statement each hear of their own entry") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1), schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        for (int i = 0; i < 64; i += 2) {
            co_await cache.put_raw(std::to_string(i), numbered(i), 1min);
        }
        const auto before = cache.statistics().statements;
        std::vector<Started<bool>> started;
        for (int i = 0; i < 64; ++i) {
            started.push_back(start(context.get_executor(), cache.touch(std::to_string(i), 1h)));
            started.push_back(start(context.get_executor(), cache.touch(std::to_string(i), 2h)));
        }
        int wrong = 0;
        for (std::size_t i = 0; i < started.size(); ++i) {
            const bool live = co_await started[i].get();
            wrong += live == (i / 2 % 2 == 0) ? 0 : 1;
        }
        CHECK(wrong == 0);
        CHECK(cache.statistics().statements - before < 20);
    });
    CHECK(schema.rows() == 32);
    CHECK(schema.rows("expires_at > now() + interval '119 minutes'") == 32);
}

TEST_CASE("touch tells its span whether there was an entry") {
    class Watcher : public CacheInstrumentation {
      public:
        struct Span : CacheTouchSpan {
            explicit Span(Journal& j) : journal(j) {}
            void record_touch(bool live) override { journal.write(live ? "live" : "absent"); }
            Journal& journal;
        };
        std::unique_ptr<CacheTouchSpan> start_cache_touch_span(const SpanInfo& info) override {
            journal.write(std::string(info.keys[0]) + " " + std::string(info.name));
            return std::make_unique<Span>(journal);
        }
        Journal journal;
    };
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto watcher = std::make_shared<Watcher>();
    auto options = schema.cache_options();
    options.instrumentations.push_back(watcher);
    const auto cache = make_cache(flavour, options, server_pool());
    cache->put("key", numbered(1), 1h);
    cache->touch("key", 1h, "name");
    cache->touch("other", 1h);
    CHECK(watcher->journal.lines() ==
          std::vector<std::string>{"key name", "live", "other ", "absent"});
}
