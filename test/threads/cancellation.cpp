// Calls of every kind that are left at every point where they can stand: each ends once, and with
// the truth.
//
// PSYCACHE_CANCEL_CALLS says how many calls are made in all.

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <future>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <thread>

#include <boost/json/serialize.hpp>
#include <psycache/psycache.hpp>

#include "support/leave.hpp"
#include "support/open_spans.hpp"
#include "support/schema.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t connections = 3;
constexpr unsigned user_count = 96;
/// So many calls in all by default, of which a part goes to each way of running them.
constexpr long usual_calls = slowness == 1 ? 300'000 : 60'000;

long calls_in_all() {
    const char* text = std::getenv("PSYCACHE_CANCEL_CALLS");
    return text != nullptr ? std::strtol(text, nullptr, 10) : usual_calls;
}

using Number = std::optional<std::int64_t>;

/// A value that carries its key, and its number several times over.
json::object value_of(const std::string& key, std::int64_t number) {
    json::object value;
    value["k"] = key;
    value["n"] = json::array({number, number, number});
    return value;
}

/// What a value says, if it is a whole one and belongs to the key.
Number number_in(const std::string& key, const json::object& value) {
    const auto* array = value.if_contains("n") != nullptr ? value.at("n").if_array() : nullptr;
    const bool whole = array != nullptr && array->size() == 3 && (*array)[0].is_int64();
    if (!whole || value != value_of(key, (*array)[0].get_int64())) {
        return std::nullopt;
    }
    return (*array)[0].get_int64();
}

/// What one caller knows of a key that nobody else writes.
class Knowledge {
  public:
    void is(Number number) { certain_ = number; }
    /// A write that nobody knows the end of: it may be done, or may still come.
    void may_become(Number number) { possible_.insert(number); }
    bool may_be(const Number& number) const {
        return number == certain_ || possible_.contains(number);
    }
    bool may_be_there() const {
        return certain_ || possible_.size() > (possible_.contains(std::nullopt) ? 1u : 0u);
    }
    /// Nothing is under way any more.
    void settle(Number number) {
        certain_ = number;
        possible_.clear();
    }

  private:
    Number certain_;
    std::set<Number> possible_;
};

/// What went wrong, and how often each ending came.
struct Report {
    void wrong(const std::string& what) {
        if (++mistakes < 20) {
            lines.write(what);
        }
    }

    Journal lines;
    std::atomic<int> mistakes = 0;
    std::atomic<long> begun = 0;
    std::atomic<long> ended = 0;
    std::atomic<long> answered = 0;
    std::atomic<long> cancelled = 0;
    std::atomic<long> late = 0;
    std::atomic<long> broken = 0;
    std::atomic<long> failures = 0;  // of gets, puts and removes
};

/// Learns as well whether any statement was slow enough to be given up, which costs its connection.
class Watching : public OpenSpans {
  public:
    void record_statement(const StatementInfo& info) override {
        slow = slow || info.took > std::chrono::seconds(1);
    }

    std::atomic<bool> slow = false;
};

/// Where the cache and its callers run.
enum class Layout { one_thread, three_threads, two_contexts };

/// The contexts of a layout.
class Stage {
  public:
    explicit Stage(Layout layout)
        : layout_(layout), home_(layout == Layout::three_threads ? 3 : 1) {
        if (layout == Layout::two_contexts) {
            callers_.emplace(2);
        }
    }

    asio::any_io_executor home() { return home_.context().get_executor(); }

    std::future<void> spawn(asio::awaitable<void> caller) {
        if (layout_ == Layout::one_thread) {
            return asio::co_spawn(home_.context(), std::move(caller), asio::use_future);
        }
        auto& context = callers_ ? callers_->context() : home_.context();
        return asio::co_spawn(asio::make_strand(context), std::move(caller), asio::use_future);
    }

    /// @returns whether all contexts ran out of work in time.
    bool finish() { return (!callers_ || callers_->finish()) && home_.finish(); }

  private:
    Layout layout_;
    Threads home_;
    std::optional<Threads> callers_;
};

