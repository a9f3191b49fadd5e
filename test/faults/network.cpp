// What the network can do between the cache and the server: no call hangs, none gets another one's
// value, and the same cache works again afterwards.

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>

#include "support/both.hpp"
#include "support/gate.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

using Cut = Gate::Cut;
using Side = Gate::Side;

/// A table, and a gate that is switched on in front of its server.
struct Gated {
    Gated(const std::string& server_port, std::string application_name)
        : name(std::move(application_name)), gate(server_port) {
        gate.switch_on();
        pool.dsn = *tcp_dsn({{"port", gate.port()},
                             {"application_name", name},
                             {"sslmode", "disable"},
                             {"gssencmode", "disable"}});
        // Generous, so that a slow machine is not taken for a fault.
        pool.connect_timeout = 10s;
        pool.acquire_timeout = 15s;
        options = schema.cache_options();
        options.timeout = 15s;
    }

    /// How many connections the server has from the pools of the test.
    std::int64_t connections() { return schema.sql().connections(name); }

    std::string name;
    TestSchema schema;
    Gate gate;
    PoolOptions pool;
    CacheOptions options;
};

/// Runs a test behind a gate, and checks that it leaves no descriptor and no connection behind.
void behind_gate(const std::function<void(Gated&)>& test) {
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    Psql sql;
    const auto name = unique_name("app");
    const auto descriptors = open_descriptors();
    {
        Gated gated(*port, name);
        test(gated);
    }
    CHECK(eventually([&] { return open_descriptors() <= descriptors; }));
    CHECK(eventually([&] { return sql.connections(name) == 0; }));
}

/// One kind of call on the entry "key", and what its result must be.
struct Step {
    const char* name;
    bool writes;
    /// Brings the row into the state that the call changes, by the test's own connection.
    std::function<void(TestSchema&)> prepare;
    /// @returns whether the answer was right.
    std::function<bool(AnyCache&)> call;
    /// Whether the row is as the call leaves it.
    std::function<bool(TestSchema&)> done;
};

void store(TestSchema& schema, std::int64_t number) {
    schema.sql().exec("DELETE FROM " + schema.table() + " WHERE key = 'key'");
    schema.insert("key", "{\"n\": " + std::to_string(number) + "}");
}
bool stored(TestSchema& schema, std::int64_t number) {
    return schema.rows("key = 'key' AND value = '{\"n\": " + std::to_string(number) + "}'") == 1;
}

const std::vector<Step>& every_step() {
    static const std::vector<Step> steps{
        {"get", false, [](TestSchema& schema) { store(schema, 1); },
         [](AnyCache& cache) { return cache.get("key") == numbered(1); },
         [](TestSchema& schema) { return stored(schema, 1); }},
        {"put", true, [](TestSchema& schema) { store(schema, 1); },
         [](AnyCache& cache) {
             cache.put("key", numbered(2), 1h);
             return true;
         },
         [](TestSchema& schema) { return stored(schema, 2); }},
        {"remove", true, [](TestSchema& schema) { store(schema, 1); },
         [](AnyCache& cache) { return cache.remove("key"); },
         [](TestSchema& schema) { return !schema.has("key"); }},
    };
    return steps;
}

/// How many bytes the server sends for a call.
template <class Call>
std::uint64_t answer_length(Gate& gate, Call call) {
    const auto before = gate.from_server();
    call();
    return gate.from_server() - before;
}

/// Lets idle connections learn what the network has done to them: one that was used a moment ago is
/// lent without a look.
void let_it_arrive() {
    std::this_thread::sleep_for(3ms);
}

/// A JSON object whose text has about so many bytes, none like its neighbours.
json::object large_value(std::size_t bytes) {
    std::string text(bytes, ' ');
    for (std::size_t i = 0; i < bytes; ++i) {
        text[i] = static_cast<char>('a' + (i * 7 + i / 1021) % 26);
    }
    json::object value;
    value["text"] = std::move(text);
    return value;
}

/// What one caller knows of an entry that nobody else writes.
class OwnEntry {
  public:
    explicit OwnEntry(int owner) : owner_(owner), key_("own" + std::to_string(owner)) {}

