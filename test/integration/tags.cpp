// Tags: entries that are removed together.

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

using Tags = std::vector<std::string>;

PutOptions tagged(Tags tags) {
    PutOptions options;
    options.tags = std::move(tags);
    return options;
}

/// The rows of tags, as "tag:key".
std::string tags_of(TestSchema& schema) {
    return schema.sql().value(
        "SELECT coalesce(string_agg(tag || ':' || key, ' ' ORDER BY tag "
        "COLLATE \"C\", key COLLATE \"C\"), '') FROM " +
        schema.tags());
}

/// A call in a thread of its own.
class Running {
  public:
    template <class Call>
    explicit Running(Call call)
        : thread_([this, call] {
              try {
                  result_ = call();
              } catch (const Error& error) {
                  error_ = error.code();
              }
              done_ = true;
          }) {}
    ~Running() { join(); }

    bool done() const { return done_; }
    std::uint64_t result() {
        join();
        CHECK_FALSE(error_);
        return result_;
    }

  private:
    void join() {
        if (thread_.joinable()) {
            thread_.join();
        }
    }

    std::atomic<bool> done_{false};
    std::uint64_t result_ = 0;
    boost::system::error_code error_;
    std::thread thread_;
};

}  // namespace

TEST_CASE("remove_tag removes the entries that have the tag, and no others") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::tagged, nasty);
    const auto cache = make_cache(flavour, schema);
    cache->put_with("a", numbered(1), 1h, tagged({"red", "round", "red"}));
    cache->put_text_with("b", R"({"n": 2})", no_expiry, tagged({"red"}));
    cache->put_with("expired", numbered(3), -1s, tagged({"red"}));
    cache->put_with("c", numbered(4), 1h, tagged({"blue"}));
    cache->put_with("", numbered(5), 1h, tagged({"red"}));
    cache->put("plain", numbered(6), 1h);
    CHECK(tags_of(schema) == "blue:c red: red:a red:b red:expired round:a");
    CHECK(cache->get("a") == numbered(1));

    CHECK(cache->remove_tag("red") == 4);

    CHECK(schema.rows() == 2);
    CHECK(schema.has("c"));
    CHECK(schema.has("plain"));
    CHECK(tags_of(schema) == "blue:c round:a");
    CHECK(cache->remove_tag("red") == 0);
    CHECK(cache->remove_tag("round") == 0);
    CHECK(tags_of(schema) == "blue:c");
    CHECK(cache->statistics().removes == 4);
    CHECK(cache->statistics().puts == 6);
}

TEST_CASE("Puts on a condition give tags to what they store, and to nothing else") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(flavour, schema);
    CHECK_FALSE(cache->replace("a", 1, 1h, tagged({"red"})));
    CHECK(cache->put_if_absent("a", 1, 1h, tagged({"red", "round"})));
    CHECK_FALSE(cache->put_if_absent("a", 2, 1h, tagged({"blue"})));
    CHECK(tags_of(schema) == "red:a round:a");
    CHECK(cache->replace("a", 2, 1h, tagged({"green"})));
    CHECK(tags_of(schema) == "green:a red:a round:a");
    cache->put_values({{"b", 1}, {"c", 2}}, 1h, tagged({"green"}));
    CHECK(cache->get_value("a") == json::value(2));
    CHECK(cache->remove_tag("green") == 3);
    CHECK(schema.rows() == 0);
    CHECK(failure_of([&] { cache->put_if_absent("a", 1, 1h, tagged({""})); }).code() ==
          Errc::invalid_tag);
}

TEST_CASE("Many entries get one call's tags, and go by them in pages") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(flavour, schema);
    std::vector<Entry> entries;
    for (int i = 0; i < 2500; ++i) {
        entries.push_back(Entry("key" + std::to_string(i % 2400), numbered(i), 1h));
    }
    cache->put_many_with(entries, tagged({"all", "some"}));
    CHECK(schema.tag_rows() == 4800);
    CHECK(cache->get("key5") == numbered(2405));
    CHECK(cache->remove_tag("all") == 2400);
    CHECK(schema.rows() == 0);
    CHECK(schema.tag_rows() == 2400);
    CHECK(cache->remove_tag("some") == 0);
    CHECK(schema.tag_rows() == 0);
}