/// What all users share.
class World {
  public:
    World(Layout layout, bool rough) : rough_(rough), stage_(layout) {
        named_.options.max_size = connections;
        named_.options.acquire_timeout = patience;
        named_.options.connect_timeout = patience / 2;
        named_.options.instrumentations = {tally};
        pool_ = std::make_shared<ConnectionPool>(stage_.home(), named_.options);
        CacheOptions options = schema.cache_options();
        options.instrumentations = {spans};
        options.timeout = patience;
        options.maintenance_timeout = patience;
        patient_.emplace(pool_, options);
        options.timeout = 1ms;
        impatient_.emplace(pool_, options);
        options.timeout = patience;
        options.schema = other_schema.name();
        maintained_.emplace(pool_, options);
    }

    /// Whether the server is being disturbed.
    bool rough() const { return rough_; }
    const std::string& application() const { return named_.name; }
    Stage& stage() { return stage_; }
    ConnectionPool& pool() { return *pool_; }
    AsyncPostgresCache& patient() { return *patient_; }
    /// Its calls have a deadline of a millisecond.
    AsyncPostgresCache& impatient() { return *impatient_; }
    /// Has a table of its own, where flush hurts nobody.
    AsyncPostgresCache& maintained() { return *maintained_; }

    /// Of the calls that users alone make.
    std::uint64_t counted_errors() const {
        return patient_->statistics().errors + impatient_->statistics().errors;
    }
    bool quiet() {
        const auto pool = pool_->statistics();
        const auto queued = patient_->statistics().queued + impatient_->statistics().queued +
                            maintained_->statistics().queued;
        return queued == 0 && pool.busy == 0 && pool.waiting == 0 && pool.connecting == 0 &&
               schema.sql().number(
                   "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' "
                   "AND application_name = " +
                   quote_literal(application())) == 0;
    }
    /// Lets go of the caches and the pool; their contexts go on.
    void let_go() {
        patient_.reset();
        impatient_.reset();
        maintained_.reset();
        pool_.reset();
    }

    TestSchema schema;
    TestSchema other_schema;
    Report report;
    std::shared_ptr<Watching> spans = std::make_shared<Watching>();
    std::shared_ptr<TallyInstrumentation> tally = std::make_shared<TallyInstrumentation>();

  private:
    const bool rough_;
    NamedPool named_;
    Stage stage_;
    std::shared_ptr<ConnectionPool> pool_;
    std::optional<AsyncPostgresCache> patient_;
    std::optional<AsyncPostgresCache> impatient_;
    std::optional<AsyncPostgresCache> maintained_;
};

/// One caller, who makes one call after another on keys of its own and remembers what it knows.
class User {
  public:
    User(World& world, unsigned id) : world_(world), random_(id) {
        for (std::size_t i = 0; i < keys_.size(); ++i) {
            keys_[i] = "user" + std::to_string(id) + "/" + std::to_string(i);
        }
    }

    /// Makes so many calls.
    asio::awaitable<void> act(long calls, Clock::time_point end) {
        for (long i = 0; i < calls && Clock::now() < end; ++i) {
            try {
                co_await one_call();
            } catch (const std::exception& error) {
                world_.report.wrong(std::string("a user fails: ") + error.what());
                co_return;
            }
        }
    }

    /// Compares what is stored with what is known. For when nothing is under way.
    void settle(const std::map<std::string, json::object>& rows) {
        for (std::size_t i = 0; i < keys_.size(); ++i) {
            const auto row = rows.find(keys_[i]);
            saw(i, row == rows.end() ? std::nullopt : std::optional(row->second), "the table");
            known_[i].settle(row == rows.end() ? Number() : number_in(keys_[i], row->second));
        }
    }

  private:
    enum class Kind {
        get_raw,
        put_raw,
        remove,
        get_text,
        put_text,
        get_raw_many,
        put_raw_many,
        remove_many,
        cleanup_expired,
        flush,
        run_cleanup,
        connect,
        stop
    };

