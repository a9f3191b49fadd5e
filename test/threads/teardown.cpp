// Contexts, caches and pools that go away under calls of every kind, wherever those stand.

#include <algorithm>
#include <atomic>
#include <boost/asio/detached.hpp>
#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include <psycache/psycache.hpp>

#include "support/any_call.hpp"
#include "support/leave.hpp"
#include "support/open_spans.hpp"
#include "support/schema.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// What keeps the calls from ending.
enum class Obstacle {
    none,
    connecting,  ///< no connection is open yet
    locked,      ///< statements hang on the table
    starved      ///< all connections are lent to somebody else
};

/// What goes away before the context does.
enum class Order {
    handles,         ///< those of the cache and of the pool
    closed_pool,     ///< the pool is closed, then both
    running_handles  ///< the handles, while the context still runs
};

/// What calls have told; outlives all of them.
struct Endings {
    std::atomic<int> begun = 0;
    std::atomic<int> ended = 0;
    std::atomic<int> wrong = 0;
};

asio::awaitable<void> leave_and_tell(asio::awaitable<void> call, Departure departure,
                                     Endings& endings) {
    ++endings.begun;
    const Attempt attempt = co_await leave(std::move(call), departure);
    ++endings.ended;
    const auto& code = attempt.failure.code();
    const bool cancelled = code == asio::error::operation_aborted && departure.leaves();
    const bool refused = code == Errc::pool_closed;
    endings.wrong += !code || cancelled || refused ? 0 : 1;
}

/// A context with a cache in full use.
class Site {
  public:
    Site(const PoolOptions& pool_options, const CacheOptions& options, bool strands)
        : pool_(std::make_shared<ConnectionPool>(context.get_executor(), pool_options)),
          cache_(std::in_place, pool_, options),
          strands_(strands) {}

    /// Opens all connections, and lends them or lays them aside.
    void prepare(Obstacle obstacle) {
        if (obstacle == Obstacle::connecting) {
            return;
        }
        leases_ = run_coro(context, [this]() -> asio::awaitable<std::vector<ConnectionLease>> {
            std::vector<ConnectionLease> all;
            for (std::size_t i = 0; i < pool_->statistics().max_size; ++i) {
                all.push_back(co_await pool_->connect());
            }
            co_return all;
        });
        if (obstacle != Obstacle::starved) {
            leases_.clear();
        }
        context.restart();
    }

    /// Starts two calls of every kind, and what else a cache can be asked for.
    void occupy(std::mt19937& random, Endings& endings) {
        for (int i = 0; i < 2; ++i) {
            for (const auto* calls : {&writes(), &reads(), &maintenance()}) {
                for (const auto& [name, call] : *calls) {
                    spawn(call(*cache_), Departure(random, name == "run_cleanup"), endings);
                }
            }
            spawn(connect(*pool_), Departure(random), endings);
        }
        services_.push_back(cache_->start_cleanup_task(1ms));
        services_.push_back(cache_->start_cleanup_task(1ms));
        spawn(stop(services_.back()), Departure(random), endings);
    }

    void let_go(Order order) {
        if (order == Order::closed_pool) {
            pool_->close();
        }
        services_.clear();
        leases_.clear();
        cache_.reset();
        pool_.reset();
    }

    asio::io_context context;

  private:
    static asio::awaitable<void> connect(ConnectionPool& pool) {
        return test::detail::dropped(pool.connect());
    }
    static asio::awaitable<void> stop(AsyncCleanupService& service) {
        return test::detail::dropped(service.stop());
    }

    void spawn(asio::awaitable<void> call, Departure departure, Endings& endings) {
        auto whole = leave_and_tell(std::move(call), departure, endings);
        if (strands_) {
            asio::co_spawn(asio::make_strand(context), std::move(whole), asio::detached);
        } else {
            asio::co_spawn(context, std::move(whole), asio::detached);
        }
    }

    std::shared_ptr<ConnectionPool> pool_;
    std::optional<AsyncPostgresCache> cache_;
    std::vector<ConnectionLease> leases_;
    std::vector<AsyncCleanupService> services_;
    const bool strands_;
};

