// The decisions of get_or_create: what is fresh, what a load does next, and what the protocol keeps
// to whatever happens in between.

#include <catch2/catch.hpp>
#include <functional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "loading/freshness.hpp"
#include "loading/load_steps.hpp"
#include "loading/loads.hpp"

using namespace psycache;
using namespace psycache::detail;
using namespace std::chrono_literals;

TEST_CASE("What is fresh is computed from what is left of an entry") {
    struct Row {
        Duration left;
        Duration stale_for;
        Freshness expected;
    };
    for (const Row& row : std::vector<Row>{
             {1h, 0s, Freshness::fresh},
             {1us, 0s, Freshness::fresh},
             {1h, 10min, Freshness::fresh},
             {10min + 1us, 10min, Freshness::fresh},
             {10min, 10min, Freshness::stale},
             {1us, 10min, Freshness::stale},
             {no_expiry, 10min, Freshness::fresh},
         }) {
        CAPTURE(row.left.count(), row.stale_for.count());
        CHECK(freshness(row.left, row.stale_for, 0s, 1.0, 0.5) == row.expected);
    }
}

TEST_CASE("A value is renewed early the likelier, the less is left and the longer it takes") {
    // XFetch: took * beta * -ln(random) >= what is left of the time in which it is fresh.
    CHECK(freshness(1s, 0s, 1s, 1.0, 0.36) == Freshness::early);
    CHECK(freshness(1s, 0s, 1s, 1.0, 0.37) == Freshness::fresh);
    CHECK(freshness(1s, 0s, 2s, 1.0, 0.60) == Freshness::early);
    CHECK(freshness(2s, 1s, 1s, 1.0, 0.36) == Freshness::early);
    CHECK(freshness(2s, 0s, 1s, 1.0, 0.36) == Freshness::fresh);
    CHECK(freshness(1s, 0s, 1s, 2.0, 0.60) == Freshness::early);
    CHECK(freshness(1s, 0s, 1s, 0.0, 0.0001) == Freshness::fresh);
    CHECK(freshness(1us, 0s, 0s, 1.0, 0.0001) == Freshness::fresh);
    CHECK(freshness(1us, 0s, 1s, 1.0, 1.0) == Freshness::fresh);
}

TEST_CASE("An entry is stored for as long as it may be answered") {
    CHECK(stored_ttl(1h, 10min) == 70min);
    CHECK(stored_ttl(no_expiry, 10min) == no_expiry);
    CHECK(stored_ttl(max_ttl, 1s) == max_ttl);
    CHECK(stored_ttl(max_ttl - 2s, 1s) == max_ttl - 1s);
}

TEST_CASE("Stubs have keys of their own for entries that are live, whatever their keys are") {
    std::set<std::string> keys;
    for (const std::string& key :
         {std::string(), std::string("a"), std::string(1000, 'a'), std::string(2690, 'a'),
          std::string(2690, 'b'), std::string(2689, 'a')}) {
        const std::string its = LoadLease::key_for_renewal(key);
        CHECK(its.size() <= 1024);
        CHECK(its != key);
        keys.insert(its);
    }
    CHECK(keys.size() == 6);
}

namespace {

/// The rows of one key, and the data that its value is made of.
struct World {
    enum class Row { none, live, expired, stub };

    int source = 0;
    Row row = Row::none;
    int value = 0;           // of an entry
    int owner = -1;          // of a stub
    bool leased = false;     // whether its lease runs
    int version = 0;         // changes with every write
    int renewal_owner = -1;  // of the stub of a live entry
    bool renewal_leased = false;

    void write(Row what, int its_value) {
        row = what;
        value = its_value;
        ++version;
    }
    Sight sight() const {
        Sight sight;
        if (row == Row::live) {
            sight.state = Sight::State::live;
            sight.version = version;
        } else if (row == Row::stub && leased) {
            sight.state = Sight::State::leased;
        }
        return sight;
    }
    void add_to(std::string& bytes) const {
        for (const int part : {source, static_cast<int>(row), value, owner, leased ? 1 : 0,
                               renewal_owner, renewal_leased ? 1 : 0}) {
            bytes += static_cast<char>(part);
        }
    }
};

/// A process that loads.
struct Loader {
    Loader(int its_name, LoadSteps::Kind its_kind, const World& world)
        : name(its_name), kind(its_kind), steps(its_kind, world.sight()) {}

