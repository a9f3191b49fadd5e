// Operations on one key amid faults: what was acknowledged is counted once, whoever counts, and
// what is not known is not more than that.

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <mutex>
#include <set>
#include <thread>

#include "faults/load.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// How calls that change something have ended.
struct Ends {
    std::atomic<int> done{0};
    std::atomic<int> open{0};  // may have taken effect or not
    Journal wrong;

    /// @param call is done once. @returns whether it was acknowledged.
    template <class Call>
    bool run(const Call& call) {
        const Failure failure = failure_of(call);
        if (!failure) {
            ++done;
            return true;
        }
        if (failure.code() == Condition::outcome_unknown) {
            ++open;
        } else if (!(failure.code() == Condition::transient ||
                     failure.code() == Condition::unavailable)) {
            wrong.write(failure.what());
        }
        return false;
    }
};

}  // namespace

TEST_CASE("Counters and takes are exact while sessions are ended") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 3;
    auto options = schema.cache_options();
    // Nothing of this is done twice even where plain writes are.
    options.replay_writes = GENERATE(false, true);
    CAPTURE(options.replay_writes);
    PostgresCache one(named.options, options);
    PostgresCache other(named.options, options);
    one.increment("count", 0, 1h);

    Ends counted;
    Ends made;
    Ends taken;
    std::atomic<int> got = 0;
    std::mutex mutex;
    std::set<std::int64_t> counts;
    int repeated = 0;
    std::atomic<bool> over = false;
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
            PostgresCache& cache = i % 2 == 0 ? one : other;
            while (!over) {
                std::int64_t count = 0;
                if (counted.run([&] { count = cache.increment("count", 1, 1h); })) {
                    const std::lock_guard lock(mutex);
                    repeated += counts.insert(count).second ? 0 : 1;
                }
                bool stored = false;
                made.run([&] { stored = cache.put_if_absent("token", i, 1h); });
                bool found = false;
                taken.run([&] { found = cache.take<int>("token").has_value(); });
                got += found ? 1 : 0;
            }
        });
    }
    Psql admin(dsn());
    int ended = 0;
    // As long as it takes, on a slow machine, until there is something to judge.
    const auto until = Clock::now() + 3 * patience;
    for (int round = 0;
         round < 12 || (Clock::now() < until && (ended == 0 || counted.done <= 50 || got == 0));
         ++round) {
        std::this_thread::sleep_for(100ms);
        ended += static_cast<int>(admin.terminate(named.name));
    }
    over = true;
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(ended > 0);
    for (const Ends* ends : {&counted, &made, &taken}) {
        CHECK(ends->wrong.lines() == std::vector<std::string>{});
    }
    CHECK(repeated == 0);
    std::int64_t count = -1;
    CHECK(eventually([&] { return !failure_of([&] { count = one.increment("count", 0, 1h); }); }));
    CHECK(count >= counted.done);
    CHECK(count <= counted.done + counted.open);
    CHECK(counted.done > 50);
    CHECK(got > 0);
}

TEST_CASE("Counters are exact across processes, one of which is killed") {
    TestSchema schema;
    constexpr int processes = 4;
    constexpr int each = 150;
    // All write what they were told to a pipe, so that what a killed one was told is known.
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    std::vector<pid_t> children;
    for (int process = 0; process < processes; ++process) {
        const pid_t child = ::fork();
        if (child == 0) {
            ::close(ends[0]);
            try {
                PostgresCache cache(server_pool(2), schema.cache_options());
                for (int i = 0; process == 0 || i < each; ++i) {
                    const std::int64_t count = cache.increment("count", 1, 1h);
                    if (::write(ends[1], &count, sizeof count) != sizeof count) {
                        ::_exit(1);
                    }
                }
            } catch (...) {
                ::_exit(1);
            }
            ::_exit(0);
        }
        REQUIRE(child > 0);
        children.push_back(child);
    }
    ::close(ends[1]);
    std::set<std::int64_t> counts;
    std::int64_t count = 0;
    int told = 0;
    for (; ::read(ends[0], &count, sizeof count) == sizeof count; ++told) {
        counts.insert(count);
        if (told == 50) {
            ::kill(children.front(), SIGKILL);
        }
    }
    ::close(ends[0]);
    for (const pid_t child : children) {
        int status = -1;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK((child == children.front() ? WIFSIGNALED(status) : WEXITSTATUS(status) == 0));
    }
    CHECK(static_cast<int>(counts.size()) == told);
    CHECK(told >= (processes - 1) * each);
    // The killed one had one call on its way at most.
    const std::int64_t last =
        schema.sql().number("SELECT value::bigint FROM " + schema.table() + " WHERE key = 'count'");
    CHECK(last >= told);
    CHECK(last <= told + 1);
}