    /// What a write changes: the places and what they become.
    using Changes = std::vector<std::pair<std::size_t, Number>>;

    static Kind kind_of(unsigned long dice) {
        using K = Kind;
        static constexpr Kind common[] = {
            K::get_raw,  K::get_raw,  K::get_raw,      K::get_raw,      K::put_raw,
            K::put_raw,  K::put_raw,  K::put_raw,      K::remove,       K::remove,
            K::get_text, K::put_text, K::get_raw_many, K::put_raw_many, K::remove_many};
        static constexpr Kind rare[] = {K::cleanup_expired, K::flush,       K::flush, K::connect,
                                        K::connect,         K::run_cleanup, K::stop,  K::connect};
        return dice % 16 == 15 ? rare[dice / 16 % 8] : common[dice % 16];
    }

    asio::awaitable<void> one_call() {
        const Kind kind = kind_of(random_());
        if (kind == Kind::stop) {
            co_await start_and_stop();
            co_return;
        }
        const Departure departure(random_, kind == Kind::run_cleanup);
        const bool hurried = random_() % 4 == 0;
        AsyncPostgresCache& cache = hurried ? world_.impatient() : world_.patient();
        const std::size_t place = random_() % keys_.size();
        Changes changes = changes_of(kind, place);
        auto call = call_of(kind, cache, place, changes);
        const Attempt attempt = co_await leave(std::move(call), departure);
        judge(kind, departure, hurried, attempt);
        apply(kind, departure, attempt, changes);
    }

    /// A cleanup task may be left by who waits for its end, and ends all the same.
    asio::awaitable<void> start_and_stop() {
        auto service = world_.maintained().start_cleanup_task(Duration(1 + random_() % 1000));
        const Departure departure(random_);
        const Attempt attempt = co_await leave(stop(service), departure);
        judge(Kind::stop, departure, false, attempt);
        const bool stopped = co_await service.stop(std::nullopt);
        if (!stopped) {
            world_.report.wrong("a cleanup task does not stop");
        }
    }

    Changes changes_of(Kind kind, std::size_t place) {
        Changes changes;
        const bool removes = kind == Kind::remove || kind == Kind::remove_many;
        const auto becomes = removes ? Number() : Number(++last_number_);
        if (kind == Kind::put_raw || kind == Kind::put_text || kind == Kind::remove) {
            changes.emplace_back(place, becomes);
        } else if (kind == Kind::put_raw_many || kind == Kind::remove_many) {
            for (std::size_t i = 0; i < keys_.size(); ++i) {
                changes.emplace_back(i, becomes);
            }
        }
        return changes;
    }

    asio::awaitable<void> call_of(Kind kind, AsyncPostgresCache& cache, std::size_t place,
                                  const Changes& changes) {
        switch (kind) {
            case Kind::get_raw:
                return get_raw(cache, place);
            case Kind::get_text:
                return get_text(cache, place);
            case Kind::put_raw:
                return cache.put_raw(keys_[place], value_of(keys_[place], last_number_), 1h);
            case Kind::put_text:
                return cache.put_text(keys_[place],
                                      json::serialize(value_of(keys_[place], last_number_)), 1h);
            case Kind::remove:
                return remove(cache, place);
            case Kind::get_raw_many:
                return get_raw_many(cache, place);
            case Kind::put_raw_many:
                return cache.put_raw_many(entries(changes));
            case Kind::remove_many:
                return remove_many(cache);
            case Kind::cleanup_expired:
                return cleanup_expired();
            case Kind::flush:
                return flush();
            case Kind::run_cleanup:
                return world_.maintained().run_cleanup(Duration(1 + random_() % 500));
            default:
                return connect();
        }
    }

