// Any sequence of calls does what the same calls do to a map.

#include <map>
#include <ostream>
#include <set>

#include "properties/generators.hpp"
#include "properties/property.hpp"
#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

enum class Kind {
    get,
    get_text,
    get_many,
    put,
    put_text,
    put_many,
    remove,
    remove_many,
    cleanup,
    flush
};

/// One call. What it does not need, it does not look at.
struct Action {
    Kind kind = Kind::get;
    std::vector<std::string> keys;  // at least one
    std::int64_t number = 0;
    bool lives = true;
};

std::ostream& operator<<(std::ostream& out, const Action& action) {
    static constexpr const char* names[] = {"get",      "get_text", "get_many", "put",
                                            "put_text", "put_many", "remove",   "remove_many",
                                            "cleanup",  "flush"};
    out << names[static_cast<int>(action.kind)] << '(';
    for (const auto& key : action.keys) {
        out << key << ' ';
    }
    return out << action.number << (action.lives ? ")" : ", expired)");
}

rc::Gen<std::vector<Action>> actions() {
    // Few keys, so that calls meet. The first two sort one way by bytes, the other way by language.
    const auto key = rc::gen::element<std::string>("B", "a", "\u00e9", "", "'; --");
    const auto keys =
        rc::gen::suchThat(rc::gen::resize(8, rc::gen::container<std::vector<std::string>>(key)),
                          [](const std::vector<std::string>& all) { return !all.empty(); });
    const auto kind = rc::gen::weightedElement<Kind>({{3, Kind::get},
                                                      {2, Kind::get_text},
                                                      {3, Kind::get_many},
                                                      {4, Kind::put},
                                                      {2, Kind::put_text},
                                                      {4, Kind::put_many},
                                                      {2, Kind::remove},
                                                      {2, Kind::remove_many},
                                                      {1, Kind::cleanup},
                                                      {1, Kind::flush}});
    const auto lives = rc::gen::weightedElement<bool>({{3, true}, {1, false}});
    const auto action = rc::gen::map(
        rc::gen::tuple(kind, keys, rc::gen::arbitrary<std::int64_t>(), lives), [](const auto& all) {
            Action made;
            std::tie(made.kind, made.keys, made.number, made.lives) = all;
            return made;
        });
    return rc::gen::container<std::vector<Action>>(action);
}

/// What a cache should be: a map, with entries that are there without being found.
class Model {
  public:
    std::optional<json::object> get(const std::string& key) const {
        const auto found = entries_.find(key);
        return found != entries_.end() && found->second.lives ? std::optional(found->second.value)
                                                              : std::nullopt;
    }
    void put(const std::string& key, json::object value, bool lives) {
        entries_[key] = {std::move(value), lives};
    }
    bool remove(const std::string& key) { return entries_.erase(key) == 1; }
    std::uint64_t cleanup() {
        return std::erase_if(entries_, [](const auto& entry) { return !entry.second.lives; });
    }
    std::uint64_t flush() { return std::exchange(entries_, {}).size(); }

  private:
    struct Stored {
        json::object value;
        bool lives;
    };
    std::map<std::string, Stored> entries_;
};

/// Does an action to both and compares what comes of it.
void apply(AnyCache& cache, Model& model, const Action& action) {
    const std::string& key = action.keys.front();
    const Duration ttl = action.lives ? Duration(1h) : Duration(-action.number % 2);
    switch (action.kind) {
        case Kind::get:
            RC_ASSERT(cache.get(key) == model.get(key));
            break;
        case Kind::get_text: {
            const auto text = cache.get_text(key);
            RC_ASSERT((text ? std::optional(object(*text)) : std::nullopt) == model.get(key));
            break;
        }
        case Kind::get_many: {
            std::vector<std::optional<json::object>> expected;
            for (const auto& one : action.keys) {
                expected.push_back(model.get(one));
            }
            RC_ASSERT(cache.get_many(action.keys) == expected);
            break;
        }
        case Kind::put:
            cache.put(key, numbered(action.number), ttl);
            model.put(key, numbered(action.number), action.lives);
            break;
        case Kind::put_text:
            cache.put_text(key, json::serialize(numbered(action.number)), ttl);
            model.put(key, numbered(action.number), action.lives);
            break;
        case Kind::put_many: {
            std::vector<Entry> entries;
            for (const auto& one : action.keys) {
                const auto value = numbered(static_cast<std::int64_t>(entries.size()));
                entries.emplace_back(one, value, ttl);
                model.put(one, value, action.lives);
            }
            cache.put_many(entries);
            break;
        }
        case Kind::remove:
            RC_ASSERT(cache.remove(key) == model.remove(key));
            break;
        case Kind::remove_many: {
            std::uint64_t expected = 0;
            for (const auto& one : action.keys) {
                expected += model.remove(one) ? 1u : 0u;
            }
            RC_ASSERT(cache.remove_many(action.keys) == expected);
            break;
        }
        case Kind::cleanup:
            RC_ASSERT(cache.cleanup() == model.cleanup());
            break;
        case Kind::flush:
            RC_ASSERT(cache.flush() == model.flush());
            break;
    }
}

}  // namespace

TEST_CASE("Any sequence of calls does what it does to a map") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    check_property("like a map", 60, [&] {
        const auto sequence = *actions();
        cache->flush();
        Model model;
        for (const auto& action : sequence) {
            apply(*cache, model, action);
        }
        RC_ASSERT(schema.rows() == static_cast<std::int64_t>(model.flush()));
    });
}
