// Keys of any text and any length: each is a key of its own, or is refused before anything is sent.

#include <map>

#include "properties/generators.hpp"
#include "properties/property.hpp"
#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// One text of each length up to the longest key.
std::vector<std::string> one_of_each_length() {
    std::vector<std::string> keys;
    for (std::size_t size = 0; size <= max_key_size; ++size) {
        keys.push_back(*random::text_of_size(size));
    }
    return keys;
}

/// The failures of all calls that take a key.
std::vector<Failure> failures_with(AnyCache& cache, const std::string& key) {
    const std::vector<std::string> keys{"good", key};
    const std::vector<Entry> entries{Entry("good", numbered(1), 1h), Entry(key, numbered(1), 1h)};
    return {failure_of([&] { cache.get(key); }),
            failure_of([&] { cache.put(key, numbered(1), 1h); }),
            failure_of([&] { cache.remove(key); }),
            failure_of([&] { cache.get_text(key); }),
            failure_of([&] { cache.put_text(key, "{}", 1h); }),
            failure_of([&] { cache.get_many(keys); }),
            failure_of([&] { cache.put_many(entries); }),
            failure_of([&] { cache.remove_many(keys); })};
}

}  // namespace

TEST_CASE("There are keys of every length up to the greatest") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    check_property("stored, found and removed", 1, [&] {
        const auto keys = one_of_each_length();
        std::vector<Entry> entries;
        for (const auto& key : keys) {
            entries.emplace_back(key, numbered(static_cast<std::int64_t>(key.size())), 1h);
        }
        cache->put_many(entries);
        const auto values = cache->get_many(keys);
        for (std::size_t i = 0; i < keys.size(); ++i) {
            RC_ASSERT(values[i] == entries[i].value);
        }
        RC_ASSERT(schema.rows("octet_length(key) = (value->>'n')::int") ==
                  static_cast<std::int64_t>(keys.size()));
        RC_ASSERT(cache->remove_many(keys) == keys.size());
    });
    CHECK(schema.rows() == 0);
    CHECK_FALSE(random::injected(schema.sql()));
}

TEST_CASE("Any text is a key of its own") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    check_property("many keys", 40, [&] {
        const auto keys = *rc::gen::container<std::vector<std::string>>(random::text());
        cache->flush();
        std::map<std::string, json::object> model;
        for (std::size_t i = 0; i < keys.size(); ++i) {
            cache->put(keys[i], numbered(static_cast<std::int64_t>(i)), 1h);
            model[keys[i]] = numbered(static_cast<std::int64_t>(i));
        }
        RC_ASSERT(schema.rows() == static_cast<std::int64_t>(model.size()));
        const auto values = cache->get_many(keys);
        for (std::size_t i = 0; i < keys.size(); ++i) {
            RC_ASSERT(cache->get(keys[i]) == model[keys[i]]);
            RC_ASSERT(values[i] == model[keys[i]]);
            RC_ASSERT(schema.has(keys[i]));
        }
        for (const auto& [key, value] : model) {
            RC_ASSERT(cache->remove(key));
        }
        RC_ASSERT(schema.rows() == 0);
    });
    CHECK_FALSE(random::injected(schema.sql()));
}

TEST_CASE("A text that is no key is refused before anything is sent") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    check_property("refused by every call", 150, [&] {
        const auto key = *random::broken_text();
        for (const auto& failure : failures_with(*cache, key)) {
            RC_ASSERT(failure.typed());
            RC_ASSERT(failure.code() == Errc::invalid_key);
        }
        RC_ASSERT(cache->statistics().statements == 0u);
    });
    check_property("refused by every put, and not found", 30, [&] {
        const auto size = *rc::gen::inRange<std::size_t>(max_key_size + 1, max_key_size + 3);
        const auto key = *random::text_of_size(size);
        for (const auto& failure :
             {failure_of([&] { cache->put(key, numbered(1), 1h); }),
              failure_of([&] { cache->put_text(key, "{}", 1h); }),
              failure_of([&] { cache->put_many({Entry(key, numbered(1), 1h)}); })}) {
            RC_ASSERT(failure.typed());
            RC_ASSERT(failure.code() == Errc::invalid_key);
        }
        RC_ASSERT(!cache->get(key));
        RC_ASSERT(!cache->get_text(key));
        RC_ASSERT(!cache->remove(key));
    });
    CHECK(schema.rows() == 0);
}
