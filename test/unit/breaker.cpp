#include "cache/breaker.hpp"

#include <boost/asio/error.hpp>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace psycache;
using namespace psycache::detail;
using namespace std::chrono_literals;

namespace {

const psycache::detail::Failure outage(Errc::connect_failed);

struct Log {
    LogSink sink() {
        return [this](LogLevel, std::string_view line) { lines.emplace_back(line); };
    }
    std::vector<std::string> lines;
};

std::shared_ptr<Breaker> make_breaker(LogSink log = {}) {
    return std::make_shared<Breaker>(1, std::move(log));
}

Breaker::Pass get_now(Breaker& breaker) {
    return breaker.admit(std::chrono::steady_clock::now(), false);
}
Breaker::Pass put_now(Breaker& breaker) {
    return breaker.admit(std::chrono::steady_clock::now(), true);
}

void fail(Breaker& breaker, unsigned times, const psycache::detail::Failure& failure = outage) {
    for (unsigned i = 0; i < times; ++i) {
        get_now(breaker).failed(failure);
    }
}

void fail_puts(Breaker& breaker, unsigned times, const psycache::detail::Failure& failure) {
    for (unsigned i = 0; i < times; ++i) {
        put_now(breaker).failed(failure);
    }
}

/// A moment at which a call is let through again.
std::chrono::steady_clock::time_point later() {
    return std::chrono::steady_clock::now() + Breaker::longest_pause;
}

}  // namespace

TEST_CASE("enough outages in a row open the breaker, and it says so once", "[breaker]") {
    Log log;
    const auto breaker = make_breaker(log.sink());
    fail(*breaker, Breaker::enough - 1);
    CHECK_FALSE(breaker->open());
    CHECK_FALSE(get_now(*breaker).refusal());
    fail(*breaker, 1);
    CHECK(breaker->open());
    const auto pass = get_now(*breaker);
    REQUIRE(pass.refusal());
    CHECK(pass.refusal()->code == Errc::connect_failed);
    CHECK(log.lines.size() == 1);
}

TEST_CASE("a success in between starts the count anew", "[breaker]") {
    const auto breaker = make_breaker();
    fail(*breaker, Breaker::enough - 1);
    get_now(*breaker).succeeded();
    fail(*breaker, Breaker::enough - 1);
    CHECK_FALSE(breaker->open());
}

TEST_CASE("calls that were slow while others succeeded are no outage", "[breaker]") {
    const auto breaker = make_breaker();
    std::vector<Breaker::Pass> slow;
    for (unsigned i = 0; i < 2 * Breaker::enough; ++i) {
        slow.push_back(get_now(*breaker));
    }
    get_now(*breaker).succeeded();
    for (auto& pass : slow) {
        pass.failed(psycache::detail::Failure(Errc::timed_out));
    }
    CHECK_FALSE(breaker->open());
}

TEST_CASE("what is no outage neither opens nor counts", "[breaker]") {
    const auto code = GENERATE(as<Errc>(), Errc::invalid_value, Errc::queue_full,
                               Errc::table_missing, Errc::protocol_error);
    const auto breaker = make_breaker();
    fail(*breaker, 3 * Breaker::enough, psycache::detail::Failure(code));
    fail(*breaker, 3 * Breaker::enough, cancelled_failure());
    CHECK_FALSE(breaker->open());
}

TEST_CASE("one call at a time is let through after the pause", "[breaker]") {
    const auto breaker = make_breaker();
    fail(*breaker, Breaker::enough);
    auto probe = breaker->admit(later(), false);
    CHECK_FALSE(probe.refusal());
    CHECK(breaker->admit(later(), false).refusal());

    SECTION("its success closes the breaker") {
        Log log;
        probe.succeeded();
        CHECK_FALSE(breaker->open());
        CHECK_FALSE(get_now(*breaker).refusal());
    }
    SECTION("its failure keeps it open, for another pause") {
        probe.failed(outage);
        CHECK(breaker->open());
        CHECK(get_now(*breaker).refusal());
        CHECK_FALSE(breaker->admit(later(), false).refusal());
    }
    SECTION("an answer of the server is an answer") {
        probe.failed(server_failure(GENERATE("22001", "42P01", "42501"), ""));
        CHECK_FALSE(breaker->open());
    }
    SECTION("cancelled, it leaves its place to the next") {
        probe.failed(cancelled_failure());
        CHECK(breaker->open());
        CHECK_FALSE(breaker->admit(later(), false).refusal());
    }
    SECTION("forgotten, too") {
        { const auto dropped = std::move(probe); }
        CHECK_FALSE(breaker->admit(later(), false).refusal());
    }
}

TEST_CASE("a call that began before the outage and succeeds ends it", "[breaker]") {
    const auto breaker = make_breaker();
    auto early = get_now(*breaker);
    fail(*breaker, Breaker::enough);
    CHECK(breaker->open());
    early.succeeded();
    CHECK_FALSE(breaker->open());
}

TEST_CASE("a server that takes no writes is asked for gets", "[breaker]") {
    const psycache::detail::Failure read_only = server_failure("25006", "");
    Log log;
    const auto breaker = make_breaker(log.sink());
    fail_puts(*breaker, Breaker::enough - 1, read_only);
    get_now(*breaker).succeeded();  // says nothing about writes
    CHECK_FALSE(put_now(*breaker).refusal());
    fail_puts(*breaker, 1, read_only);
    CHECK(breaker->open());
    CHECK_FALSE(get_now(*breaker).refusal());
    REQUIRE(put_now(*breaker).refusal());
    CHECK(put_now(*breaker).refusal()->sqlstate == "25006");
    CHECK(put_now(*breaker).refusal()->code == Condition::unavailable);
    get_now(*breaker).succeeded();
    CHECK(put_now(*breaker).refusal());
    CHECK(log.lines.size() == 1);

    auto probe = breaker->admit(later(), true);
    CHECK_FALSE(probe.refusal());
    CHECK(breaker->admit(later(), true).refusal());
    CHECK_FALSE(breaker->admit(later(), false).refusal());
    SECTION("until a write succeeds") {
        probe.succeeded();
        CHECK_FALSE(breaker->open());
        CHECK(log.lines.size() == 2);
    }
    SECTION("for another pause, where it refuses them still") {
        probe.failed(read_only);
        CHECK(put_now(*breaker).refusal());
        CHECK_FALSE(breaker->admit(later(), true).refusal());
    }
    SECTION("and what went wrong before it was asked does not count") {
        probe.failed(outage);
        CHECK_FALSE(get_now(*breaker).refusal());
        CHECK_FALSE(breaker->admit(later(), true).refusal());
    }
}

TEST_CASE("a server that refuses the write that was let through is not away", "[breaker]") {
    const auto breaker = make_breaker();
    fail(*breaker, Breaker::enough);
    breaker->admit(later(), true).failed(server_failure("25006", ""));
    CHECK_FALSE(breaker->open());
}

TEST_CASE("an outage refuses gets and writes, whatever was known of writes", "[breaker]") {
    const auto breaker = make_breaker();
    fail_puts(*breaker, Breaker::enough, server_failure("25006", ""));
    fail(*breaker, Breaker::enough);
    CHECK(get_now(*breaker).refusal());
    CHECK(put_now(*breaker).refusal());
    // A get is let through for both; its success says nothing about writes.
    breaker->admit(later(), false).succeeded();
    CHECK_FALSE(get_now(*breaker).refusal());
    CHECK(put_now(*breaker).refusal());
}
