#include "cache/breaker.hpp"

#include <boost/asio/error.hpp>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace psycache;
using namespace std::chrono_literals;

namespace {

const Failure outage(Errc::connect_failed);

struct Log {
    LogSink sink() {
        return [this](LogLevel, std::string_view line) { lines.emplace_back(line); };
    }
    std::vector<std::string> lines;
};

std::shared_ptr<Breaker> make_breaker(LogSink log = {}) {
    return std::make_shared<Breaker>(1, std::move(log));
}

void fail(Breaker& breaker, unsigned times, const Failure& failure = outage) {
    for (unsigned i = 0; i < times; ++i) {
        breaker.admit(std::chrono::steady_clock::now()).failed(failure);
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
    CHECK_FALSE(breaker->admit(std::chrono::steady_clock::now()).refusal());
    fail(*breaker, 1);
    CHECK(breaker->open());
    const auto pass = breaker->admit(std::chrono::steady_clock::now());
    REQUIRE(pass.refusal());
    CHECK(pass.refusal()->code == Errc::connect_failed);
    CHECK(log.lines.size() == 1);
}

TEST_CASE("a success in between starts the count anew", "[breaker]") {
    const auto breaker = make_breaker();
    fail(*breaker, Breaker::enough - 1);
    breaker->admit(std::chrono::steady_clock::now()).succeeded();
    fail(*breaker, Breaker::enough - 1);
    CHECK_FALSE(breaker->open());
}

TEST_CASE("calls that were slow while others succeeded are no outage", "[breaker]") {
    const auto breaker = make_breaker();
    std::vector<Breaker::Pass> slow;
    for (unsigned i = 0; i < 2 * Breaker::enough; ++i) {
        slow.push_back(breaker->admit(std::chrono::steady_clock::now()));
    }
    breaker->admit(std::chrono::steady_clock::now()).succeeded();
    for (auto& pass : slow) {
        pass.failed(Failure(Errc::timed_out));
    }
    CHECK_FALSE(breaker->open());
}

TEST_CASE("what is no outage neither opens nor counts", "[breaker]") {
    const auto code = GENERATE(as<Errc>(), Errc::invalid_value, Errc::queue_full,
                               Errc::table_missing, Errc::protocol_error);
    const auto breaker = make_breaker();
    fail(*breaker, 3 * Breaker::enough, Failure(code));
    fail(*breaker, 3 * Breaker::enough, cancelled_failure());
    CHECK_FALSE(breaker->open());
}

TEST_CASE("one call at a time is let through after the pause", "[breaker]") {
    const auto breaker = make_breaker();
    fail(*breaker, Breaker::enough);
    auto probe = breaker->admit(later());
    CHECK_FALSE(probe.refusal());
    CHECK(breaker->admit(later()).refusal());

    SECTION("its success closes the breaker") {
        Log log;
        probe.succeeded();
        CHECK_FALSE(breaker->open());
        CHECK_FALSE(breaker->admit(std::chrono::steady_clock::now()).refusal());
    }
    SECTION("its failure keeps it open, for another pause") {
        probe.failed(outage);
        CHECK(breaker->open());
        CHECK(breaker->admit(std::chrono::steady_clock::now()).refusal());
        CHECK_FALSE(breaker->admit(later()).refusal());
    }
    SECTION("an answer of the server is an answer") {
        probe.failed(server_failure(GENERATE("22001", "42P01", "42501"), ""));
        CHECK_FALSE(breaker->open());
    }
    SECTION("cancelled, it leaves its place to the next") {
        probe.failed(cancelled_failure());
        CHECK(breaker->open());
        CHECK_FALSE(breaker->admit(later()).refusal());
    }
    SECTION("forgotten, too") {
        { const auto dropped = std::move(probe); }
        CHECK_FALSE(breaker->admit(later()).refusal());
    }
}

TEST_CASE("a call that began before the outage and succeeds ends it", "[breaker]") {
    const auto breaker = make_breaker();
    auto early = breaker->admit(std::chrono::steady_clock::now());
    fail(*breaker, Breaker::enough);
    CHECK(breaker->open());
    early.succeeded();
    CHECK_FALSE(breaker->open());
}