    const std::string& key() const { return key_; }
    json::object next() {
        json::object value;
        value["owner"] = owner_;
        value["turn"] = ++turn_;
        return value;
    }
    /// How the put of the last `next()` ended.
    void put_ended(const Failure& failure) {
        if (!failure) {
            acknowledged_ = turn_;
        } else {
            judge(failure);
        }
    }
    void got(const std::optional<json::object>& value) {
        ++answers_;
        if (!value) {
            right_ = right_ && acknowledged_ == 0;
            return;
        }
        const auto turn = value->at("turn").as_int64();
        right_ = right_ && value->at("owner").as_int64() == owner_ && turn >= acknowledged_ &&
                 turn <= turn_;
    }
    void judge(const Failure& failure) {
        const auto& code = failure.code();
        defined_ = defined_ && failure.typed() &&
                   (code == Errc::outcome_unknown || code == Errc::connection_lost ||
                    code == Errc::connect_failed);
    }

    bool right() const { return right_; }
    bool defined() const { return defined_; }
    int answers() const { return answers_; }

  private:
    int owner_;
    std::string key_;
    std::int64_t turn_ = 0;
    std::int64_t acknowledged_ = 0;
    int answers_ = 0;
    bool right_ = true;
    bool defined_ = true;
};

/// Cuts answers at random places until it is destroyed.
class RandomCuts {
  public:
    explicit RandomCuts(Gate& gate) : gate_(gate), thread_([this] { run(); }) {}
    RandomCuts(const RandomCuts&) = delete;
    RandomCuts& operator=(const RandomCuts&) = delete;
    ~RandomCuts() {
        stop_ = true;
        thread_.join();
        gate_.do_not_cut();
    }

  private:
    void run() {
        std::minstd_rand dice(4711);
        while (!stop_) {
            const auto bytes = dice() % 3000;
            gate_.cut_after(bytes, dice() % 2 == 0 ? Cut::orderly : Cut::reset);
            std::this_thread::sleep_for(std::chrono::milliseconds(2 + dice() % 10));
        }
    }

    Gate& gate_;
    std::atomic<bool> stop_ = false;
    std::thread thread_;
};

}  // namespace

namespace {

/// Whether the first answer of a call is that of its statement, or that of its preparation.
enum class Prepared { yes, no };

/// Cuts the answers to one kind of call after each of their bytes.
void cut_everywhere(Gated& gated, AnyCache& cache, const Step& step, Cut how, Prepared prepared) {
    const auto ready = [&] {
        bool works = false;
        if (prepared == Prepared::yes) {
            step.prepare(gated.schema);
            works = step.call(cache);
        } else {
            gated.gate.break_all(Cut::orderly);
            let_it_arrive();
            works = step.writes ? cache.get("other") == numbered(4) : !cache.remove("absent");
        }
        step.prepare(gated.schema);
        return works;
    };
    CHECK(ready());
    const auto length = answer_length(gated.gate, [&] { CHECK(step.call(cache)); });
    REQUIRE(length > 20);
    REQUIRE(length < 400);

    std::uint64_t unknown = 0;
    for (std::uint64_t bytes = 0; bytes <= length; ++bytes) {
        CAPTURE(bytes, length);
        REQUIRE(ready());
        const auto cuts = gated.gate.cuts();
        gated.gate.cut_after(bytes, how);

        bool right = false;
        const auto failure = failure_of([&] { right = step.call(cache); });

        REQUIRE(eventually([&] { return gated.gate.cuts() == cuts + 1; }));
        if (failure) {
            ++unknown;
            CHECK(step.writes);
            CHECK(failure.code() == Errc::outcome_unknown);
            CHECK_FALSE((bytes == length && how == Cut::orderly));
            // What the lost connection was doing has ended with it.
            CHECK(eventually([&] { return gated.connections() == 0; }));
            CHECK((step.done(gated.schema) || stored(gated.schema, 1)));
        } else {
            CHECK(right);
            CHECK(step.done(gated.schema));
            // A write whose answer was lost is not sent again.
            CHECK((!step.writes || prepared == Prepared::no || bytes == length));
        }
        let_it_arrive();
    }
    CHECK((step.writes ? unknown >= 20 : cache.statistics().errors == 0));
}

}  // namespace

TEST_CASE("An answer that is cut at any byte costs no get, and leaves a write done or unknown") {
    behind_gate([](Gated& gated) {
        const auto flavour = OWN_CONNECTIONS();
        const auto how = GENERATE(Cut::orderly, Cut::reset);
        const auto& step = GENERATE(from_range(every_step()));
        CAPTURE(flavour, static_cast<int>(how), step.name);
        gated.pool.max_size = 1;
        const auto cache = make_cache(flavour, gated.options, gated.pool);
        cut_everywhere(gated, *cache, step, how, Prepared::yes);
    });
}

