#include "batching/retry_decision.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace psycache;
using namespace psycache::detail;

namespace {

pg::StatementFailure lost_connection(pg::Effect effect) {
    return pg::StatementFailure(psycache::detail::Failure(Errc::connection_lost), effect, true);
}

pg::StatementFailure refused_by_server(const std::string& sqlstate) {
    return pg::StatementFailure(server_failure(sqlstate, "text"), pg::Effect::none, false);
}

constexpr bool a_read = false;
constexpr bool a_write = true;

RetryDecision decided_with(const pg::StatementFailure& failure, bool writes, std::size_t calls,
                           bool replay, Tries& tries) {
    return decide_retry(failure, RetryRules{writes, replay, calls}, tries);
}

RetryDecision decided(const pg::StatementFailure& failure, bool writes, std::size_t calls,
                      bool replay = false) {
    Tries tries;
    return decided_with(failure, writes, calls, replay, tries);
}

}  // namespace

TEST_CASE("what was not sent goes to another connection, for every kind of call", "[retry]") {
    for (const bool kind : {a_read, a_write}) {
        CHECK(decided(lost_connection(pg::Effect::none), kind, 3) == RetryDecision::retry);
    }
}

TEST_CASE("a get that was not answered is sent once more, not twice", "[retry]") {
    Tries tries;
    CHECK(decided_with(lost_connection(pg::Effect::unknown), a_read, 1, false, tries) ==
          RetryDecision::retry);
    CHECK(decided_with(lost_connection(pg::Effect::unknown), a_read, 1, false, tries) ==
          RetryDecision::fail);
}

TEST_CASE("a write that was not answered is not replayed unless it was asked for", "[retry]") {
    CHECK(decided(lost_connection(pg::Effect::unknown), a_write, 1) ==
          RetryDecision::fail_as_unknown);
    Tries tries;
    CHECK(decided_with(lost_connection(pg::Effect::unknown), a_write, 1, true, tries) ==
          RetryDecision::retry);
    CHECK(decided_with(lost_connection(pg::Effect::unknown), a_write, 1, true, tries) ==
          RetryDecision::fail_as_unknown);
}

TEST_CASE("a group that loses one connection after the other gives up", "[retry]") {
    Tries tries;
    int retries = 0;
    while (decided_with(lost_connection(pg::Effect::none), a_write, 1, false, tries) ==
           RetryDecision::retry) {
        REQUIRE(++retries < 100);
    }
    CHECK(retries == 5);
}

TEST_CASE("conflicts are tried again a few times, then one by one, then from time to time",
          "[retry]") {
    for (const char* sqlstate : {"40P01", "40001"}) {
        Tries tries;
        for (int i = 0; i < 3; ++i) {
            CHECK(decided_with(refused_by_server(sqlstate), a_write, 5, false, tries) ==
                  RetryDecision::retry_later);
        }
        CHECK(decided_with(refused_by_server(sqlstate), a_write, 5, false, tries) ==
              RetryDecision::one_by_one);
        CHECK(decided_with(refused_by_server(sqlstate), a_write, 1, false, tries) ==
              RetryDecision::stand_aside);
    }
}

TEST_CASE("statements that are lost again and again fail", "[retry]") {
    Tries tries;
    for (int i = 0; i < 3; ++i) {
        CHECK(decided_with(refused_by_server("26000"), a_write, 1, false, tries) ==
              RetryDecision::retry_later);
    }
    CHECK(decided_with(refused_by_server("26000"), a_write, 1, false, tries) ==
          RetryDecision::fail);
}

TEST_CASE("a write that is not permitted may be refused for its row, a read is not", "[retry]") {
    CHECK(decided(refused_by_server("42501"), a_write, 2) == RetryDecision::one_by_one);
    CHECK(decided(refused_by_server("42501"), a_write, 1) == RetryDecision::fail);
    CHECK(decided(refused_by_server("42501"), a_read, 2) == RetryDecision::fail);
}

TEST_CASE("a group that the server refused for its data is sent one by one", "[retry]") {
    for (const char* sqlstate : {"22P05", "54000", "21000", "57014", "55P03"}) {
        INFO(sqlstate);
        CHECK(decided(refused_by_server(sqlstate), a_write, 2) == RetryDecision::one_by_one);
        CHECK(decided(refused_by_server(sqlstate), a_write, 1) == RetryDecision::fail);
    }
}

TEST_CASE("what is wrong with the table is wrong for every call", "[retry]") {
    CHECK(decided(refused_by_server("42P01"), a_read, 9) == RetryDecision::fail);
    CHECK(decided(refused_by_server("42501"), a_read, 9) == RetryDecision::fail);
}

TEST_CASE("a statement that overran its deadline is not tried again", "[retry]") {
    const pg::StatementFailure late(psycache::detail::Failure(Errc::timed_out), pg::Effect::unknown,
                                    true);
    CHECK(decided(late, a_read, 1) == RetryDecision::fail);
    CHECK(decided(late, a_write, 1, true) == RetryDecision::fail);
}

TEST_CASE("a server that has become a_read-only is left for another", "[retry]") {
    const pg::StatementFailure spoiled(server_failure("25006", ""), pg::Effect::none, true);
    CHECK(decided(spoiled, a_write, 4) == RetryDecision::retry);
}