    int name;
    LoadSteps::Kind kind;
    LoadSteps steps;
    bool has_read = false;
    int read = 0;
    int looks = 0;
    int loads = 0;
    bool stored = false;

    /// Does one step, as the server would. @returns whether it could.
    bool advance(World& world) {
        const bool renewal = kind == LoadSteps::Kind::renewal;
        switch (steps.next()) {
            case LoadSteps::Step::claim: {
                steps.claiming();
                Claimed claimed;
                if (renewal) {
                    if (world.renewal_owner == -1 || world.renewal_owner == name ||
                        !world.renewal_leased) {
                        world.renewal_owner = name;
                        world.renewal_leased = true;
                        claimed = {Claimed::Answer::yes, 0};
                    }
                } else if (world.row != World::Row::live &&
                           !(world.row == World::Row::stub && world.leased &&
                             world.owner != name)) {
                    world.write(World::Row::stub, 0);
                    world.owner = name;
                    world.leased = true;
                    claimed = {Claimed::Answer::yes, world.version};
                }
                steps.claimed(claimed);
                return true;
            }
            case LoadSteps::Step::look:
                if (looks == 2) {
                    return false;  // it would go on for ever
                }
                ++looks;
                steps.looked(world.sight());
                return true;
            case LoadSteps::Step::pause:
                steps.paused();
                return true;
            case LoadSteps::Step::load:
                if (!has_read) {
                    has_read = true;
                    read = world.source;
                    ++loads;
                } else {
                    steps.loaded(LoadSteps::Loaded::value);
                }
                return true;
            case LoadSteps::Step::publish: {
                const bool unchanged =
                    renewal ? world.row == World::Row::live && world.version == steps.version()
                            : world.row == World::Row::stub && world.owner == name &&
                                  world.version == steps.version();
                if (unchanged) {
                    world.write(World::Row::live, read);
                    stored = true;
                }
                steps.published(unchanged);
                return true;
            }
            case LoadSteps::Step::give_back:
            case LoadSteps::Step::defer:
                if (renewal && world.renewal_owner == name) {
                    world.renewal_owner = -1;
                } else if (!renewal && world.row == World::Row::stub && world.owner == name) {
                    world.write(World::Row::none, 0);
                }
                steps.given_back();
                return true;
            case LoadSteps::Step::done:
                return false;
        }
        return false;
    }
    /// What can still make a difference: a version that is not the row's never will be again.
    void add_to(std::string& bytes, const World& world) const {
        const bool current = steps.version() == world.version;
        for (const int part :
             {static_cast<int>(steps.next()), current ? 1 : 0, steps.holds_lease() ? 1 : 0,
              has_read ? 1 : 0, read, looks, loads, stored ? 1 : 0}) {
            bytes += static_cast<char>(part);
        }
    }
};

/// Something that happens once, at any time; it may take several steps.
using Event = std::vector<std::function<void(World&)>>;

struct State {
    World world;
    std::vector<Loader> loaders;
    std::vector<std::size_t> happened;  // steps of each event
};

class Explorer {
  public:
    Explorer(std::vector<Event> events, std::function<void(const State&)> check)
        : events_(std::move(events)), check_(std::move(check)) {}

    void explore(const State& state) {
        std::string bytes;
        state.world.add_to(bytes);
        for (const auto& loader : state.loaders) {
            loader.add_to(bytes, state.world);
        }
        for (const auto steps : state.happened) {
            bytes += static_cast<char>(steps);
        }
        if (!seen_.insert(std::move(bytes)).second) {
            return;
        }
        bool moved = false;
        for (std::size_t i = 0; i < state.loaders.size(); ++i) {
            State next = state;
            if (next.loaders[i].advance(next.world)) {
                moved = true;
                explore(next);
            }
        }
        for (std::size_t i = 0; i < events_.size(); ++i) {
            if (state.happened[i] < events_[i].size()) {
                moved = true;
                State next = state;
                events_[i][next.happened[i]++](next.world);
                explore(next);
            }
        }
        if (!moved) {
            ++ends_;
            check_(state);
        }
    }

    std::size_t states() const { return seen_.size(); }
    std::size_t ends() const { return ends_; }