TEST_CASE("A call whose preparation is cut at any byte is prepared and sent once more") {
    behind_gate([](Gated& gated) {
        const auto flavour = OWN_CONNECTIONS();
        const auto& step = GENERATE(from_range(every_step()));
        CAPTURE(flavour, step.name);
        gated.schema.insert("other", "{\"n\": 4}");
        gated.pool.max_size = 1;
        const auto cache = make_cache(flavour, gated.options, gated.pool);
        cut_everywhere(gated, *cache, step, Cut::orderly, Prepared::no);
    });
}

TEST_CASE("A connection that is cut while it is opened fails its callers at once, not later ones") {
    behind_gate([](Gated& gated) {
        const auto flavour = OWN_CONNECTIONS();
        const auto how = GENERATE(Cut::orderly, Cut::reset);
        CAPTURE(flavour, static_cast<int>(how));
        store(gated.schema, 1);
        const auto calls = [&](AnyCache& cache) { CHECK(cache.get("key") == numbered(1)); };
        const auto length = [&] {
            const auto cache = make_cache(flavour, gated.options, gated.pool);
            return answer_length(gated.gate, [&] { calls(*cache); });
        }();
        REQUIRE(length > 200);
        REQUIRE(length < 2000);
        std::uint64_t failures = 0;
        for (std::uint64_t bytes = 0; bytes < length; bytes += 3) {
            CAPTURE(bytes, length);
            const auto cache = make_cache(flavour, gated.options, gated.pool);
            gated.gate.cut_after(bytes, how);
            const auto started = Clock::now();
            std::optional<json::object> value;
            const auto failure = failure_of([&] { value = cache->get("key"); });
            CHECK(Clock::now() - started < gated.options.timeout);
            if (failure) {
                CHECK(failure.code() == Errc::connect_failed);
                ++failures;
            } else {
                CHECK(value == numbered(1));
            }
            if (bytes % 30 == 0) {
                calls(*cache);
            }
            gated.gate.do_not_cut();
        }
        // Some cuts come after the connection was opened: there the call is sent once more.
        CHECK(failures >= 30);
        CHECK(failures < length / 3);
    });
}

TEST_CASE("Sixty-four callers whose answers are cut get their own values or a defined error") {
    behind_gate([](Gated& gated) {
        asio::io_context context;
        AsyncPostgresCache cache(context.get_executor(), gated.pool, gated.options);
        std::vector<OwnEntry> entries;
        for (int i = 0; i < 64; ++i) {
            entries.emplace_back(i);
        }
        const auto end = Clock::now() + 2s;
        const auto calls = [&](OwnEntry& entry) -> asio::awaitable<void> {
            while (Clock::now() < end) {
                auto put = cache.put_raw(entry.key(), entry.next(), 1h);
                const auto put_failure = co_await failure_of(std::move(put));
                entry.put_ended(put_failure);
                std::optional<json::object> value;
                const auto get = [&]() -> asio::awaitable<void> {
                    value = co_await cache.get_raw(entry.key());
                };
                const auto get_failure = co_await failure_of(get());
                if (get_failure) {
                    entry.judge(get_failure);
                } else {
                    entry.got(value);
                }
            }
        };
        {
            const RandomCuts cuts(gated.gate);
            run_coro(context, [&]() -> asio::awaitable<void> {
                std::vector<Started<void>> callers;
                for (auto& entry : entries) {
                    callers.push_back(start(context.get_executor(), calls(entry)));
                }
                for (auto& caller : callers) {
                    co_await caller.get();
                }
            });
        }
        CHECK(gated.gate.cuts() >= 20);
        for (const auto& entry : entries) {
            CAPTURE(entry.key());
            CHECK(entry.right());
            CHECK(entry.defined());
            CHECK(entry.answers() >= 2);
        }
        let_it_arrive();
        const auto works = [&] {
            return !failure_of([&] { run_coro(context, cache.put_raw("key", numbered(1), 1h)); });
        };
        CHECK(eventually(works));
    });
}

TEST_CASE("Threads whose answers are cut get their own values or a defined error") {
    behind_gate([](Gated& gated) {
        PostgresCache cache(gated.pool, gated.options);
        std::vector<OwnEntry> entries;
        for (int i = 0; i < 8; ++i) {
            entries.emplace_back(i);
        }
        const auto end = Clock::now() + 2s;
        const auto last = Clock::now() + patience;
        const auto over = [&] {
            const auto now = Clock::now();
            return now >= last || (now >= end && gated.gate.cuts() >= 20);
        };
        const auto calls = [&](OwnEntry& entry) {
            while (!over()) {
                entry.put_ended(failure_of([&] { cache.put_raw(entry.key(), entry.next(), 1h); }));
                std::optional<json::object> value;
                const auto failure = failure_of([&] { value = cache.get_raw(entry.key()); });
                if (failure) {
                    entry.judge(failure);
                } else {
                    entry.got(value);
                }
            }
        };
        {
            const RandomCuts cuts(gated.gate);
            std::vector<std::thread> threads;
            for (auto& entry : entries) {
                threads.emplace_back([&] { calls(entry); });
            }
            for (auto& thread : threads) {
                thread.join();
            }
        }
        CHECK(gated.gate.cuts() >= 20);
        for (const auto& entry : entries) {
            CAPTURE(entry.key());
            CHECK(entry.right());
            CHECK(entry.defined());
            CHECK(entry.answers() >= 2);
        }
    });
}