    asio::awaitable<void> get_raw(AsyncPostgresCache cache, std::size_t place) {
        const auto value = co_await cache.get_raw(keys_[place]);
        saw(place, value, "get_raw");
    }
    asio::awaitable<void> get_text(AsyncPostgresCache cache, std::size_t place) {
        const auto text = co_await cache.get_text(keys_[place]);
        saw(place, text ? std::optional(object(*text)) : std::nullopt, "get_text");
    }
    asio::awaitable<void> get_raw_many(AsyncPostgresCache cache, std::size_t place) {
        std::vector<std::string> keys(keys_.begin(), keys_.end());
        keys.push_back(keys_[place]);
        const auto values = co_await cache.get_raw_many(std::move(keys));
        for (std::size_t i = 0; i < keys_.size(); ++i) {
            saw(i, values.at(i), "get_raw_many");
        }
        saw(place, values.at(keys_.size()), "get_raw_many, repeated");
    }
    asio::awaitable<void> remove(AsyncPostgresCache cache, std::size_t place) {
        const bool existed = co_await cache.remove(keys_[place]);
        const Knowledge& known = known_[place];
        if (existed ? !known.may_be_there() : !known.may_be(std::nullopt)) {
            world_.report.wrong("remove says what cannot be");
        }
    }
    asio::awaitable<void> remove_many(AsyncPostgresCache cache) {
        std::vector<std::string> keys(keys_.begin(), keys_.end());
        const auto existed = co_await cache.remove_many(std::move(keys));
        std::size_t least = 0;
        std::size_t most = 0;
        for (const Knowledge& known : known_) {
            least += known.may_be(std::nullopt) ? 0 : 1;
            most += known.may_be_there() ? 1 : 0;
        }
        if (existed < least || existed > most) {
            world_.report.wrong("remove_many counts wrongly");
        }
    }
    asio::awaitable<void> flush() { co_await world_.maintained().flush(); }
    asio::awaitable<void> cleanup_expired() { co_await world_.maintained().cleanup_expired(); }
    asio::awaitable<void> connect() {
        const ConnectionLease lease = co_await world_.pool().connect();
        PGconn* connection = lease.native_handle();
        // One that the server has ended may be lent: its next statement finds out.
        if (PQstatus(connection) != CONNECTION_OK ||
            PQtransactionStatus(connection) != PQTRANS_IDLE) {
            world_.report.wrong("a connection is lent that is not idle");
        }
    }
    asio::awaitable<void> stop(AsyncCleanupService& service) {
        std::optional<Duration> timeout;
        if (random_() % 2 == 0) {
            timeout = Duration(random_() % 2000);
        }
        co_await service.stop(timeout);
    }

    std::vector<Entry> entries(const Changes& changes) const {
        std::vector<Entry> all;
        for (const auto& [place, number] : changes) {
            all.push_back(Entry(keys_[place], value_of(keys_[place], number.value_or(0)), 1h));
        }
        return all;
    }

    void saw(std::size_t place, const std::optional<json::object>& value, const char* where) {
        Number number;
        if (value) {
            number = number_in(keys_[place], *value);
            if (!number) {
                world_.report.wrong(std::string(where) + " shows a value that is mixed or of " +
                                    "another key: " + json::serialize(*value));
                return;
            }
        }
        if (!known_[place].may_be(number)) {
            world_.report.wrong(std::string(where) + " shows a value that cannot be: " +
                                (number ? std::to_string(*number) : "none"));
        }
    }

    /// Whether the call ended once, and in a way that it may.
    void judge(Kind kind, const Departure& departure, bool hurried, const Attempt& attempt) {
        Report& report = world_.report;
        report.begun += attempt.begun;
        report.ended += attempt.ended;
        if (attempt.ended != attempt.begun || attempt.begun > 1) {
            report.wrong("a call did not end exactly once");
        }
        const Failure& failure = attempt.failure;
        if (attempt.begun == 0) {
            return;
        }
        if (!failure) {
            ++report.answered;
            return;
        }
        report.failures += kind < Kind::cleanup_expired ? 1 : 0;
        const bool writes_one = kind == Kind::put_raw || kind == Kind::put_text ||
                                kind == Kind::remove || kind == Kind::put_raw_many ||
                                kind == Kind::remove_many || kind == Kind::flush;
        bool expected = false;
        if (failure.code() == asio::error::operation_aborted) {
            expected = departure.leaves();
            ++report.cancelled;
        } else if (failure.code() == Errc::timed_out) {
            expected = hurried && kind < Kind::cleanup_expired;
            ++report.late;
        } else {
            expected = world_.rough() && (failure.code() == Errc::connection_lost ||
                                          (failure.code() == Errc::outcome_unknown && writes_one));
            ++report.broken;
        }
        if (!expected || !failure.typed()) {
            report.wrong("kind " + std::to_string(static_cast<int>(kind)) + " ends with " +
                         failure.what() + " " + failure.sqlstate());
        }
    }

