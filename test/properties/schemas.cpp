// Schemas of any name: each is used as it is, or refused in a way that tells why.

#include <stdexcept>

#include "properties/generators.hpp"
#include "properties/property.hpp"
#include "support/both.hpp"
#include "support/storable.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Puts, gets, cleans and removes in a schema.
void use(AnyCache& cache, TestSchema& schema) {
    cache.put("key", numbered(1), 1h);
    cache.put_many({Entry("a", numbered(2), 1h), Entry("b", numbered(3), 0s)});
    RC_ASSERT(schema.rows() == 3);
    RC_ASSERT(cache.get("key") == numbered(1));
    const auto values = cache.get_many({"a", "b"});
    RC_ASSERT(values[0] == numbered(2));
    RC_ASSERT(!values[1].has_value());
    RC_ASSERT(cache.cleanup() == 1u);
    RC_ASSERT(cache.remove("key"));
    RC_ASSERT(cache.remove_many({"a", "b"}) == 1u);
    cache.put("key", numbered(1), 1h);
    RC_ASSERT(cache.flush() == 1u);
}

}  // namespace

TEST_CASE("A schema may have any name") {
    // PostgreSQL cuts names after 63 bytes, ours like those of everybody else.
    check_property("used by both classes", 40, [] {
        const auto length = *rc::gen::inRange<std::size_t>(1, 80);
        const auto decoration = *random::text_of_size(length);
        TestSchema schema(Table::ours, decoration);
        for (const auto flavour : {Flavour::async, Flavour::blocking}) {
            const auto cache = make_cache(flavour, schema.cache_options(), server_pool(1));
            use(*cache, schema);
        }
        RC_ASSERT(!random::injected(schema.sql()));
    });
}

TEST_CASE("A schema whose name cannot be one is refused") {
    check_property("refused", 40, [] {
        const auto name = *random::broken_text();
        RC_PRE(!storable_text(name));
        CacheOptions options;
        options.schema = name;
        TableOptions table;
        table.schema = name;
        for (const auto flavour : {Flavour::async, Flavour::blocking}) {
            // At once, or by the server; never with the schema of another name.
            try {
                const auto cache = make_cache(flavour, options, server_pool(1));
                const auto failure = failure_of([&] { cache->get("key"); });
                RC_ASSERT(failure.typed());
                RC_ASSERT(failure.code() == Condition::caller_mistake);
            } catch (const std::invalid_argument& error) {
                RC_ASSERT(std::string(error.what()).find("schema") != std::string::npos);
            }
        }
        bool refused = false;
        try {
            init_db(dsn(), table);
        } catch (const std::invalid_argument&) {
            refused = true;
        } catch (const Error& error) {
            refused = error.code() == Condition::caller_mistake;
        }
        RC_ASSERT(refused);
    });
}