TEST_CASE("Half an answer and then silence costs the callers of that statement their deadline") {
    behind_gate([](Gated& gated) {
        gated.options.timeout = 700ms * slowness;
        gated.pool.max_size = 2;
        asio::io_context context;
        const auto pool = std::make_shared<ConnectionPool>(context.get_executor(), gated.pool);
        AsyncPostgresCache cache(pool, gated.options);
        store(gated.schema, 1);
        const auto get_key = [&]() -> asio::awaitable<bool> {
            const auto value = co_await cache.get_raw("key");
            co_return value == numbered(1);
        };
        CHECK(run_coro(context, get_key()));
        // The first calls that share a read ask whether the table is distributed: not what is cut.
        CHECK(run_coro(context, cache.get_raw_many({"key", "other"})).size() == 2);
        const auto length = answer_length(gated.gate, [&] { CHECK(run_coro(context, get_key())); });

        gated.gate.cut_after(length / 2, Cut::silent);
        run_coro(context, [&]() -> asio::awaitable<void> {
            const auto executor = context.get_executor();
            const auto started = Clock::now();
            std::vector<Started<bool>> callers;
            for (int i = 0; i < 10; ++i) {
                callers.push_back(start(executor, get_key()));
            }
            const auto is_cut = [&] { return gated.gate.cuts() == 1; };
            const bool cut = co_await until(is_cut);
            REQUIRE(cut);
            // The others have a connection left.
            for (int i = 0; i < 50; ++i) {
                auto put = cache.put_raw("other", numbered(i), 1h);
                co_await std::move(put);
                const bool right = co_await get_key();
                CHECK(right);
            }
            std::uint64_t late = 0;
            for (auto& caller : callers) {
                const auto failure = co_await caller.failure();
                // They may have been divided between two statements.
                if (failure) {
                    CHECK(failure.code() == Errc::timed_out);
                    ++late;
                }
            }
            CHECK(late >= 5);
            CHECK(Clock::now() - started >= gated.options.timeout);
            CHECK(Clock::now() - started < 3 * gated.options.timeout);
            CHECK(cache.statistics().timeouts == late);
            // The connection that hangs is given up, and another one takes its place.
            const auto given_up = [&] { return pool->statistics().lost == 1; };
            const bool lost = co_await until(given_up);
            CHECK(lost);
            TableLock lock(gated.schema);
            auto one = start(executor, cache.remove("absent"));
            auto two = start(executor, cache.get_raw("absent"));
            const auto both_sent = [&] { return lock.waiting() == 2; };
            const bool sent = co_await until(both_sent);
            CHECK(sent);
            lock.release();
            const auto first = co_await one.failure();
            CHECK_FALSE(first);
            const auto second = co_await two.failure();
            CHECK_FALSE(second);
        });
        CHECK(pool->statistics().connects == 3);
    });
}

TEST_CASE("Half an answer and then silence costs a blocking caller its deadline, nobody else") {
    behind_gate([](Gated& gated) {
        gated.options.timeout = 700ms * slowness;
        const auto& step = GENERATE(from_range(every_step()));
        CAPTURE(step.name);
        const auto cache = make_cache(Flavour::blocking, gated.options, gated.pool);
        step.prepare(gated.schema);
        CHECK(step.call(*cache));
        step.prepare(gated.schema);
        const auto length = answer_length(gated.gate, [&] { CHECK(step.call(*cache)); });
        for (int round = 0; round < 3; ++round) {
            step.prepare(gated.schema);
            gated.gate.cut_after(length / 2, Cut::silent);
            const auto started = Clock::now();
            const auto failure = failure_of([&] { step.call(*cache); });
            CHECK(failure.code() == Errc::timed_out);
            CHECK(Clock::now() - started >= gated.options.timeout);
            CHECK(Clock::now() - started < 3 * gated.options.timeout);
            step.prepare(gated.schema);
            CHECK(step.call(*cache));
        }
    });
}

