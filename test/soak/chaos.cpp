#include "soak/chaos.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <iterator>
#include <thread>

#include <psycache/error.hpp>

#include "soak/values.hpp"

namespace psycache::soak {

namespace {

using namespace std::chrono_literals;

constexpr auto healing_time = 10s * test::slowness;
constexpr auto calm_time = 5s * test::slowness;

const std::string backends =
    " FROM pg_stat_activity WHERE usename = '" + std::string(Site::role) + "'";

void sleep(test::Milliseconds time) {
    std::this_thread::sleep_for(time);
}

}  // namespace

// What empties the table or stops the server is in here less often than what does not, so that most
// of the time there is something to be read.
const Chaos::Fault Chaos::faults[] = {
    {"terminate one backend", &Chaos::terminate_one},
    {"terminate all backends", &Chaos::terminate_all},
    {"kill a backend", &Chaos::kill_one},
    {"restart", &Chaos::restart},
    {"stop for a while", &Chaos::stop_for_a_while},
    {"crash of everything", &Chaos::crash},
    {"freeze the server", &Chaos::freeze_all},
    {"freeze one backend", &Chaos::freeze_one},
    {"refuse connections", &Chaos::refuse_connections},
    {"read-only", &Chaos::read_only},
    {"lock rows", &Chaos::lock_rows},
    {"lock rows", &Chaos::lock_rows},
    {"lock the table", &Chaos::lock_table},
    {"lock the tags", &Chaos::lock_tags},
    {"drop the table", &Chaos::drop_table},
    {"revoke", &Chaos::revoke},
    {"flush", &Chaos::flush},
    {"clear", &Chaos::clear},
    {"flood", &Chaos::flood},
    {"network away", &Chaos::network_away},
    {"network resets", &Chaos::network_resets},
    {"network cuts", &Chaos::network_cuts},
    {"network cuts", &Chaos::network_cuts},
    {"network cuts", &Chaos::network_cuts},
    {"network swallows", &Chaos::network_swallows},
    {"network delays", &Chaos::network_delays},
    {"network crumbles", &Chaos::network_crumbles},
};

Chaos::Chaos(Site& site, Stage& stage, Load& load, const Pacer& pacer, Circumstances& circumstances,
             Report& report, std::uint32_t seed)
    : site_(site),
      stage_(stage),
      load_(load),
      pacer_(pacer),
      circumstances_(circumstances),
      report_(report),
      random_(seed) {}

std::size_t Chaos::random(std::size_t below) {
    return std::uniform_int_distribution<std::size_t>(0, below - 1)(random_);
}

test::Milliseconds Chaos::random_time(int least, int most) {
    return test::Milliseconds(std::uniform_int_distribution<int>(least, most)(random_));
}

void Chaos::wait(int least, int most) {
    sleep(random_time(least, most));
}

void Chaos::one_fault() {
    const Fault& fault = faults[random(std::size(faults))];
    if (!report_.quiet) {
        std::printf("%8.3f s  %s\n", std::chrono::duration<double>(Clock::now() - begun_).count(),
                    fault.name);
        std::fflush(stdout);
    }
    try {
        (this->*fault.happen)();
    } catch (const std::exception& error) {
        report_.violations.report(std::string(fault.name) + " went wrong: " + error.what());
    }
    see_that_all_work(fault.name, Clock::now());
}

void Chaos::see_that_all_work(const char* fault, Time lifted) {
    for (const Subject* subject : stage_.subjects()) {
        const auto works = [&] { return subject->worked_since(lifted); };
        if (!in_time(works, healing_time)) {
            report_.violations.report(subject->name + ": no call succeeds after: " + fault,
                                      situation());
        }
    }
    report_.faults.count(fault, "", Clock::now() - lifted);
}

void Chaos::calm() {
    for (Subject* subject : stage_.subjects()) {
        const std::string key = "fresh " + std::to_string(++fresh_);
        std::string why;
        const auto works = [&] {
            try {
                why = subject->put_and_get(key);
            } catch (const std::exception& error) {
                why = error.what();
            }
            return why.empty();
        };
        if (!in_time(works, calm_time)) {
            report_.violations.report(subject->name + ": no fresh entry in a calm: " + why,
                                      situation());
        }
    }
}

/// What the caches and the server are doing.
std::string Chaos::situation() {
    std::string text;
    for (const Subject* subject : stage_.subjects()) {
        const auto pool = subject->pool_statistics();
        text += "  " + subject->name + ": " + std::to_string(subject->statistics().queued) +
                " queued; connections: " + std::to_string(pool.open) + " open, " +
                std::to_string(pool.busy) + " busy, " + std::to_string(pool.connecting) +
                " connecting, " + std::to_string(pool.waiting) + " waiting\n";
    }
    const auto sessions = site_.admin().exec(
        "SELECT application_name, pid, state, coalesce(wait_event, ''), now() - query_start, "
        "left(query, 60)" +
        backends);
    for (const auto& session : sessions) {
        text += "   ";
        for (const auto& cell : session) {
            text += " " + cell;
        }
        text += "\n";
    }
    return text;
}

pid_t Chaos::some_backend() {
    auto admin = site_.admin();
    const auto pids = admin.exec("SELECT pid" + backends + " ORDER BY pid");
    return pids.empty() ? PQbackendPID(admin.native())
                        : static_cast<pid_t>(std::stol(pids[random(pids.size())].front()));
}

void Chaos::terminate_one() {
    const auto pid = some_backend();
    site_.admin().exec("SELECT pg_terminate_backend(" + std::to_string(pid) + ")");
}

void Chaos::terminate_backends() {
    site_.admin().exec("SELECT pg_terminate_backend(pid)" + backends);
}

void Chaos::terminate_all() {
    terminate_backends();
}

void Chaos::kill_one() {
    const During emptied(circumstances_.emptied);
    auto witness = site_.admin();
    ::kill(some_backend(), SIGKILL);
    const auto seen = [&] {
        try {
            witness.exec("SELECT");
            return false;
        } catch (const test::SqlError&) {
            return true;
        }
    };
    if (!test::eventually(seen)) {
        throw std::runtime_error("the server does not notice");
    }
    site_.admin();
}

void Chaos::restart() {
    site_.server().restart();
}

void Chaos::stop_for_a_while() {
    site_.server().stop();
    wait(100, 2000);
    site_.server().start();
}

void Chaos::crash() {
    const During emptied(circumstances_.emptied);
    site_.server().crash();
    wait(0, 1000);
    site_.server().start();
}

void Chaos::freeze_all() {
    site_.server().freeze();
    wait(100, random(3) == 0 ? 8000 : 1000);
    site_.server().thaw();
}

void Chaos::freeze_one() {
    const auto pid = some_backend();
    test::PrivateServer::freeze(pid);
    wait(100, 5000);
    test::PrivateServer::thaw(pid);
}

void Chaos::refuse_connections() {
    const std::string role = Site::role;
    site_.admin().exec("ALTER ROLE " + role + " CONNECTION LIMIT 0");
    terminate_backends();
    wait(100, 2000);
    site_.admin().exec("ALTER ROLE " + role + " CONNECTION LIMIT -1");
}

void Chaos::read_only() {
    const std::string role = Site::role;
    site_.admin().exec("ALTER ROLE " + role + " SET default_transaction_read_only = on");
    terminate_backends();
    wait(100, 1000);
    site_.admin().exec("ALTER ROLE " + role + " RESET default_transaction_read_only");
}

void Chaos::hold(const std::string& statements) {
    auto admin = site_.admin();
    admin.exec("BEGIN; " + statements);
    wait(100, 3000);
    admin.exec("COMMIT");
}

void Chaos::lock_rows() {
    // A few at a time: waiting for many would meet the writers' own locks in another order.
    hold("SET LOCAL lock_timeout = '5s'; SELECT FROM " + std::string(Site::table) +
         " ORDER BY key" + (random(2) == 0 ? "" : " DESC") + " LIMIT 20 FOR UPDATE SKIP LOCKED");
}

void Chaos::lock_table() {
    hold("LOCK TABLE " + std::string(Site::table));
}

void Chaos::lock_tags() {
    hold("LOCK TABLE " + std::string(Site::tags));
}

void Chaos::drop_table() {
    const During missing(circumstances_.missing);
    const During emptied(circumstances_.emptied);
    auto admin = site_.admin();
    const auto dropped = [&] {
        try {
            admin.exec("DROP TABLE " + std::string(Site::tables));
        } catch (const test::SqlError& error) {
            // Callers lock the tables in another order.
            if (error.sqlstate() != "40P01") {
                throw;
            }
            return false;
        }
        return true;
    };
    if (!test::eventually(dropped)) {
        throw std::runtime_error("deadlocks");
    }
    wait(0, 500);
    site_.make_tables();
}

void Chaos::revoke() {
    const During denied(circumstances_.denied);
    const std::string what = " ALL ON " + std::string(Site::tables);
    site_.admin().exec("REVOKE" + what + " FROM " + Site::role);
    wait(100, 1000);
    site_.admin().exec("GRANT" + what + " TO " + Site::role);
}

template <class Empty>
void Chaos::empty(const char* name, Empty how) {
    const During emptied(circumstances_.emptied);
    const auto begun = Clock::now();
    const std::string witness = "witness";
    auto& cache = stage_.blocking().cache;
    std::string ending = "ok";
    try {
        cache.put_raw(witness, make_value(witness, 1, 100), 1h);
        how(cache);
        if (cache.get_raw(witness)) {
            report_.violations.report(std::string(name) + " has left an entry");
        }
    } catch (const Error& error) {
        ending = error.code().message();
        // It may still be under way: its connection must not outlive this fault.
        auto admin = site_.admin();
        const auto pids = admin.value("SELECT coalesce(array_agg(pid), '{}')" + backends);
        terminate_backends();
        const auto gone = [&] {
            return admin.number("SELECT count(*)" + backends + " AND pid = ANY('" + pids + "')") ==
                   0;
        };
        if (!test::eventually(gone)) {
            throw std::runtime_error("its connection does not end");
        }
    }
    report_.calls.count(name, ending, Clock::now() - begun);
}

void Chaos::flush() {
    empty("flush", [](PostgresCache& cache) { cache.flush(); });
}

void Chaos::clear() {
    empty("clear", [](PostgresCache& cache) { cache.clear(); });
}

void Chaos::flood() {
    load_.flood();
    wait(100, 1000);
}

void Chaos::network_away() {
    stage_.gate().switch_off();
    wait(200, 2000);
    stage_.gate().switch_on();
}

void Chaos::network_resets() {
    stage_.gate().break_all(test::Gate::Cut::reset);
}

void Chaos::network_cuts() {
    using Cut = test::Gate::Cut;
    static constexpr Cut ways[] = {Cut::orderly, Cut::reset, Cut::silent};
    const auto before = stage_.gate().cuts();
    stage_.gate().cut_after(random(20000), ways[random(std::size(ways))]);
    test::eventually([&] { return stage_.gate().cuts() != before; }, 3s);
    stage_.gate().do_not_cut();
}

void Chaos::network_swallows() {
    stage_.gate().swallow(true);
    wait(500, 6000);
    stage_.gate().swallow(false);
}

void Chaos::network_delays() {
    stage_.gate().delay(random_time(5, 300));
    wait(500, 3000);
    stage_.gate().delay({});
}

void Chaos::network_crumbles() {
    stage_.gate().pieces(1 + random(100));
    wait(200, 2000);
    stage_.gate().pieces(0);
}

}  // namespace psycache::soak
