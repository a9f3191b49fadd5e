#include "batching/group_statement.hpp"

#include <catch2/catch.hpp>
#include <optional>
#include <string>

#include "pg/parameters.hpp"

using namespace psycache;
using namespace std::chrono_literals;

namespace {

const TableStatements& statements() {
    static const TableStatements all(std::nullopt, true);
    return all;
}

Calls calls_of(CallKind kind, std::initializer_list<const char*> keys) {
    Calls calls;
    for (const char* key : keys) {
        calls.push_back(std::make_shared<Call>(kind, key, TimePoint()));
        calls.back()->jsonb =
            std::string("\x01{\"from\":\"") + std::to_string(calls.size()) + "\"}";
        calls.back()->ttl = std::chrono::seconds(calls.size());
    }
    return calls;
}

/// Reads a one-dimensional array of PostgreSQL's binary format back.
std::vector<std::optional<std::string>> elements(const pg::Parameters& parameters,
                                                 std::size_t number) {
    const std::string_view bytes(parameters.values()[number],
                                 static_cast<std::size_t>(parameters.lengths()[number]));
    REQUIRE(bytes.size() >= 20);
    CHECK(pg::read_integer(bytes.substr(0, 4)) == 1);
    const auto count = static_cast<std::size_t>(pg::read_integer(bytes.substr(12, 4)));
    std::vector<std::optional<std::string>> all;
    std::size_t at = 20;
    for (std::size_t i = 0; i < count; ++i) {
        const auto length = pg::read_integer(bytes.substr(at, 4));
        at += 4;
        if (length < 0) {
            all.emplace_back();
            continue;
        }
        all.emplace_back(std::string(bytes.substr(at, static_cast<std::size_t>(length))));
        at += static_cast<std::size_t>(length);
    }
    CHECK(at == bytes.size());
    return all;
}

}  // namespace

TEST_CASE("a lone call is a plain statement", "[group]") {
    const Calls get = calls_of(CallKind::get, {"k"});
    const GroupStatement one(statements(), get, 100ms);
    CHECK(&one.statement() == &statements().get_one);
    CHECK(one.parameters().size() == 1);
    const Calls put = calls_of(CallKind::put, {"k"});
    const GroupStatement store(statements(), put, 100ms);
    CHECK(&store.statement() == &statements().put_one);
    CHECK(store.parameters().size() == 4);
    CHECK(pg::read_integer({store.parameters().values()[2], 8}) == 1000000);
}

TEST_CASE("equal keys are asked for once, sorted", "[group]") {
    const Calls calls = calls_of(CallKind::get, {"b", "a", "b", "\xc3\xa4", "a"});
    const GroupStatement group(statements(), calls, 100ms);
    CHECK(&group.statement() == &statements().get_many);
    const auto keys = elements(group.parameters(), 0);
    REQUIRE(keys.size() == 3);
    CHECK(keys[0] == "a");
    CHECK(keys[1] == "b");
    CHECK(keys[2] == "\xc3\xa4");
}

TEST_CASE("of several puts of a key the last one is stored", "[group]") {
    Calls calls = calls_of(CallKind::put, {"b", "a", "b"});
    calls[1]->ttl = no_expiry;
    const GroupStatement group(statements(), calls, 100ms);
    CHECK(&group.statement() == &statements().put_many);
    CHECK(elements(group.parameters(), 0).size() == 2);
    const auto values = elements(group.parameters(), 1);
    REQUIRE(values.size() == 2);
    CHECK(values[0] == calls[1]->jsonb);
    CHECK(values[1] == calls[2]->jsonb);
    const auto ttls = elements(group.parameters(), 2);
    CHECK_FALSE(ttls[0].has_value());  // for ever
    CHECK(pg::read_integer(*ttls[1]) == 3000000);
}