TEST_CASE("Answers that come byte by byte are right") {
    behind_gate([](Gated& gated) {
        const auto flavour = OWN_CONNECTIONS();
        CAPTURE(flavour);
        gated.gate.pieces(1, 20us);
        const auto cache = make_cache(flavour, gated.options, gated.pool);
        for (const auto& step : every_step()) {
            CAPTURE(step.name);
            for (int i = 0; i < 3; ++i) {
                step.prepare(gated.schema);
                CHECK(step.call(*cache));
                CHECK(step.done(gated.schema));
            }
        }
        cache->put_many({Entry("a", numbered(1), 1h), Entry("b", numbered(2), -1h)});
        CHECK(cache->get_many({"a", "absent"}) ==
              std::vector<std::optional<json::object>>{numbered(1), std::nullopt});
        CHECK(cache->remove_many({"a", "absent"}) == 1);
        CHECK(cache->cleanup() == 1);
        CHECK(cache->flush() == 0);
        CHECK(failure_of([&] { cache->put_text("key", "{", 1h); }).typed());
        CHECK(cache->statistics().errors == 1);
    });
}

TEST_CASE("Calls that start together over a slow network take few round trips") {
    behind_gate([](Gated& gated) {
        // Or the preparations would be counted, of which there is one for each kind and connection.
        gated.pool.prepare_statements = false;
        gated.options.timeout = 20s;
        asio::io_context context;
        AsyncPostgresCache cache(context.get_executor(), gated.pool, gated.options);
        gated.schema.insert_many("key", 60, "now() + interval '1 hour'");
        const auto call_all = [&]() -> asio::awaitable<void> {
            const auto executor = context.get_executor();
            std::vector<Started<std::optional<json::object>>> gets;
            std::vector<Started<void>> puts;
            std::vector<Started<bool>> removes;
            for (int i = 1; i <= 60; ++i) {
                const auto number = std::to_string(i);
                gets.push_back(start(executor, cache.get_raw("key" + number)));
                puts.push_back(start(executor, cache.put_raw("put" + number, numbered(i), 1h)));
                removes.push_back(start(executor, cache.remove("put" + std::to_string(i + 1000))));
            }
            for (auto& get : gets) {
                const auto value = co_await get.get();
                CHECK(value == object("{\"a\": 1}"));
            }
            for (auto& put : puts) {
                co_await put.get();
            }
            for (auto& remove : removes) {
                const bool existed = co_await remove.get();
                CHECK_FALSE(existed);
            }
        };
        run_coro(context, call_all());  // so that all connections are open
        run_coro(context, call_all());
        gated.gate.delay(200ms);
        const auto round_trip = 400ms;

        auto started = Clock::now();
        auto one_value = cache.get_raw("put7");
        CHECK(run_coro(context, std::move(one_value)) == numbered(7));
        const auto one = Clock::now() - started;
        CHECK(one >= round_trip);
        started = Clock::now();
        run_coro(context, call_all());
        const auto all = Clock::now() - started;
        CHECK(all >= round_trip);
        // One after the other they would take 180 round trips.
        CHECK(all < 6 * round_trip * slowness);
        CHECK(cache.statistics().errors == 0);
    });
}

TEST_CASE("Many keys of one blocking call over a slow network take one round trip") {
    behind_gate([](Gated& gated) {
        gated.options.timeout = 20s;
        const auto cache = make_cache(Flavour::blocking, gated.options, gated.pool);
        gated.schema.insert_many("key", 60, "now() + interval '1 hour'");
        std::vector<std::string> keys;
        for (int i = 1; i <= 60; ++i) {
            keys.push_back("key" + std::to_string(i));
        }
        const auto all_there = [&] {
            const auto values = cache->get_many(keys);
            return std::all_of(values.begin(), values.end(),
                               [](const auto& value) { return value.has_value(); });
        };
        CHECK(all_there());
        gated.gate.delay(200ms);
        const auto started = Clock::now();
        CHECK(all_there());
        const auto took = Clock::now() - started;
        CHECK(took >= 400ms);
        CHECK(took < 3 * 400ms * slowness);
    });
}