TEST_CASE("Calls with tags that arrive together share statements, and the last value counts") {
    TestSchema schema(Table::tagged);
    auto tally = std::make_shared<TallyInstrumentation>();
    auto options = schema.cache_options();
    options.instrumentations.push_back(tally);
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1), options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto executor = context.get_executor();
        std::vector<Started<void>> puts;
        for (int i = 0; i < 60; ++i) {
            puts.push_back(start(executor, cache.put_raw("k" + std::to_string(i % 20), numbered(i),
                                                         1h, tagged({"t" + std::to_string(i)}))));
        }
        auto ends = all(puts);
        co_await std::move(ends);
    });
    CHECK(tally->statements("put").size() < 30);
    CHECK(schema.rows() == 20);
    CHECK(schema.rows("(value->>'n')::int >= 40") == 20);
    CHECK(schema.tag_rows() == 60);
}

TEST_CASE("Tags are checked before anything is sent") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(flavour, schema);
    for (const std::string& bad : {std::string(), std::string(max_tag_size + 1, 't'),
                                   std::string("a\0b", 3), std::string("\xff")}) {
        const auto put = [&](Tags tags) {
            return failure_of([&] { cache->put_with("key", numbered(1), 1h, tagged(tags)); });
        };
        CHECK(put({"good", bad}).code() == Errc::invalid_tag);
        CHECK_THAT(put({"good", bad}).what(), Catch::Contains("tag 1: "));
        CHECK(failure_of([&] { cache->remove_tag(bad); }).code() == Errc::invalid_tag);
        CHECK(failure_of([&] {
                  cache->put_many_with({Entry("key", numbered(1), 1h)}, tagged({bad}));
              }).code() == Errc::invalid_tag);
    }
    CHECK(cache->statistics().statements == 0);
    // As long as they may be, of bytes that do not compress.
    std::string random =
        schema.sql().value("SELECT string_agg(md5(i::text), '') FROM generate_series(1, 84) AS i");
    random.resize(max_tagged_size);
    const auto tag = random.substr(0, max_tag_size);
    cache->put_with(random.substr(max_tag_size), numbered(1), 1h, tagged({tag}));
    CHECK(cache->remove_tag(tag) == 1);
    CHECK(failure_of([&] {
              cache->put_with(random.substr(max_tag_size - 1), numbered(1), 1h, tagged({tag}));
          }).code() == Errc::invalid_tag);
}

TEST_CASE("Without a table of tags a put with tags says what to do, and one without works") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const auto check = [](const Failure& failure) {
        CHECK(failure.code() == Errc::table_missing);
        CHECK_THAT(failure.what(), Catch::Contains("psycache_tags") &&
                                       Catch::Contains("TableOptions::tags") &&
                                       Catch::Contains("init-db --tags"));
    };
    check(failure_of([&] { cache->put_with("key", numbered(1), 1h, tagged({"t"})); }));
    check(failure_of([&] { cache->remove_tag("t"); }));
    cache->put("key", numbered(1), 1h);
    CHECK(schema.rows() == 1);
    schema.sql().exec("DROP TABLE " + schema.table());
    CHECK_THAT(failure_of([&] { cache->put("key", numbered(1), 1h); }).what(),
               !Catch::Contains("psycache_tags"));
    // And as soon as there is one they work.
    auto options = schema.table_options();
    options.tags = true;
    init_db(dsn(), options);
    cache->put_with("key", numbered(1), 1h, tagged({"t"}));
    CHECK(cache->remove_tag("t") == 1);
}

TEST_CASE("What others do to an entry makes remove_tag remove too much, and never too little") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(flavour, schema);
    for (const std::string key : {"foreign", "plain", "touched", "again"}) {
        cache->put_with(key, numbered(1), 1h, tagged({"t"}));
    }
    // As Python's psycache overwrites it, which knows of no tags.
    schema.sql().exec("INSERT INTO " + schema.table() +
                      " (key, value, expires_at) VALUES ('foreign', '{\"n\": 2}', now() + interval "
                      "'1 hour') ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, "
                      "expires_at = EXCLUDED.expires_at");
    cache->put("plain", numbered(2), 1h);
    cache->touch("touched", 2h);
    cache->put_with("again", numbered(2), 1h, tagged({"other"}));
    cache->put_with("removed", numbered(1), 1h, tagged({"t"}));
    cache->remove("removed");
    CHECK(cache->remove_tag("t") == 4);
    CHECK(schema.rows() == 0);
    CHECK(tags_of(schema) == "other:again");
}