  private:
    const std::vector<Event> events_;
    const std::function<void(const State&)> check_;
    std::unordered_set<std::string> seen_;
    std::size_t ends_ = 0;
};

void remove_row(World& world) {
    world.write(World::Row::none, 0);
    world.owner = -1;
}
void change_source(World& world) {
    ++world.source;
}
void put_source(World& world) {
    world.write(World::Row::live, world.source);
}
void expire(World& world) {
    if (world.row == World::Row::live) {
        world.write(World::Row::expired, world.value);
    }
}
void clean_up(World& world) {
    if (world.row != World::Row::live) {
        remove_row(world);
    }
    world.renewal_owner = -1;
}
void end_leases(World& world) {
    world.leased = false;
    world.renewal_leased = false;
}

const Event invalidation{change_source, remove_row};
const Event overwrite{change_source, put_source};

}  // namespace

TEST_CASE(
    "Whatever happens while a value is loaded, none is stored that was loaded before a change") {
    struct Case {
        const char* what;
        World::Row row;
        std::vector<LoadSteps::Kind> kinds;
    };
    const std::vector<Case> cases{
        {"two load an absent value",
         World::Row::none,
         {LoadSteps::Kind::of_absent, LoadSteps::Kind::of_absent}},
        {"two load an expired one",
         World::Row::expired,
         {LoadSteps::Kind::of_absent, LoadSteps::Kind::of_absent}},
        {"two renew a live one",
         World::Row::live,
         {LoadSteps::Kind::renewal, LoadSteps::Kind::renewal}},
    };
    for (const Case& one : cases) {
        CAPTURE(one.what);
        State state;
        if (one.row != World::Row::none) {
            state.world.write(one.row, 0);
        }
        for (std::size_t i = 0; i < one.kinds.size(); ++i) {
            state.loaders.emplace_back(static_cast<int>(i), one.kinds[i], state.world);
        }
        const std::vector<Event> events{
            invalidation, overwrite, {expire}, {clean_up}, {end_leases}};
        state.happened.resize(events.size());
        std::size_t wrong = 0;
        std::size_t stored = 0;
        Explorer explorer(events, [&](const State& end) {
            // Every change is followed by a write of the row, after which no older value may be
            // there: neither from a loader nor from one who overtook the other's change.
            const bool live = end.world.row == World::Row::live;
            const bool by_loader = end.loaders[0].stored || end.loaders[1].stored;
            stored += live && by_loader ? 1 : 0;
            wrong += live && end.world.value != end.world.source ? 1 : 0;
        });
        explorer.explore(state);
        CHECK(wrong == 0);
        CHECK(stored > 0);
        CHECK(explorer.ends() > 100);
    }
}

TEST_CASE("While a lease runs and nothing is removed, one of several loads") {
    for (const bool renewal : {false, true}) {
        CAPTURE(renewal);
        State state;
        if (renewal) {
            state.world.write(World::Row::live, 0);
        }
        const auto kind = renewal ? LoadSteps::Kind::renewal : LoadSteps::Kind::of_absent;
        for (int name = 0; name < 3; ++name) {
            state.loaders.emplace_back(name, kind, state.world);
        }
        std::size_t loads = 0;
        std::size_t most = 0;
        Explorer explorer({}, [&](const State& end) {
            std::size_t here = 0;
            std::size_t late = 0;
            for (const auto& loader : end.loaders) {
                here += static_cast<std::size_t>(loader.loads);
                late += loader.steps.too_late() ? 1 : 0;
            }
            // A renewal that begins when another one has ended is one too many; the value it finds
            // is newer than the one that it was begun for, and stays.
            most = std::max(most, here - (renewal ? late : 0));
            loads = std::max(loads, here);
            CHECK(end.world.row == World::Row::live);
        });
        explorer.explore(state);
        CHECK(most == 1);
        CHECK(loads >= 1);
    }
}

TEST_CASE("A load that its callers have left, or whose server fails, gives its lease back") {
    Sight absent;
    LoadSteps steps(LoadSteps::Kind::of_absent, absent);
    steps.claiming();
    SECTION("the claim has failed, but may have been done") {
        steps.failed();
        CHECK(steps.next() == LoadSteps::Step::give_back);
    }
    SECTION("nobody waits any more") {
        steps.claimed({Claimed::Answer::yes, 1});
        steps.abandon();
        CHECK(steps.next() == LoadSteps::Step::give_back);
    }
    SECTION("the loader has failed") {
        steps.claimed({Claimed::Answer::yes, 1});
        steps.loaded(LoadSteps::Loaded::failure);
        CHECK(steps.next() == LoadSteps::Step::defer);
    }
    SECTION("there is nothing to be stored") {
        steps.claimed({Claimed::Answer::yes, 1});
        steps.loaded(LoadSteps::Loaded::nothing);
        CHECK(steps.next() == LoadSteps::Step::give_back);
    }
    SECTION("the server is out of reach: it loads, and stores nothing") {
        steps.claimed({Claimed::Answer::out_of_reach, 0});
        CHECK(steps.next() == LoadSteps::Step::load);
        steps.loaded(LoadSteps::Loaded::value);
        CHECK(steps.next() == LoadSteps::Step::done);
    }
}