TEST_CASE("A black hole costs every caller its deadline, wherever it begins, and nothing later") {
    behind_gate([](Gated& gated) {
        const auto flavour = OWN_CONNECTIONS();
        enum class When { connecting, idle, waiting };
        const auto when = GENERATE(When::connecting, When::idle, When::waiting);
        const auto& step = GENERATE(from_range(every_step()));
        CAPTURE(flavour, static_cast<int>(when), step.name);
        gated.options.timeout = 500ms * slowness;
        gated.pool.connect_timeout = 10s * slowness;
        gated.pool.acquire_timeout = 20s * slowness;
        const auto cache = make_cache(flavour, gated.options, gated.pool);
        step.prepare(gated.schema);
        if (when != When::connecting) {
            CHECK(step.call(*cache));
            step.prepare(gated.schema);
        }
        std::optional<TableLock> lock;
        std::thread hole;
        if (when == When::waiting) {
            lock.emplace(gated.schema);
            hole = std::thread([&] {
                eventually([&] { return lock->waiting() == 1; });
                gated.gate.swallow(true);
                lock->release();
            });
        } else {
            gated.gate.swallow(true);
        }
        const auto calls = [&] {
            const auto started = Clock::now();
            const auto failure = failure_of([&] { step.call(*cache); });
            CHECK(failure.code() == Errc::timed_out);
            CHECK(Clock::now() - started >= gated.options.timeout);
            CHECK(Clock::now() - started < 3 * gated.options.timeout);
        };
        calls();
        if (hole.joinable()) {
            hole.join();
        }
        calls();

        gated.gate.swallow(false);
        const auto recovered = [&] { return !failure_of([&] { step.call(*cache); }); };
        CHECK(eventually(recovered));
        // What was held up arrives late, and is not taken for the answer to a later call.
        for (int i = 0; i < 10; ++i) {
            step.prepare(gated.schema);
            CHECK(step.call(*cache));
            CHECK(step.done(gated.schema));
        }
    });
}

TEST_CASE("Many callers in front of a black hole all leave at their own deadlines") {
    behind_gate([](Gated& gated) {
        gated.options.timeout = 500ms * slowness;
        asio::io_context context;
        AsyncPostgresCache cache(context.get_executor(), gated.pool, gated.options);
        auto warm = cache.put_raw("key", numbered(1), 1h);
        run_coro(context, std::move(warm));
        gated.gate.swallow(true);
        std::atomic<int> on_time = 0;
        const auto caller = [&](int number) -> asio::awaitable<void> {
            co_await pause(std::chrono::milliseconds(5 * (number % 50)));
            const auto started = Clock::now();
            const auto failure = co_await failure_of(cache.get_raw(std::to_string(number)));
            const auto took = Clock::now() - started;
            if (failure.code() == Errc::timed_out && took >= gated.options.timeout &&
                took < 4 * gated.options.timeout) {
                ++on_time;
            }
        };
        run_coro(context, [&]() -> asio::awaitable<void> {
            std::vector<Started<void>> callers;
            for (int i = 0; i < 200; ++i) {
                callers.push_back(start(context.get_executor(), caller(i)));
            }
            for (auto& one : callers) {
                co_await one.get();
            }
        });
        CHECK(on_time == 200);
        CHECK(gated.gate.accepted() <= 1 + gated.pool.max_size);
        gated.gate.swallow(false);
        auto get = cache.get_raw("key");
        CHECK(run_coro(context, std::move(get)) == numbered(1));
    });
}

TEST_CASE("A server that refuses is not stormed by two hundred callers, who all come back") {
    behind_gate([](Gated& gated) {
        asio::io_context context;
        AsyncPostgresCache cache(context.get_executor(), gated.pool, gated.options);
        gated.gate.refuse(true);
        const auto end = Clock::now() + 3s;
        int others = 0;
        const auto caller = [&](int number) -> asio::awaitable<void> {
            while (Clock::now() < end) {
                const auto failure = co_await failure_of(cache.get_raw(std::to_string(number)));
                others += failure.code() == Errc::connect_failed ? 0 : 1;
            }
        };
        run_coro(context, [&]() -> asio::awaitable<void> {
            std::vector<Started<void>> callers;
            for (int i = 0; i < 200; ++i) {
                callers.push_back(start(context.get_executor(), caller(i)));
            }
            for (auto& one : callers) {
                co_await one.get();
            }
        });
        CHECK(others == 0);
        CHECK(gated.gate.accepted() >= 3);
        CHECK(gated.gate.accepted() <= 30);

        gated.gate.refuse(false);
        const auto before = gated.gate.accepted();
        run_coro(context, [&]() -> asio::awaitable<void> {
            std::vector<Started<void>> callers;
            for (int i = 0; i < 200; ++i) {
                callers.push_back(start(context.get_executor(),
                                        cache.put_raw(std::to_string(i), numbered(i), 1h)));
            }
            for (auto& one : callers) {
                co_await one.get();
            }
        });
        CHECK(gated.schema.rows() == 200);
        CHECK(gated.gate.accepted() - before <= gated.pool.max_size);
    });
}