TEST_CASE("A cleanup takes the rows of tags whose entries are gone, and no others") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(flavour, schema);
    for (const std::string key : {"live", "touched", "expired", "removed", "ever"}) {
        cache->put_with(key, numbered(1), key == "ever" ? no_expiry : Duration(1h), tagged({"t"}));
    }
    // The row of a tag is looked at again within a day, whatever the entry's expiry is.
    CHECK(schema.tag_rows("expires_at < now() + interval '25 hours'") == 5);
    cache->remove("removed");
    schema.expire("expired");
    // All but one are due: those of entries that live get a later expiry.
    schema.sql().exec("UPDATE " + schema.tags() +
                      " SET expires_at = now() - interval '1 second' WHERE key <> 'live'");
    Psql other;
    other.exec("BEGIN; SELECT * FROM " + schema.tags() + " WHERE key = 'removed' FOR UPDATE");
    CHECK(cache->cleanup() == 1);
    CHECK(tags_of(schema) == "t:ever t:live t:removed t:touched");
    CHECK(schema.tag_rows("expires_at > now()") == 3);
    CHECK(schema.tag_rows("expires_at = 'infinity'") == 0);
    other.exec("COMMIT");
    CHECK(cache->cleanup() == 0);
    CHECK(tags_of(schema) == "t:ever t:live t:touched");
    CHECK(cache->remove_tag("t") == 3);

    schema.sql().exec("INSERT INTO " + schema.tags() +
                      " SELECT 't', i::text, '-infinity' FROM generate_series(1, 2500) AS i");
    CHECK(cache->cleanup() == 0);
    CHECK(schema.tag_rows() == 0);
}

TEST_CASE("A row of a tag stays while its entry is there, be it expired and locked") {
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(Flavour::blocking, schema);
    for (int i = 0; i < 1100; ++i) {
        schema.insert("k" + std::to_string(i), "{}", "'-infinity'");
    }
    schema.sql().exec("INSERT INTO " + schema.tags() + " SELECT 't', key, '-infinity' FROM " +
                      schema.table());
    Psql other;
    other.exec("BEGIN; SELECT * FROM " + schema.table() + " FOR UPDATE");
    CHECK(cache->cleanup() == 0);
    CHECK(schema.tag_rows() == 1100);
    other.exec("COMMIT");
    CHECK(cache->remove_tag("t") == 1100);
}

TEST_CASE("remove_tag waits for rows that others have locked, and holds up nobody meanwhile") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(flavour, schema);
    const auto others = make_cache(Flavour::blocking, schema);
    for (const std::string key : {"a", "locked", "z"}) {
        cache->put_with(key, numbered(1), 1h, tagged({"t"}));
    }
    Psql other;
    other.exec("BEGIN; UPDATE " + schema.table() +
               " SET value = '{\"n\": 2}' WHERE key = 'locked'");
    {
        const auto failure = failure_of([&] { cache->remove_tag("t", CallOptions(250ms)); });
        CHECK(failure.code() == Errc::timed_out);
        CHECK_THAT(failure.what(), Catch::Contains("locked"));
    }
    CHECK(schema.rows() == 1);
    CHECK(tags_of(schema) == "t:locked");
    Running removal([&] { return cache->remove_tag("t"); });
    std::this_thread::sleep_for(60ms);
    CHECK_FALSE(removal.done());
    CHECK(schema.sql().number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = "
                              "'Lock' AND query LIKE '%" +
                              schema.name() + "%'") == 0);
    others->put_with("late", numbered(1), 1h, tagged({"t"}));
    other.exec("COMMIT");
    CHECK(removal.result() == 1);
    CHECK(cache->get("locked") == std::nullopt);
    CHECK(cache->get("late") == numbered(1));
    CHECK(tags_of(schema) == "t:late");
}

TEST_CASE("remove_tag that is cancelled leaves at once, and begins no further page") {
    TestSchema schema(Table::tagged);
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), schema.cache_options());
    Psql other;
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto put = cache.put_raw("key", numbered(1), 1h, tagged({"t"}));
        co_await std::move(put);
        other.exec("BEGIN; SELECT * FROM " + schema.table() + " FOR UPDATE");
        auto removal = start(context.get_executor(), cache.remove_tag("t"));
        asio::steady_timer timer(context.get_executor(), 50ms);
        auto wait = timer.async_wait(asio::use_awaitable);
        co_await std::move(wait);
        removal.cancel();
        const auto failure = co_await removal.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        other.exec("COMMIT");
        timer.expires_after(150ms);
        auto again = timer.async_wait(asio::use_awaitable);
        co_await std::move(again);
    });
    CHECK(schema.rows() == 1);
    CHECK(cache.statistics().cancelled == 1);
}

