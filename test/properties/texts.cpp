// JSON text: stored if and only if PostgreSQL takes it for a JSON object, and read as it is stored.

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "properties/generators.hpp"
#include "properties/property.hpp"
#include "support/both.hpp"
#include "support/decimals.hpp"
#include "support/storable.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// What PostgreSQL makes of a text; nothing when it does not take it for a JSON object.
std::optional<std::string> as_jsonb(Psql& sql, const std::string& text) {
    const char* const values[] = {text.c_str()};
    const int lengths[] = {static_cast<int>(text.size())};
    if (text.find('\0') != std::string::npos) {
        return std::nullopt;  // no way to say it in SQL
    }
    const std::unique_ptr<PGresult, void (*)(PGresult*)> result(
        PQexecParams(sql.native(),
                     "SELECT v::text FROM (SELECT $1::text::jsonb AS v) AS t "
                     "WHERE jsonb_typeof(v) = 'object'",
                     1, nullptr, values, lengths, nullptr, 0),
        PQclear);
    if (PQresultStatus(result.get()) != PGRES_TUPLES_OK || PQntuples(result.get()) == 0) {
        return std::nullopt;
    }
    return std::string(PQgetvalue(result.get(), 0, 0));
}

/// The numbers of a JSON text, as they are written.
std::vector<std::string> written_numbers(const std::string& text) {
    std::vector<std::string> numbers;
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (quoted && text[i] == '\\') {
            ++i;  // whatever is escaped, it ends nothing
        } else if (quoted) {
            quoted = text[i] != '"';
        } else if (text[i] == '"') {
            quoted = true;
        } else if (text[i] == '-' || (text[i] >= '0' && text[i] <= '9')) {
            const auto end = std::min(text.find_first_not_of("-+.eE0123456789", i), text.size());
            numbers.push_back(text.substr(i, end - i));
            i = end - 1;
        }
    }
    return numbers;
}

void collect_numbers(const json::value& value, std::vector<json::value>& numbers) {
    if (value.is_number()) {
        numbers.push_back(value);
    } else if (value.is_array()) {
        for (const auto& element : value.get_array()) {
            collect_numbers(element, numbers);
        }
    } else if (value.is_object()) {
        for (const auto& member : value.get_object()) {
            collect_numbers(member.value(), numbers);
        }
    }
}

/// Whether a number is what C++ itself makes of the text.
bool reads_as(const std::string& text, const json::value& number) {
    const auto* const end = text.data() + text.size();
    std::int64_t small = 0;
    std::uint64_t large = 0;
    if (const auto read = std::from_chars(text.data(), end, small);
        read.ec == std::errc() && read.ptr == end) {
        return number == json::value(small);
    }
    if (const auto read = std::from_chars(text.data(), end, large);
        read.ec == std::errc() && read.ptr == end) {
        return number == json::value(large);
    }
    return number.is_double() && number.get_double() == std::strtod(text.c_str(), nullptr);
}

void check_stored(AnyCache& cache, const std::string& stored) {
    RC_ASSERT(cache.get_text("key") == stored);
    const auto numbers = written_numbers(stored);
    std::optional<json::object> object;
    const auto failure = failure_of([&] { object = cache.get("key"); });
    if (!std::all_of(numbers.begin(), numbers.end(), readable_number) ||
        stored.starts_with("{\"a\": " + std::string(1999, '['))) {
        RC_ASSERT(failure.code() == Errc::unreadable_value);
        return;
    }
    RC_ASSERT(!failure);
    RC_ASSERT(object.has_value());
    std::vector<json::value> read;
    collect_numbers(json::value(*object), read);
    RC_ASSERT(std::equal(numbers.begin(), numbers.end(), read.begin(), read.end(), reads_as));
    // All else by way of PostgreSQL: what was read is put, and is the same to it but for rounding.
    if (read.empty() && storable(json::value(*object))) {
        cache.put("again", *object, 1h);
        RC_ASSERT(cache.get_text("again") == stored);
    }
}

}  // namespace

TEST_CASE("A text is stored if and only if PostgreSQL takes it for a JSON object") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    std::map<bool, int> seen;
    check_property("put_text", 600, [&] {
        const auto text = *random::json_text();
        const auto expected = as_jsonb(schema.sql(), text);
        ++seen[expected.has_value()];
        cache->remove("key");
        const auto failure = failure_of([&] { cache->put_text("key", text, 1h); });
        RC_ASSERT(!failure == expected.has_value());
        if (failure) {
            RC_ASSERT(failure.typed());
            RC_ASSERT(failure.code() == Errc::invalid_value);
            RC_ASSERT(failure.sqlstate().empty());  // nothing was sent
            RC_ASSERT(!cache->get_text("key").has_value());
        } else {
            check_stored(*cache, *expected);
        }
    });
    // Neither kind is so rare that the property says nothing about it.
    CHECK(seen[true] > 50);
    CHECK(seen[false] > 50);
    CHECK_FALSE(random::injected(schema.sql()));
}

TEST_CASE("Of texts that share a statement only those are refused that PostgreSQL refuses") {
    TestSchema schema;
    asio::io_context context;
    const AsyncPostgresCache cache(context.get_executor(), server_pool(1), schema.cache_options());
    check_property("put_text at the same time", 60, [&] {
        const auto texts = *rc::gen::container<std::vector<std::string>>(
            *rc::gen::inRange<std::size_t>(2, 20), random::json_text());
        std::vector<Failure> failures(texts.size());
        auto puts = [&]() -> asio::awaitable<void> {
            const auto executor = co_await asio::this_coro::executor;
            std::vector<Started<void>> started;
            for (std::size_t i = 0; i < texts.size(); ++i) {
                started.push_back(start(
                    executor, AsyncPostgresCache(cache).put_text(std::to_string(i), texts[i], 1h)));
            }
            for (std::size_t i = 0; i < texts.size(); ++i) {
                failures[i] = co_await started[i].failure();
            }
        };
        run_coro(context, AsyncPostgresCache(cache).flush());
        run_coro(context, puts);
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const auto expected = as_jsonb(schema.sql(), texts[i]);
            RC_ASSERT(!failures[i] == expected.has_value());
            RC_ASSERT(!failures[i] || failures[i].code() == Errc::invalid_value);
            RC_ASSERT(run_coro(context, AsyncPostgresCache(cache).get_text(std::to_string(i))) ==
                      expected);
        }
    });
    CHECK_FALSE(random::injected(schema.sql()));
}
