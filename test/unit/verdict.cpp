#include "batching/verdict.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace psycache;

namespace {

pg::StatementFailure lost(pg::Effect effect) {
    return pg::StatementFailure(Failure(Errc::connection_lost), effect, true);
}

pg::StatementFailure refused(const std::string& sqlstate) {
    return pg::StatementFailure(server_failure(sqlstate, "text"), pg::Effect::none, false);
}

Verdict first(const pg::StatementFailure& failure, CallKind kind, std::size_t calls,
              bool replay = false) {
    Tries tries;
    return judge(failure, kind, calls, replay, tries);
}

}  // namespace

TEST_CASE("what was not sent goes to another connection, for every kind of call", "[verdict]") {
    for (const CallKind kind : {CallKind::get, CallKind::put, CallKind::remove}) {
        CHECK(first(lost(pg::Effect::none), kind, 3) == Verdict::retry);
    }
}

TEST_CASE("a get that was not answered is sent once more, not twice", "[verdict]") {
    Tries tries;
    CHECK(judge(lost(pg::Effect::unknown), CallKind::get, 1, false, tries) == Verdict::retry);
    CHECK(judge(lost(pg::Effect::unknown), CallKind::get, 1, false, tries) == Verdict::fail);
}

TEST_CASE("a write that was not answered is not replayed unless it was asked for", "[verdict]") {
    for (const CallKind kind : {CallKind::put, CallKind::remove}) {
        CHECK(first(lost(pg::Effect::unknown), kind, 1) == Verdict::fail_as_unknown);
        Tries tries;
        CHECK(judge(lost(pg::Effect::unknown), kind, 1, true, tries) == Verdict::retry);
        CHECK(judge(lost(pg::Effect::unknown), kind, 1, true, tries) == Verdict::fail_as_unknown);
    }
}

TEST_CASE("a group that loses one connection after the other gives up", "[verdict]") {
    Tries tries;
    int retries = 0;
    while (judge(lost(pg::Effect::none), CallKind::put, 1, false, tries) == Verdict::retry) {
        REQUIRE(++retries < 100);
    }
    CHECK(retries == 5);
}

TEST_CASE("conflicts are tried again a few times", "[verdict]") {
    for (const char* sqlstate : {"40P01", "40001"}) {
        Tries tries;
        for (int i = 0; i < 3; ++i) {
            CHECK(judge(refused(sqlstate), CallKind::put, 5, false, tries) == Verdict::retry_later);
        }
        CHECK(judge(refused(sqlstate), CallKind::put, 5, false, tries) == Verdict::fail);
    }
}

TEST_CASE("a group that the server refused for its data is sent one by one", "[verdict]") {
    for (const char* sqlstate : {"22P05", "54000", "21000", "57014", "55P03"}) {
        INFO(sqlstate);
        CHECK(first(refused(sqlstate), CallKind::put, 2) == Verdict::one_by_one);
        CHECK(first(refused(sqlstate), CallKind::put, 1) == Verdict::fail);
    }
}

TEST_CASE("what is wrong with the table is wrong for every call", "[verdict]") {
    CHECK(first(refused("42P01"), CallKind::get, 9) == Verdict::fail);
    CHECK(first(refused("42501"), CallKind::get, 9) == Verdict::fail);
}

TEST_CASE("a statement that overran its deadline is not tried again", "[verdict]") {
    const pg::StatementFailure late(Failure(Errc::timed_out), pg::Effect::unknown, true);
    CHECK(first(late, CallKind::get, 1) == Verdict::fail);
    CHECK(first(late, CallKind::put, 1, true) == Verdict::fail);
}

TEST_CASE("a server that has become read-only is left for another", "[verdict]") {
    const pg::StatementFailure spoiled(server_failure("25006", ""), pg::Effect::none, true);
    CHECK(first(spoiled, CallKind::put, 4) == Verdict::retry);
}