// The statements of remove_tag and of a put meet at every point: one is held up by a lock on a
// third table, which a trigger takes, so that the other one goes by.
TEST_CASE("A put with a tag that commits while remove_tag looks keeps its tag") {
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(Flavour::blocking, schema);
    // A tag that was left behind, and an entry whose removal can be held up between the snapshot of
    // the statement and the removal of tags.
    cache->put_with("b", numbered(1), 1h, tagged({"t"}));
    cache->remove("b");
    cache->put_with("a", numbered(1), 1h, tagged({"t"}));
    const auto gate = quote_literal(schema.name());
    schema.sql().exec(
        "CREATE FUNCTION " + schema.quoted() +
        ".hold() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_advisory_xact_lock("
        "hashtext(" +
        gate + ")); RETURN OLD; END$$; CREATE TRIGGER hold BEFORE DELETE ON " + schema.table() +
        " FOR EACH ROW EXECUTE FUNCTION " + schema.quoted() + ".hold()");
    Psql other;
    other.exec("SELECT pg_advisory_lock(hashtext(" + gate + "))");
    Running removal([&] { return cache->remove_tag("t"); });
    const auto waits = [&] {
        return schema.sql().number(
                   "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND "
                   "NOT granted AND objid::bigint = (hashtext(" +
                   gate + ")::bigint & 4294967295)") == 1;
    };
    REQUIRE(eventually(waits));
    // Its snapshot saw no entry "b", and the old row of its tag.
    make_cache(Flavour::blocking, schema)->put_with("b", numbered(2), 1h, tagged({"t"}));
    other.exec("SELECT pg_advisory_unlock(hashtext(" + gate + "))");
    CHECK(removal.result() == 1);
    CHECK(schema.has("b"));
    CHECK(tags_of(schema) == "t:b");
    CHECK(cache->remove_tag("t") == 1);
    CHECK(schema.rows() == 0);
}

TEST_CASE("After remove_tag no entry that was put before is answered, whatever is put meanwhile") {
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(Flavour::blocking, schema);
    constexpr std::size_t writers = 3;
    std::atomic<bool> stop{false};
    // The number of the last put of each writer that was answered.
    std::array<std::atomic<std::int64_t>, writers> answered{};
    std::vector<std::thread> threads;
    for (std::size_t writer = 0; writer < writers; ++writer) {
        threads.emplace_back([&, writer] {
            const auto own = make_cache(Flavour::blocking, schema);
            for (std::int64_t i = 1; !stop; ++i) {
                const auto key = "k" + std::to_string((i + static_cast<std::int64_t>(writer)) % 8);
                if (i % 5 == 4) {
                    own->remove(key);
                }
                own->put_with(key, json::object{{"n", i}, {"writer", writer}}, 1h, tagged({"t"}));
                answered[writer] = i;
            }
        });
    }
    int wrong = 0;
    int hits = 0;
    for (const auto end = Clock::now() + 700ms; Clock::now() < end;) {
        std::array<std::int64_t, writers> before{};
        for (std::size_t writer = 0; writer < writers; ++writer) {
            before[writer] = answered[writer];
        }
        cache->remove_tag("t");
        for (int k = 0; k < 8; ++k) {
            if (const auto value = cache->get("k" + std::to_string(k))) {
                ++hits;
                wrong += value->at("n").to_number<std::int64_t>() <=
                                 before[value->at("writer").to_number<std::size_t>()]
                             ? 1
                             : 0;
            }
        }
    }
    stop = true;
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(hits > 0);
    CHECK(wrong == 0);
    // Every entry that is left has its tag.
    cache->remove_tag("t");
    CHECK(schema.rows() == 0);
}

TEST_CASE("Calls on groups open spans that tell the operation and how many entries went") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::tagged);
    auto journal = std::make_shared<Journal>();
    auto tally = std::make_shared<TallyInstrumentation>();
    auto options = schema.cache_options();
    options.instrumentations = {std::make_shared<SpyInstrumentation>(journal), tally};
    const auto cache = make_cache(flavour, options, server_pool());
    cache->put_with("a1", numbered(1), 1h, tagged({"t"}));
    cache->put_with("b1", numbered(1), 1h, tagged({"t"}));
    CHECK(journal->count("A put put ") == 2);
    journal->clear();
    cache->remove_prefix("a", CallOptions("p"));
    cache->remove_tag("t", CallOptions("q"));
    cache->clear(CallOptions("r"));
    failure_of([&] { cache->remove_tag(""); });
    CHECK(journal->lines() ==
          std::vector<std::string>{
              "A remove_prefix open group=a name=p", "A remove_prefix invalidated 1",
              "A remove_prefix close", "A remove_tag open group=t name=q",
              "A remove_tag invalidated 1", "A remove_tag close", "A clear open group= name=r",
              "A clear invalidated 0", "A clear close", "A remove_tag open group= name=",
              "A remove_tag error psycache:" + std::to_string(static_cast<int>(Errc::invalid_tag)),
              "A remove_tag close"});
    for (const std::string operation : {"remove_prefix", "remove_tag", "clear"}) {
        CHECK(tally->statements(operation).size() == 1);
    }
    CHECK(cache->statistics().removes == 2);
}
