#pragma once

/// @file
/// The caches under test, of every kind, on one table.

#include <memory>
#include <string>
#include <vector>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/postgres_cache.hpp>

#include "soak/site.hpp"
#include "soak/spans.hpp"
#include "soak/subject.hpp"
#include "support/gate.hpp"
#include "support/run_coro.hpp"

namespace psycache::soak {

/// A cache for coroutines, and the threads that run it.
struct AsyncActor {
    AsyncActor(const std::string& name, test::Threads& its_threads, AsyncPostgresCache its_cache,
               const CacheOptions& options);

    Subject subject;
    test::Threads& threads;
    AsyncPostgresCache cache;
};

/// A cache for threads.
struct BlockingActor {
    BlockingActor(const std::string& name, const PoolOptions& pool, const CacheOptions& options);

    Subject subject;
    PostgresCache cache;
};

/// All caches, with their threads and their cleanup loops.
class Stage {
  public:
    explicit Stage(const Site& site);
    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;
    /// Ends everything; to be called when nobody calls the caches any more. @returns whether all
    /// ended in time.
    bool finish();

    const std::vector<std::unique_ptr<AsyncActor>>& async_actors() const { return async_actors_; }
    BlockingActor& blocking() { return *blocking_; }
    std::vector<Subject*> subjects();
    /// The event loops of the callers.
    std::vector<boost::asio::io_context*> loops() {
        return {&threads_.context(), &other_threads_.context()};
    }
    /// Some of the caches reach the server through it.
    test::Gate& gate() { return gate_; }
    const std::shared_ptr<OpenSpans>& spans() const { return spans_; }

  private:
    std::shared_ptr<OpenSpans> spans_ = std::make_shared<OpenSpans>();
    test::Gate gate_;
    test::Threads threads_{2};
    test::Threads other_threads_{1};  // as if it were another process
    std::vector<std::unique_ptr<AsyncActor>> async_actors_;
    std::unique_ptr<BlockingActor> blocking_;
    AsyncCleanupService cleanup_;
    AsyncCleanupService other_cleanup_;
    CleanupService blocking_cleanup_;
};

}  // namespace psycache::soak