TEST_CASE("A server that refuses is not stormed by blocking callers, who all come back") {
    behind_gate([](Gated& gated) {
        PostgresCache cache(gated.pool, gated.options);
        gated.gate.refuse(true);
        const auto end = Clock::now() + 3s;
        std::atomic<int> others = 0;
        const auto on_threads = [](const std::function<void(int)>& call) {
            std::vector<std::thread> threads;
            for (int i = 0; i < 16; ++i) {
                threads.emplace_back(call, i);
            }
            for (auto& thread : threads) {
                thread.join();
            }
        };
        on_threads([&](int number) {
            while (Clock::now() < end) {
                const auto key = std::to_string(number);
                const auto code = failure_of([&] { cache.get_raw(key); }).code();
                others += code == Errc::connect_failed ? 0 : 1;
            }
        });
        CHECK(others == 0);
        CHECK(gated.gate.accepted() >= 3);
        CHECK(gated.gate.accepted() <= 30 + gated.pool.max_size);

        gated.gate.refuse(false);
        const auto before = gated.gate.accepted();
        on_threads([&](int number) {
            others +=
                failure_of([&] { cache.put_raw(std::to_string(number), numbered(number), 1h); })
                    ? 1
                    : 0;
        });
        CHECK(others == 0);
        CHECK(gated.schema.rows() == 16);
        CHECK(gated.gate.accepted() - before <= gated.pool.max_size);
    });
}

TEST_CASE("What the network does to idle connections is not noticed by the next callers") {
    behind_gate([](Gated& gated) {
        const auto flavour = OWN_CONNECTIONS();
        const auto fault = GENERATE(0, 1, 2, 3);
        CAPTURE(flavour, fault);
        const std::array<std::function<void()>, 4> faults{
            [&] { gated.gate.break_all(Cut::reset); },
            [&] { gated.gate.break_all(Cut::orderly); },
            [&] { gated.gate.half_close(Side::client); },
            [&] {
                const auto ends = gated.gate.ends();
                gated.gate.half_close(Side::server);
                CHECK(eventually([&] { return gated.gate.ends() > ends; }));
            },
        };
        const auto cache = make_cache(flavour, gated.options, gated.pool);
        for (int round = 0; round < 5; ++round) {
            for (const auto& step : every_step()) {
                CAPTURE(step.name);
                step.prepare(gated.schema);
                CHECK(step.call(*cache));
                CHECK(step.done(gated.schema));
                faults[static_cast<std::size_t>(fault)]();
                let_it_arrive();
            }
        }
        CHECK(cache->statistics().errors == 0);
        CHECK(cache->statistics().retries == 0);
        CHECK(gated.gate.accepted() >= 15);
    });
}

TEST_CASE("A stream that ends on the client's side alone is a lost connection") {
    behind_gate([](Gated& gated) {
        const auto flavour = OWN_CONNECTIONS();
        const auto& step = GENERATE(from_range(every_step()));
        CAPTURE(flavour, step.name);
        gated.options.timeout = 20s * slowness;
        const auto cache = make_cache(flavour, gated.options, gated.pool);
        step.prepare(gated.schema);
        CHECK(step.call(*cache));
        step.prepare(gated.schema);
        TableLock lock(gated.schema);
        std::thread fault([&] {
            CHECK(eventually([&] { return lock.waiting() == 1; }));
            gated.gate.half_close(Side::client);
            if (!step.writes) {
                CHECK(eventually([&] { return lock.waiting() == 2; }));
                lock.release();
            }
        });
        bool right = false;
        const auto failure = failure_of([&] { right = step.call(*cache); });
        fault.join();
        if (step.writes) {
            CHECK(failure.code() == Errc::outcome_unknown);
            lock.release();
            // Until the statement that nobody waits for any more has ended.
            CHECK(eventually([&] { return step.done(gated.schema); }));
        } else {
            CHECK_FALSE(failure);
            CHECK(right);
        }
        step.prepare(gated.schema);
        CHECK(step.call(*cache));
    });
}

