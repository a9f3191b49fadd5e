// What a near cache makes of notifications: which keys they are about, and what they prove.

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "near/change_waits.hpp"
#include "near/proof_of_life.hpp"

using namespace psycache::detail;
using namespace std::chrono_literals;

TEST_CASE("a notification names keys by their hashes, or means all of them", "[near]") {
    struct Case {
        std::string payload;
        bool all;
        std::vector<std::uint64_t> hashes;
    };
    const std::vector<Case> cases = {
        {"0", false, {0}},
        {"ff", false, {255}},
        {"ffffffffffffffff", false, {UINT64_MAX}},
        {"1 2 abcdef0123456789", false, {1, 2, 0xabcdef0123456789u}},
        {"1 ", false, {1}},
        {"*", true, {}},
        {"", true, {}},
        {" 1", true, {}},
        {"1  2", true, {}},
        {"1 x", true, {}},
        {"-1", true, {}},
        {"1,2", true, {}},
        {"10000000000000000", true, {}},
        {"00000000000000001", true, {}},
    };
    for (const auto& [payload, all, hashes] : cases) {
        CAPTURE(payload);
        const Changes changes = read_changes(payload);
        CHECK(changes.all == all);
        CHECK(changes.hashes == hashes);
    }
}

TEST_CASE("what came back proves that all was heard of until it was sent", "[near]") {
    const TimePoint start = TimePoint() + 1h;
    ProofOfLife proof(2s);
    CHECK_FALSE(proof.outstanding());
    CHECK(proof.next() <= start);
    CHECK_FALSE(proof.heard("1"));

    const std::string first = proof.begin(start);
    CHECK(proof.outstanding());
    CHECK(proof.next() == start + 500ms);
    CHECK(proof.too_late() == start + 2s);
    CHECK_FALSE(proof.heard("something else"));
    CHECK(proof.heard(first) == start + 2s);
    CHECK_FALSE(proof.outstanding());
    CHECK_FALSE(proof.heard(first));

    const std::string second = proof.begin(start + 10s);
    CHECK(second != first);
    CHECK_FALSE(proof.heard(first));
    CHECK(proof.heard(second) == start + 12s);
}

TEST_CASE("those who wait for changes are told of those of their keys, once", "[near]") {
    const auto waits = std::make_shared<ChangeWaits>();
    int told = 0;
    int others = 0;
    auto wait = waits->wait_for({1, 2, 2}, [&] { ++told; });
    const auto other = waits->wait_for({2, 3}, [&] { ++others; });
    waits->changed(4);
    CHECK(told == 0);
    CHECK_FALSE(wait->changed());
    waits->changed(1);
    waits->changed(2);
    CHECK(told == 1);
    CHECK(others == 1);
    CHECK(wait->changed());
    wait->looks();
    CHECK_FALSE(wait->changed());
    waits->changed_all();
    CHECK(told == 2);
    CHECK(others == 1);  // it has not looked since
    wait.reset();
    waits->changed_all();
    waits->changed(1);
    CHECK(told == 2);
}