    void apply(Kind kind, const Departure& departure, const Attempt& attempt,
               const Changes& changes) {
        const auto& code = attempt.failure.code();
        const bool of_many = kind == Kind::put_raw_many || kind == Kind::remove_many;
        const bool uncertain =
            of_many || code == Errc::timed_out || code == Errc::outcome_unknown ||
            (code == asio::error::operation_aborted && !departure.asks_for_no_effect());
        for (const auto& [place, number] : changes) {
            if (attempt.begun == 0) {
                continue;
            }
            if (!attempt.failure) {
                known_[place].is(number);
            } else if (uncertain) {
                known_[place].may_become(number);
            }
        }
    }

    World& world_;
    std::mt19937 random_;
    std::array<std::string, 3> keys_;
    std::array<Knowledge, 3> known_;
    std::int64_t last_number_ = 0;
};

/// Disturbs the server for as long as it lives: locks the table or some rows, and ends backends,
/// also those that wait for the lock.
class Disturbance {
  public:
    explicit Disturbance(World& world)
        : table_(world.schema.table()),
          application_(quote_literal(world.application())),
          thread_([this] { run(); }) {}
    Disturbance(const Disturbance&) = delete;
    Disturbance& operator=(const Disturbance&) = delete;
    ~Disturbance() {
        over_ = true;
        thread_.join();
    }

  private:
    void run() {
        Psql sql;
        std::mt19937 random(1);
        while (!over_) {
            sql.exec(random() % 2 == 0 ? "BEGIN; LOCK TABLE " + table_
                                       : "BEGIN; SELECT 1 FROM " + table_ +
                                             " WHERE random() < 0.1 ORDER BY key FOR UPDATE");
            std::this_thread::sleep_for(2ms);
            if (random() % 3 != 0) {
                sql.exec(
                    "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
                    "WHERE application_name = " +
                    application_ + " ORDER BY state = 'active' DESC, random() LIMIT 1) AS one");
            }
            sql.exec("COMMIT");
            std::this_thread::sleep_for(2ms);
        }
    }

    std::string table_;
    std::string application_;
    std::atomic<bool> over_ = false;
    std::thread thread_;
};

/// Uses each connection of the pool in turn, while all others are lent.
asio::awaitable<void> use_every_connection(World& world) {
    std::vector<ConnectionLease> leases;
    for (std::size_t i = 0; i < connections; ++i) {
        leases.push_back(co_await world.pool().connect());
    }
    for (std::size_t i = 0; i < connections; ++i) {
        const auto transaction = PQtransactionStatus(leases[i].native_handle());
        leases[i] = ConnectionLease();
        const auto key = "every" + std::to_string(i);
        auto value = value_of(key, static_cast<std::int64_t>(i));
        co_await world.patient().put_raw(key, std::move(value), 1h);
        const auto seen = co_await world.patient().get_raw(key);
        if (transaction != PQTRANS_IDLE || !seen || !number_in(key, *seen)) {
            world.report.wrong("a connection was left in disorder");
        }
        leases[i] = co_await world.pool().connect();
    }
}

bool ends_in_time(std::vector<std::future<void>>& futures, Clock::time_point end) {
    const auto deadline = end + patience;
    return std::all_of(futures.begin(), futures.end(), [&](auto& future) {
        return future.wait_until(deadline) == std::future_status::ready;
    });
}