TEST_CASE("A large value comes through in small pieces, and after a cut in the middle") {
    behind_gate([](Gated& gated) {
        const auto flavour = OWN_CONNECTIONS();
        const auto how = GENERATE(Cut::orderly, Cut::reset);
        CAPTURE(flavour, static_cast<int>(how));
        constexpr std::size_t bytes = 8 << 20;
        const auto value = large_value(bytes);
        auto other = value;
        other["other"] = true;
        gated.options.timeout = 20s * slowness;
        const auto cache = make_cache(flavour, gated.options, gated.pool);
        gated.gate.pieces(1357);
        cache->put("key", value, 1h);
        CHECK(gated.gate.to_server() > bytes);
        CHECK((cache->get("key") == value));
        CHECK(gated.gate.from_server() > bytes);

        gated.gate.cut_after(bytes / 2, how);
        CHECK((cache->get("key") == value));
        CHECK(eventually([&] { return gated.gate.cuts() == 1; }));
        CHECK(cache->statistics().retries == 1);

        CHECK_FALSE(cache->remove("absent"));  // so that a warm connection is there
        gated.gate.cut_after(bytes / 2, how, Side::client);
        const auto failure = failure_of([&] { cache->put("key", other, 1h); });
        CHECK(eventually([&] { return gated.gate.cuts() == 2; }));
        CHECK((failure.code() == Errc::outcome_unknown || failure.code() == Errc::connection_lost));
        CHECK((cache->get("key") == value));
        cache->put("key", other, 1h);
        CHECK((cache->get("key") == other));
    });
}

TEST_CASE("A cache goes over to the next host when the first one goes, and shares out the time") {
    behind_gate([](Gated& gated) {
        const auto flavour = OWN_CONNECTIONS();
        CAPTURE(flavour);
        Gate second(*tcp_port());
        second.switch_on();
        gated.pool.dsn = dsn_with(
            {{"host", "127.0.0.1,127.0.0.1"}, {"port", gated.gate.port() + "," + second.port()}},
            gated.pool.dsn);
        gated.pool.connect_timeout = 1s * slowness;
        gated.pool.acquire_timeout = 4s * slowness;
        gated.options.timeout = 4s * slowness;
        const auto cache = make_cache(flavour, gated.options, gated.pool);
        cache->put("key", numbered(1), 1h);
        CHECK(second.accepted() == 0);

        SECTION("The first host refuses") {
            gated.gate.switch_off();
            let_it_arrive();
            CHECK(cache->get("key") == numbered(1));
            CHECK(second.accepted() == 1);
        }
        SECTION("The first host is a black hole") {
            gated.gate.break_all(Cut::orderly);
            let_it_arrive();
            gated.gate.swallow(true);
            const auto started = Clock::now();
            CHECK(cache->get("key") == numbered(1));
            CHECK(Clock::now() - started >= gated.pool.connect_timeout / 2);
            CHECK(Clock::now() - started < 2 * gated.pool.connect_timeout);
            CHECK(second.accepted() == 1);
        }
        SECTION("Both are black holes") {
            gated.gate.break_all(Cut::orderly);
            let_it_arrive();
            gated.gate.swallow(true);
            second.swallow(true);
            const auto started = Clock::now();
            CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::connect_failed);
            CHECK(Clock::now() - started >= gated.pool.connect_timeout);
            CHECK(Clock::now() - started < 2 * gated.pool.connect_timeout);
            CHECK(second.accepted() == 1);
            second.swallow(false);
            gated.gate.swallow(false);
        }
        cache->put("key", numbered(2), 1h);
        CHECK(cache->get("key") == numbered(2));
    });
}

TEST_CASE("Answers over TLS that come in small pieces are right, whatever their size") {
    if (std::getenv("PSYCACHE_TEST_TLS_CERT") == nullptr) {
        WARN("PSYCACHE_TEST_TLS_CERT is not set: TLS is not tested");
        return;
    }
    behind_gate([](Gated& gated) {
        const auto flavour = OWN_CONNECTIONS();
        const std::size_t piece = GENERATE(0u, 100u, 1400u, 8191u, 20000u);
        CAPTURE(flavour, piece);
        gated.pool.dsn = dsn_with({{"sslmode", "require"}}, gated.pool.dsn);
        const auto cache = make_cache(flavour, gated.options, gated.pool);
        CHECK(cache->get("absent") == std::nullopt);
        CHECK(gated.schema.sql().truth(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE "
            "application_name = " +
            quote_literal(gated.name)));
        gated.gate.pieces(piece);
        for (const std::size_t bytes : {1000u, 8000u, 8100u, 8192u, 15000u, 16384u, 17000u, 24500u,
                                        32768u, 33000u, 50000u, 70000u, 1048576u}) {
            CAPTURE(bytes);
            const auto value = large_value(bytes);
            cache->put("key", value, 1h);
            CHECK((cache->get("key") == value));
        }
        CHECK(cache->statistics().retries == 0);
    });
}