/// What is left behind by all sites of a test.
class Ruins {
  public:
    Ruins() : descriptors_(open_descriptors()) {
        pool.options.max_size = 2;
        pool.options.acquire_timeout = patience;
        pool.options.connect_timeout = patience / 2;
        options = schema.cache_options();
        options.timeout = patience;
        options.instrumentations = {spans};
    }

    void look() {
        CHECK(endings.wrong == 0);
        CHECK(endings.begun > 0);
        CHECK(endings.ended <= endings.begun);
        CHECK(spans->opened > 0);
        CHECK(spans->opened == spans->closed);
        CHECK(eventually([&] { return schema.sql().connections(pool.name) == 0; }));
        // The schema's own connection is one.
        CHECK(open_descriptors() <= descriptors_ + 1);
        const auto mixed = "value <> '{\"n\": 1}' OR key NOT LIKE 'key%'";
        CHECK(schema.rows(mixed) == 0);
    }

  private:
    std::size_t descriptors_;

  public:
    TestSchema schema;
    NamedPool pool;
    CacheOptions options;
    std::shared_ptr<OpenSpans> spans = std::make_shared<OpenSpans>();
    Endings endings;
};

}  // namespace

TEST_CASE("A context goes away after any number of turns, with calls of every kind in it") {
    const auto obstacle =
        GENERATE(Obstacle::none, Obstacle::connecting, Obstacle::locked, Obstacle::starved);
    const auto order = GENERATE(Order::handles, Order::closed_pool, Order::running_handles);
    CAPTURE(static_cast<int>(obstacle), static_cast<int>(order));
    Ruins ruins;
    std::mt19937 random(1);
    const auto end = Clock::now() + 8s;
    for (int turns = 0; turns < 400 && Clock::now() < end; turns += 1 + turns / 8) {
        Site site(ruins.pool.options, ruins.options, false);
        site.prepare(obstacle);
        std::optional<TableLock> lock;
        if (obstacle == Obstacle::locked) {
            lock.emplace(ruins.schema);
        }
        site.occupy(random, ruins.endings);
        for (int turn = 0; turn < turns; ++turn) {
            site.context.run_one_for(1ms);
        }
        site.let_go(order);
        if (order == Order::running_handles) {
            site.context.run_for(1ms);
        }
    }
    ruins.look();
}

TEST_CASE("Calls of every kind come to an end when the handles of their cache are gone") {
    const auto order = GENERATE(Order::handles, Order::closed_pool);
    CAPTURE(static_cast<int>(order));
    Ruins ruins;
    std::mt19937 random(2);
    const auto end = Clock::now() + 8s;
    for (int turns = 0; turns < 400 && Clock::now() < end; turns += 1 + turns / 8) {
        Site site(ruins.pool.options, ruins.options, false);
        site.prepare(Obstacle::none);
        site.occupy(random, ruins.endings);
        for (int turn = 0; turn < turns; ++turn) {
            site.context.run_one_for(1ms);
        }
        site.let_go(order);
        REQUIRE(run_out(site.context));
    }
    CHECK(ruins.endings.ended == ruins.endings.begun);
    ruins.look();
}

TEST_CASE("A context is stopped and goes away while three threads run calls of every kind") {
    const auto obstacle =
        GENERATE(Obstacle::none, Obstacle::connecting, Obstacle::locked, Obstacle::starved);
    CAPTURE(static_cast<int>(obstacle));
    Ruins ruins;
    std::mt19937 random(3);
    const auto end = Clock::now() + 2s;
    for (int round = 0; round < 200 && Clock::now() < end; ++round) {
        Site site(ruins.pool.options, ruins.options, true);
        site.prepare(obstacle);
        std::optional<TableLock> lock;
        if (obstacle == Obstacle::locked) {
            lock.emplace(ruins.schema);
        }
        site.occupy(random, ruins.endings);
        std::vector<std::thread> threads;
        for (int i = 0; i < 3; ++i) {
            threads.emplace_back([&site] { site.context.run(); });
        }
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 6000));
        if (round % 2 == 0) {
            site.let_go(Order::handles);
        }
        site.context.stop();
        for (auto& thread : threads) {
            thread.join();
        }
        site.let_go(Order::handles);
    }
    ruins.look();
}
