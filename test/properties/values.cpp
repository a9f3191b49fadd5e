// Any JSON object comes back equal, or is refused before anything is sent.
//
// Equal is Boost.JSON's ==: integers by value, doubles as the same doubles and never as integers
// (or the other way round), texts by their bytes, names in any order. -0.0 comes back as 0.0.

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>

#include "properties/generators.hpp"
#include "properties/property.hpp"
#include "support/both.hpp"
#include "support/decimals.hpp"
#include "support/storable.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Puts a value in two ways that end in the same statement, or in that for several calls.
void put(AnyCache& cache, const json::object& value, bool many) {
    if (many) {
        cache.put_many({Entry("key", value, 1h), Entry("other", value, 1h)});
    } else {
        cache.put("key", value, 1h);
    }
}

std::vector<std::optional<json::object>> get(AnyCache& cache, bool many) {
    return many ? cache.get_many({"other", "key", "other"}) : std::vector{cache.get("key")};
}

bool has_negative_zero(const json::value& value) {
    if (value.is_double()) {
        return value.get_double() == 0 && std::signbit(value.get_double());
    }
    if (value.is_array()) {
        const auto& all = value.get_array();
        return std::any_of(all.begin(), all.end(), has_negative_zero);
    }
    if (value.is_object()) {
        const auto& all = value.get_object();
        return std::any_of(all.begin(), all.end(),
                           [](const auto& member) { return has_negative_zero(member.value()); });
    }
    return false;
}

/// An object with @p value somewhere among good ones.
json::object around(json::value value, const json::object& good, std::size_t levels) {
    json::object object = good;
    object["at"] = random::nested(std::move(value), levels);
    return object;
}

}  // namespace

TEST_CASE("Any JSON object comes back equal") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    check_property("put and got back", 300, [&] {
        const auto value = *random::object();
        const auto many = *rc::gen::arbitrary<bool>();
        RC_ASSERT(storable(json::value(value)));
        put(*cache, value, many);
        for (const auto& back : get(*cache, many)) {
            RC_ASSERT(back.has_value());
            RC_ASSERT(*back == value);
            RC_ASSERT(!has_negative_zero(json::value(*back)));
        }
    });
    check_property("a thousand doubles", 20, [&] {
        const auto doubles = *rc::gen::container<std::vector<double>>(1000, random::finite());
        json::object value;
        value["doubles"] = json::array(doubles.begin(), doubles.end());
        put(*cache, value, false);
        RC_ASSERT(cache->get("key") == value);
    });
    CHECK_FALSE(random::injected(schema.sql()));
}

TEST_CASE("A stored number is read if a double gives it back, and else as text only") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    std::map<bool, int> seen;
    check_property("decimals of others", 600, [&] {
        const auto decimal = *random::decimal();
        schema.sql().exec("TRUNCATE " + schema.table());
        schema.insert("key", "{\"n\": " + decimal + "}");
        const auto text = cache->get_text("key").value();
        const auto stored = text.substr(6, text.size() - 7);
        const bool readable = readable_number(stored);
        ++seen[readable];
        std::optional<json::object> value;
        const auto failure = failure_of([&] { value = cache->get("key"); });
        RC_ASSERT(!failure == readable);
        if (failure) {
            RC_ASSERT(failure.code() == Errc::unreadable_value);
        } else {
            RC_ASSERT(value->at("n").to_number<double>() == std::strtod(decimal.c_str(), nullptr));
        }
    });
    check_property("doubles of Python", 20, [&] {
        // Its text is the shortest one; JSONB keeps the number and no exponent.
        const auto doubles = *rc::gen::container<std::vector<double>>(1000, random::finite());
        std::string text;
        for (const double number : doubles) {
            char digits[64];
            text.append(text.empty() ? "{\"doubles\": [" : ", ")
                .append(digits, std::to_chars(std::begin(digits), std::end(digits), number).ptr);
        }
        schema.sql().exec("TRUNCATE " + schema.table());
        schema.insert("key", text + "]}");
        const auto back = cache->get("key").value().at("doubles").as_array();
        for (std::size_t i = 0; i < doubles.size(); ++i) {
            RC_ASSERT(back[i].to_number<double>() == doubles[i]);
        }
    });
    CHECK(seen[true] > 50);
    CHECK(seen[false] > 50);
}

TEST_CASE("An object that JSONB cannot hold is refused before anything is sent") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    put(*cache, numbered(1), true);
    const auto statements = cache->statistics().statements;
    check_property("refused", 300, [&] {
        const auto bad = *random::unstorable();
        const auto good = *random::object();
        const auto levels = *rc::gen::inRange<std::size_t>(0, 20);
        const auto many = *rc::gen::arbitrary<bool>();
        const auto value = around(bad, good, levels);
        RC_PRE(!storable(json::value(value)));
        const auto failure = failure_of([&] { put(*cache, value, many); });
        RC_ASSERT(failure.typed());
        RC_ASSERT(failure.code() == Errc::invalid_value);
        RC_ASSERT(cache->statistics().statements == statements);
    });
    // Whatever was refused, what was there is there.
    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->get("other") == numbered(1));
    CHECK_FALSE(random::injected(schema.sql()));
}

TEST_CASE("Nesting is refused exactly beyond the limit") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const std::vector<json::value> inner{1, json::array(), json::object()};
    for (std::size_t levels = deepest_storable - 4; levels < deepest_storable + 3; ++levels) {
        for (const json::value& innermost : inner) {
            // The object around is a level as well.
            const auto value = around(innermost, json::object(), levels);
            CAPTURE(levels, json::serialize(innermost));
            const auto failure = failure_of([&] { put(*cache, value, false); });
            if (storable(json::value(value))) {
                CHECK_FALSE(failure);
                CHECK((cache->get("key") == value));
            } else {
                CHECK(failure.code() == Errc::invalid_value);
            }
        }
    }
}