TEST_CASE("Loads are one for a key, and remember what failed") {
    Loads loads;
    const TimePoint now = Clock::now();
    const auto first = loads.join("key", now, 0, now);
    REQUIRE(first.load);
    CHECK(first.starts);
    const auto second = loads.join("key", now, 0, now);
    CHECK(second.load == first.load);
    CHECK_FALSE(second.starts);
    CHECK(loads.renew("key", now, 1) == nullptr);
    CHECK(loads.join("other", now, 0, now).starts);

    SECTION("the last caller takes it away") {
        int told = 0;
        loads.on_abandoned(first.load, [&] { ++told; });
        loads.leave(first.load);
        CHECK(told == 0);
        loads.leave(first.load);
        CHECK(told == 1);
        CHECK(loads.abandoned(first.load));
        CHECK(loads.join("key", now, 0, now).starts);
        loads.on_abandoned(first.load, [&] { ++told; });
        CHECK(told == 2);
    }
    SECTION("its result reaches those who wait, and those who come too late") {
        const auto early = std::make_shared<LoadWait>();
        loads.wait(first.load, early);
        CHECK_FALSE(early->settled());
        LoadResult result;
        result.value = 7;
        loads.end(first.load, std::move(result), TimePoint::min());
        REQUIRE(early->settled());
        CHECK(early->result->value == boost::json::value(7));
        const auto late = std::make_shared<LoadWait>();
        loads.wait(second.load, late);
        CHECK(late->settled());
        CHECK(loads.join("key", now, 0, now).starts);
    }
    SECTION("an error is that of later callers for a while") {
        LoadResult result;
        result.error = std::make_exception_ptr(std::runtime_error("no"));
        loads.end(first.load, std::move(result), now + 1s);
        CHECK(loads.join("key", now, 0, now).error);
        CHECK(loads.recent_error("key", now));
        CHECK(loads.renew("key", now, 1) == nullptr);
        CHECK_FALSE(loads.recent_error("key", now + 1s));
        CHECK(loads.join("key", now + 1s, 0, now).starts);
    }
    SECTION("a duty that goes away tells that its load was abandoned") {
        const auto waiting = std::make_shared<LoadWait>();
        loads.wait(first.load, waiting);
        {
            const LoadDuty duty(std::shared_ptr<Loads>(std::shared_ptr<void>(), &loads),
                                first.load);
        }
        REQUIRE(waiting->settled());
        CHECK(waiting->result->abandoned);
        CHECK(loads.join("key", now, 0, now).starts);
    }
    SECTION("who comes after a change does not join what was begun before it") {
        loads.begins(first.load, 5, now);
        // Its stub is in its place; or the caller began before the lease was asked for.
        CHECK(loads.join("key", now + 1s, 5, now + 1s).load == first.load);
        CHECK(loads.join("key", now + 1s, 0, now).load == first.load);
        const auto later = loads.join("key", now + 1s, 0, now + 1s);
        CHECK(later.starts);
        CHECK(later.load != first.load);
        CHECK_FALSE(loads.abandoned(first.load));
        // The one that was overtaken ends for its own callers alone.
        LoadResult old;
        old.value = 1;
        loads.end(first.load, std::move(old), TimePoint::min());
        CHECK(loads.join("key", now + 1s, 0, now).load == later.load);
    }
    SECTION("it is remembered how long a key took") {
        CHECK(loads.took("key") == Duration::zero());
        loads.loaded("key", 3s);
        CHECK(loads.took("key") == 3s);
        for (int i = 0; i < 10'000; ++i) {
            loads.loaded(std::to_string(i), 1s);
        }
        const double random = loads.random();
        CHECK(random > 0);
        CHECK(random <= 1);
    }
}