std::map<std::string, json::object> rows_of(TestSchema& schema) {
    std::map<std::string, json::object> rows;
    for (const auto& row : schema.sql().exec("SELECT key, value FROM " + schema.table())) {
        rows[row[0]] = object(row[1]);
    }
    return rows;
}

/// Lets all users act at once, waits until nothing is under way, and looks at what is left.
void storm(World& world, std::vector<std::unique_ptr<User>>& users, long calls_each,
           Clock::time_point end) {
    {
        std::optional<Disturbance> disturbance;
        if (world.rough()) {
            disturbance.emplace(world);
        }
        std::vector<std::future<void>> ends;
        for (const auto& user : users) {
            ends.push_back(world.stage().spawn(user->act(calls_each, end)));
        }
        REQUIRE(ends_in_time(ends, end));
    }
    REQUIRE(eventually([&] { return world.quiet(); }));
    const auto rows = rows_of(world.schema);
    for (const auto& user : users) {
        user->settle(rows);
    }
    CHECK(world.report.lines.lines() == std::vector<std::string>{});
    CHECK(world.report.begun == world.report.ended);
    CHECK(world.spans->opened == world.spans->closed);
}

/// @param calls made in several storms.
void weather(Layout layout, bool rough, long calls) {
    constexpr long storms = 5;
    const long calls_each = calls / storms / user_count + 1;
    // A slow machine makes fewer.
    const auto at_most = 20s * std::max(1L, calls_in_all() / usual_calls);
    const auto descriptors = open_descriptors();
    {
        World world(layout, rough);
        std::vector<std::unique_ptr<User>> users;
        for (unsigned id = 0; id < user_count; ++id) {
            users.push_back(std::make_unique<User>(world, id));
        }
        const auto begin = Clock::now();
        for (long i = 0; i < storms; ++i) {
            world.other_schema.insert_many("old" + std::to_string(i) + "/", 1500, "'-infinity'");
            storm(world, users, calls_each, begin + at_most * (i + 1) / storms);
        }
        const Report& report = world.report;
        CHECK(world.counted_errors() == static_cast<std::uint64_t>(report.failures));
        // The storm was one: calls ended in each of the ways they can.
        CHECK(report.answered > 0);
        CHECK(report.cancelled > 0);
        CHECK(report.late > 0);
        // No connection is closed because a caller lost patience.
        CHECK((world.spans->slow || (world.pool().statistics().lost > 0) == rough));
        std::cout << "calls " << report.begun << " answered " << report.answered << " cancelled "
                  << report.cancelled << " late " << report.late << " broken " << report.broken
                  << " in " << std::chrono::duration<double>(Clock::now() - begin).count() << " s"
                  << std::endl;

        std::vector<std::future<void>> check;
        check.push_back(world.stage().spawn(use_every_connection(world)));
        REQUIRE(ends_in_time(check, Clock::now()));
        CHECK_NOTHROW(check.front().get());
        CHECK(report.lines.lines() == std::vector<std::string>{});
        CHECK(eventually([&] { return world.quiet(); }));
        CHECK(world.pool().statistics().open == connections);
        CHECK(world.schema.sql().connections(world.application()) == connections);
        // Idle connections are no work: the contexts come to their ends beside them.
        CHECK(world.stage().finish());
        world.let_go();
        CHECK(world.tally->sum() == PoolChange());
        CHECK(eventually([&] { return world.schema.sql().connections(world.application()) == 0; }));
    }
    CHECK(open_descriptors() <= descriptors);
}

}  // namespace

TEST_CASE("Calls of every kind that are left at any moment end once and with the truth") {
    const auto layout = GENERATE(Layout::one_thread, Layout::three_threads, Layout::two_contexts);
    CAPTURE(static_cast<int>(layout));
    weather(layout, false, calls_in_all() / 4);
}

TEST_CASE("Calls that are left while rows are locked and backends end end once, with the truth") {
    const auto layout = GENERATE(Layout::one_thread, Layout::three_threads, Layout::two_contexts);
    CAPTURE(static_cast<int>(layout));
    weather(layout, true, calls_in_all() / 12);
}
