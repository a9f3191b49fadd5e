#include "operations/operations.hpp"

#include <catch2/catch.hpp>
#include <limits>
#include <optional>
#include <string>

#include "pg/parameters.hpp"

using namespace psycache;
using namespace psycache::detail;
using namespace std::chrono_literals;

namespace {

const Operations& operations() {
    static const Operations all(std::nullopt, true, 5s);
    return all;
}

Calls gets(std::initializer_list<const char*> keys) {
    Calls calls;
    for (const char* key : keys) {
        calls.push_back(
            std::make_shared<GetCall>(operations().get, key, TimePoint(), Wanted::object));
    }
    return calls;
}

std::shared_ptr<PutCall> put(const char* key, int number, Duration ttl) {
    return std::make_shared<PutCall>(operations().put, key, TimePoint(),
                                     "\x01{\"from\":\"" + std::to_string(number) + "\"}", ttl);
}

/// What a group of calls sends.
struct Bound {
    explicit Bound(const Calls& calls)
        : group(calls), statement(group.operation().bind(group, parameters)) {}

    const Group group;
    pg::Parameters parameters;
    const pg::Statement& statement;
};

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

TEST_CASE("a lone call is a plain statement", "[operations]") {
    const Bound get(gets({"k"}));
    CHECK(get.statement.sql.starts_with("SELECT t.value, pg_column_size(t.value) FROM"));
    CHECK(get.parameters.size() == 1);
    const Calls puts = {put("k", 1, 1s)};
    const Bound store(puts);
    CHECK(store.statement.sql.find("$2::jsonb") != std::string::npos);
    CHECK(store.parameters.size() == 3);
    CHECK(pg::read_integer({store.parameters.values()[2], 8}) == 1000000);
}

TEST_CASE("equal keys are asked for once, sorted", "[operations]") {
    const Calls calls = gets({"b", "a", "b", "\xc3\xa4", "a"});
    const Bound bound(calls);
    const auto keys = elements(bound.parameters, 0);
    REQUIRE(keys.size() == 3);
    CHECK(keys[0] == "a");
    CHECK(keys[1] == "b");
    CHECK(keys[2] == "\xc3\xa4");
    CHECK(bound.group.calls(1).size() == 2);
    CHECK(bound.group.find("b") == 1u);
    CHECK_FALSE(bound.group.find("c"));
}

TEST_CASE("of several puts of a key the last one is stored", "[operations]") {
    const auto first = put("b", 1, 1s);
    const auto second = put("a", 2, no_expiry);
    const auto third = put("b", 3, 3s);
    const Calls calls = {first, second, third};
    const Bound bound(calls);
    CHECK(elements(bound.parameters, 0).size() == 2);
    const auto values = elements(bound.parameters, 1);
    REQUIRE(values.size() == 2);
    CHECK(values[0] == second->jsonb);
    CHECK(values[1] == third->jsonb);
    const auto ttls = elements(bound.parameters, 2);
    CHECK_FALSE(ttls[0].has_value());  // for ever
    CHECK(pg::read_integer(*ttls[1]) == 3000000);
}

TEST_CASE("of several puts with tags of a key all tags are written, each once", "[operations]") {
    const auto tagged = [](const char* key, int number, std::vector<std::string> tags) {
        return std::make_shared<PutTaggedCall>(
            operations().put_tagged, key, TimePoint(), std::to_string(number), 1s,
            std::make_shared<const std::vector<std::string>>(std::move(tags)));
    };
    const Calls calls = {tagged("b", 1, {"x", "y", "x"}), tagged("a", 2, {"x"}),
                         tagged("b", 3, {"y", "z"})};
    CHECK(calls.front()->bytes == 5);
    const Bound bound(calls);
    const auto values = elements(bound.parameters, 1);
    REQUIRE(values.size() == 2);
    CHECK(values[1] == "3");
    using Texts = std::vector<std::optional<std::string>>;
    CHECK(elements(bound.parameters, 3) == Texts{"x", "x", "y", "z"});
    CHECK(elements(bound.parameters, 4) == Texts{"a", "b", "b", "b"});
    CHECK(bound.parameters.size() == 5);
}

TEST_CASE("a prefix is a pattern that means itself", "[operations]") {
    CHECK(RemovePrefix::pattern("user:") == "user:%");
    CHECK(RemovePrefix::pattern("50%_a\\b") == "50\\%\\_a\\\\b%");
}

TEST_CASE("of several touches of a key the last ttl counts", "[operations]") {
    const auto touch = [](const char* key, Duration ttl) {
        return std::make_shared<TouchCall>(operations().touch, key, TimePoint(), ttl);
    };
    const Calls calls = {touch("b", 1s), touch("a", 2s), touch("b", 3s)};
    const Bound bound(calls);
    const auto ttls = elements(bound.parameters, 1);
    REQUIRE(ttls.size() == 2);
    CHECK(pg::read_integer(*ttls[0]) == 2000000);
    CHECK(pg::read_integer(*ttls[1]) == 3000000);
}

TEST_CASE("what expires an entry at once is the last of its key that finds it", "[operations]") {
    const auto touch = [](Duration ttl) {
        return std::make_shared<TouchCall>(operations().touch, "a", TimePoint(), ttl);
    };
    const auto replace = [](const char* jsonb, Duration ttl) {
        return std::make_shared<ConditionalPutCall>(operations().replace, "a", TimePoint(), jsonb,
                                                    ttl);
    };
    const Calls touches = {touch(1s), touch(0s), touch(3s)};
    CHECK(pg::read_integer(*elements(Bound(touches).parameters, 1)[0]) == 0);
    const Calls replaces = {replace("\x01"
                                    "1",
                                    1s),
                            replace("\x01"
                                    "2",
                                    -1s),
                            replace("\x01"
                                    "3",
                                    3s)};
    CHECK(elements(Bound(replaces).parameters, 1)[0] ==
          "\x01"
          "2");
}

TEST_CASE("of several puts of an absent key the first that stays is sent", "[operations]") {
    const auto put_if_absent = [](const char* jsonb, Duration ttl) {
        return std::make_shared<ConditionalPutCall>(operations().put_if_absent, "a", TimePoint(),
                                                    jsonb, ttl);
    };
    const Calls calls = {put_if_absent("\x01"
                                       "1",
                                       0s),
                         put_if_absent("\x01"
                                       "2",
                                       1s),
                         put_if_absent("\x01"
                                       "3",
                                       1s)};
    CHECK(elements(Bound(calls).parameters, 1)[0] ==
          "\x01"
          "2");
    const Calls gone = {put_if_absent("\x01"
                                      "1",
                                      0s),
                        put_if_absent("\x01"
                                      "2",
                                      0s)};
    CHECK(elements(Bound(gone).parameters, 1)[0] ==
          "\x01"
          "2");
}

TEST_CASE("increments of one key are added up, beyond 64 bits too", "[operations]") {
    const auto increment = [](const char* key, std::int64_t by) {
        return std::make_shared<IncrementCall>(operations().increment, key, TimePoint(), by, 1h);
    };
    constexpr auto most = std::numeric_limits<std::int64_t>::max();
    constexpr auto least = std::numeric_limits<std::int64_t>::min();
    const Calls calls = {increment("a", 1),    increment("b", most),  increment("a", 2),
                         increment("b", most), increment("c", least), increment("c", least),
                         increment("d", 5),    increment("d", -5)};
    const Bound bound(calls);
    const auto sums = elements(bound.parameters, 1);
    REQUIRE(sums.size() == 4);
    CHECK(sums[0] == "3");
    CHECK(sums[1] == "18446744073709551614");
    CHECK(sums[2] == "-18446744073709551616");
    CHECK(sums[3] == "0");
}

TEST_CASE("patches of one key are sent as one, the later members last", "[operations]") {
    const auto merge = [](const char* patch) {
        return std::make_shared<MergeCall>(operations().merge, "a", TimePoint(), patch);
    };
    const Calls calls = {merge("\x01{\"a\":1}"), merge("\x01{}"), merge("\x01{\"a\":2,\"b\":3}")};
    CHECK(elements(Bound(calls).parameters, 1)[0] == "\x01{\"a\":1,\"a\":2,\"b\":3}");
    CHECK(elements(Bound({merge("\x01{}"), merge("\x01{}")}).parameters, 1)[0] == "\x01{}");
}

TEST_CASE("where tables are distributed writes are simple statements of one key", "[operations]") {
    const Operations distributed(std::nullopt, true, 5s);
    const Operation* const writes[] = {&distributed.put, &distributed.remove, &distributed.touch};
    for (const Operation* write : writes) {
        CHECK(write->shares(false));
    }
    distributed.table.distributed = true;
    for (const Operation* write : writes) {
        CHECK_FALSE(write->shares(false));
    }
    CHECK(distributed.get.shares(false));
    CHECK(distributed.put.shares(true));
    CHECK(distributed.remove.shares(true));
    CHECK_FALSE(distributed.touch.shares(true));

    const Calls calls[] = {
        {std::make_shared<PutCall>(distributed.put, "a", TimePoint(), "\x01{}", 1h)},
        {std::make_shared<RemoveCall>(distributed.remove, "a", TimePoint())},
        {std::make_shared<TouchCall>(distributed.touch, "a", TimePoint(), 1h)}};
    for (const Calls& one : calls) {
        const std::string& sql = Bound(one).statement.sql;
        CAPTURE(sql);
        for (const char* part : {"SELECT", "FROM (", "set_config", "RETURNING", "FOR UPDATE"}) {
            CHECK(sql.find(part) == std::string::npos);
        }
    }
}

TEST_CASE("where rows of a distributed table lie together one statement writes several",
          "[operations]") {
    const Operations distributed(std::nullopt, true, 5s);
    distributed.table.distributed = true;
    const Calls puts = {
        std::make_shared<PutCall>(distributed.put, "b", TimePoint(), "\x01{}", 1h),
        std::make_shared<PutCall>(distributed.put, "a", TimePoint(), "\x01[]", no_expiry),
        std::make_shared<PutCall>(distributed.put, "b", TimePoint(), "\x01[1]", 1s)};
    const Group group(CallSpan(puts), true);
    pg::Parameters parameters;
    const pg::Statement& put = distributed.put.bind(group, parameters);
    CAPTURE(put.sql);
    CHECK(put.sql.find("VALUES ($1, $2, ") != std::string::npos);
    CHECK(put.sql.find("($4, $5, ") != std::string::npos);
    CHECK(put.sql.find("SELECT") == std::string::npos);
    CHECK(put.sql.find("RETURNING") == std::string::npos);
    REQUIRE(parameters.size() == 6);
    REQUIRE(put.types.size() == 7);
    const auto text = [&](std::size_t i) {
        return std::string(parameters.values()[i],
                           static_cast<std::size_t>(parameters.lengths()[i]));
    };
    // By key, and of one key the last.
    CHECK(text(0) == "a");
    CHECK(text(1) == "\x01[]");
    CHECK(parameters.values()[2] == nullptr);
    CHECK(text(3) == "b");
    CHECK(text(4) == "\x01[1]");
    CHECK(pg::read_integer(text(5)) == 1'000'000);

    pg::Parameters again;
    CHECK(&distributed.put.bind(group, again) == &put);

    const Calls removes = {std::make_shared<RemoveCall>(distributed.remove, "b", TimePoint()),
                           std::make_shared<RemoveCall>(distributed.remove, "a", TimePoint())};
    pg::Parameters keys;
    const std::string& sql = distributed.remove.bind(Group(CallSpan(removes), true), keys).sql;
    CAPTURE(sql);
    CHECK(sql.starts_with("DELETE"));
    CHECK(sql.find("FOR UPDATE") == std::string::npos);
}

TEST_CASE("a statement has as many parameters as it needs", "[operations]") {
    pg::Parameters parameters;
    for (int i = 0; i < 400; ++i) {
        parameters.own(std::to_string(i));
    }
    REQUIRE(parameters.size() == 400);
    for (int i = 0; i < 400; ++i) {
        CHECK(std::string_view(parameters.values()[i],
                               static_cast<std::size_t>(parameters.lengths()[i])) ==
              std::to_string(i));
        CHECK(parameters.formats()[i] == 1);
    }
}
