// Any sequence of calls does what the same calls do to a map.

#include <boost/json/parse.hpp>
#include <iterator>
#include <map>
#include <ostream>
#include <set>
#include <utility>

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
    put_if_absent,
    put_if_absent_many,
    replace,
    replace_many,
    compare_and_put,
    take,
    take_many,
    touch,
    touch_many,
    get_and_touch,
    get_and_touch_many,
    get_entry,
    get_entry_many,
    increment,
    increment_many,
    merge,
    put_tagged,
    put_tagged_if_absent,
    remove_tag,
    remove_prefix,
    clear,
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
    static constexpr const char* names[] = {"get",
                                            "get_text",
                                            "get_many",
                                            "put",
                                            "put_text",
                                            "put_many",
                                            "remove",
                                            "remove_many",
                                            "put_if_absent",
                                            "put_if_absent_many",
                                            "replace",
                                            "replace_many",
                                            "compare_and_put",
                                            "take",
                                            "take_many",
                                            "touch",
                                            "touch_many",
                                            "get_and_touch",
                                            "get_and_touch_many",
                                            "get_entry",
                                            "get_entry_many",
                                            "increment",
                                            "increment_many",
                                            "merge",
                                            "put_tagged",
                                            "put_tagged_if_absent",
                                            "remove_tag",
                                            "remove_prefix",
                                            "clear",
                                            "cleanup",
                                            "flush"};
    out << names[static_cast<int>(action.kind)] << '(';
    for (const auto& key : action.keys) {
        out << key << ' ';
    }
    return out << action.number << (action.lives ? ")" : ", expired)");
}

rc::Gen<std::vector<Action>> actions() {
    // Few keys, so that calls meet. The first two sort one way by bytes, the other way by language.
    const auto key = rc::gen::element<std::string>("B", "a", "a%", "\u00e9", "", "'; --");
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
                                                      {3, Kind::put_if_absent},
                                                      {3, Kind::replace},
                                                      {3, Kind::compare_and_put},
                                                      {2, Kind::take},
                                                      {2, Kind::take_many},
                                                      {2, Kind::touch},
                                                      {2, Kind::touch_many},
                                                      {2, Kind::get_and_touch},
                                                      {3, Kind::get_entry},
                                                      {4, Kind::increment},
                                                      {3, Kind::merge},
                                                      {1, Kind::cleanup},
                                                      {1, Kind::flush},
                                                      {2, Kind::put_if_absent_many},
                                                      {2, Kind::replace_many},
                                                      {2, Kind::get_and_touch_many},
                                                      {2, Kind::get_entry_many},
                                                      {2, Kind::increment_many}});
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
    std::optional<json::value> get(const std::string& key) const {
        const auto found = entries_.find(key);
        return found != entries_.end() && found->second.lives ? std::optional(found->second.value)
                                                              : std::nullopt;
    }
    std::vector<std::optional<json::value>> get(const std::vector<std::string>& keys) const {
        std::vector<std::optional<json::value>> values;
        for (const auto& key : keys) {
            values.push_back(get(key));
        }
        return values;
    }
    void put(const std::string& key, json::value value, bool lives) {
        entries_[key] = {std::move(value), lives};
    }
    bool touch(const std::string& key, bool lives) {
        const auto found = entries_.find(key);
        const bool live = found != entries_.end() && found->second.lives;
        if (live) {
            found->second.lives = lives;
        }
        return live;
    }
    bool remove(const std::string& key) { return entries_.erase(key) == 1; }
    /// Nothing but remove_tag takes a tag away from a key whose entry is there, however often that
    /// is put again.
    void tag(const std::string& key, const std::string& tag, bool lives) {
        tags_[{tag, key}] = lives;
    }
    std::uint64_t remove_tag(const std::string& tag) {
        std::uint64_t removed = 0;
        std::erase_if(tags_, [&](const auto& row) {
            const bool its = row.first.first == tag;
            removed += its && remove(row.first.second) ? 1 : 0;
            return its;
        });
        return removed;
    }
    std::uint64_t remove_prefix(const std::string& prefix) {
        return std::erase_if(entries_,
                             [&](const auto& entry) { return entry.first.starts_with(prefix); });
    }
    std::uint64_t cleanup() {
        const auto gone =
            std::erase_if(entries_, [](const auto& entry) { return !entry.second.lives; });
        // What a tag was given to is looked for when it should have expired.
        for (auto row = tags_.begin(); row != tags_.end();) {
            const bool due = !std::exchange(row->second, true);
            row = due && !entries_.contains(row->first.second) ? tags_.erase(row) : std::next(row);
        }
        return gone;
    }
    std::uint64_t flush() { return std::exchange(entries_, {}).size(); }
    void clear() {
        entries_.clear();
        tags_.clear();
    }

  private:
    struct Stored {
        json::value value;
        bool lives;
    };
    std::map<std::string, Stored> entries_;
    std::map<std::pair<std::string, std::string>, bool> tags_;  // of tag and key: not due yet
};

PutOptions with_tag(const std::string& tag) {
    PutOptions options;
    options.tags = {tag};
    return options;
}

/// @returns the value of an answer that must be an object; none where it is refused as no object.
template <class Get>
std::optional<json::value> object_of(Get get) {
    try {
        auto object = get();
        return object ? std::optional<json::value>(std::move(*object)) : std::nullopt;
    } catch (const Error& error) {
        RC_ASSERT(error.code() == Errc::unreadable_value);
        return std::nullopt;
    }
}
std::optional<json::value> if_object(std::optional<json::value> value) {
    return value && value->is_object() ? value : std::nullopt;
}

/// Does an action to both and compares what comes of it.
void apply(AnyCache& cache, Model& model, const Action& action) {
    const std::string& key = action.keys.front();
    const std::string tag = action.number % 2 == 0 ? "even" : "odd";
    const Duration ttl = action.lives ? Duration(1h) : Duration(-action.number % 2);
    switch (action.kind) {
        case Kind::get:
            RC_ASSERT(object_of([&] { return cache.get(key); }) == if_object(model.get(key)));
            break;
        case Kind::get_text: {
            const auto text = cache.get_text(key);
            RC_ASSERT((text ? std::optional(json::parse(*text)) : std::nullopt) == model.get(key));
            break;
        }
        case Kind::get_many:
            RC_ASSERT(cache.get_values(action.keys) == model.get(action.keys));
            break;
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
        case Kind::put_if_absent:
            RC_ASSERT(cache.put_if_absent(key, action.number, ttl) == !model.get(key));
            if (!model.get(key)) {
                model.put(key, action.number, action.lives);
            }
            break;
        case Kind::replace:
            RC_ASSERT(cache.replace(key, action.number, ttl) == model.get(key).has_value());
            if (model.get(key)) {
                model.put(key, action.number, action.lives);
            }
            break;
        case Kind::put_if_absent_many:
        case Kind::replace_many: {
            const bool where_live = action.kind == Kind::replace_many;
            KeyedValues entries;
            std::vector<bool> expected;
            for (const auto& one : action.keys) {
                entries.emplace_back(one, static_cast<std::int64_t>(entries.size()));
                expected.push_back(model.get(one).has_value() == where_live);
                if (expected.back()) {
                    model.put(one, entries.back().second, action.lives);
                }
            }
            // A microsecond may not be over when the next one is looked at.
            const Duration at_once = action.lives ? ttl : Duration(0);
            RC_ASSERT((where_live ? cache.replace_many(entries, at_once)
                                  : cache.put_if_absent_many(entries, at_once)) == expected);
            break;
        }
        case Kind::compare_and_put: {
            // What is there as often as not.
            const auto now = model.get(key);
            const json::value expected =
                now && action.number % 2 == 0 ? *now : json::value(action.number);
            const bool equal = now == expected;
            RC_ASSERT(cache.compare_and_put(key, expected, "new", ttl) == equal);
            if (equal) {
                model.put(key, "new", action.lives);
            }
            break;
        }
        case Kind::take:
            RC_ASSERT(cache.take(key) == model.get(key));
            if (model.get(key)) {
                model.remove(key);
            }
            break;
        case Kind::take_many:
            RC_ASSERT(cache.take_many(action.keys) == model.get(action.keys));
            for (const auto& one : action.keys) {
                if (model.get(one)) {
                    model.remove(one);
                }
            }
            break;
        case Kind::touch:
            RC_ASSERT(cache.touch(key, ttl) == model.touch(key, action.lives));
            break;
        case Kind::touch_many: {
            std::vector<bool> expected;
            for (const auto& one : action.keys) {
                expected.push_back(model.get(one).has_value());
            }
            for (const auto& one : action.keys) {
                model.touch(one, action.lives);
            }
            RC_ASSERT(cache.touch_many(action.keys, ttl) == expected);
            break;
        }
        case Kind::get_and_touch:
            RC_ASSERT(cache.get_and_touch(key, ttl) == model.get(key));
            model.touch(key, action.lives);
            break;
        case Kind::get_and_touch_many:
            RC_ASSERT(cache.get_and_touch_many(action.keys, ttl) == model.get(action.keys));
            for (const auto& one : action.keys) {
                model.touch(one, action.lives);
            }
            break;
        case Kind::get_entry_many: {
            std::vector<std::optional<json::value>> values;
            for (auto& entry : cache.get_entry_many(action.keys)) {
                values.push_back(entry ? std::optional(std::move(entry->value)) : std::nullopt);
            }
            RC_ASSERT(values == model.get(action.keys));
            break;
        }
        case Kind::get_entry: {
            const auto entry = cache.get_entry(key);
            RC_ASSERT((entry ? std::optional(entry->value) : std::nullopt) == model.get(key));
            RC_ASSERT(cache.expires_in(key).has_value() == model.get(key).has_value());
            break;
        }
        case Kind::increment: {
            const auto now = model.get(key);
            const std::int64_t by = action.number % 1000;
            if (now && !now->is_int64()) {
                try {
                    cache.increment(key, by, 1h);
                    RC_FAIL("it counted what is no counter");
                } catch (const Error& error) {
                    RC_ASSERT(error.code() == Errc::unreadable_value);
                }
                break;
            }
            // Far enough from the ends of its range.
            const std::int64_t before = now ? now->get_int64() : 0;
            if (before > -1000000 && before < 1000000) {
                RC_ASSERT(cache.increment(key, by, 1h) == before + by);
                model.put(key, before + by, true);
            }
            break;
        }
        case Kind::increment_many: {
            // Counters that are added to by one each: of one key they come in any order.
            std::vector<std::pair<std::string, std::int64_t>> counters;
            std::multiset<std::pair<std::string, std::int64_t>> expected;
            for (const auto& one : action.keys) {
                const auto now = model.get(one);
                if (now && !now->is_int64()) {
                    continue;
                }
                const std::int64_t before = now ? now->get_int64() : 0;
                if (before > -1000000 && before < 1000000) {
                    counters.emplace_back(one, 1);
                    expected.emplace(one, before + 1);
                    model.put(one, before + 1, true);
                }
            }
            const auto counts = cache.increment_many(counters, 1h);
            std::multiset<std::pair<std::string, std::int64_t>> counted;
            for (std::size_t i = 0; i < counts.size(); ++i) {
                counted.emplace(counters[i].first, counts[i]);
            }
            RC_ASSERT(counted == expected);
            break;
        }
        case Kind::merge: {
            auto now = model.get(key);
            if (now && !now->is_object()) {
                try {
                    cache.merge(key, {{"m", action.number}});
                    RC_FAIL("it merged into what is no object");
                } catch (const Error& error) {
                    RC_ASSERT(error.code() == Errc::unreadable_value);
                }
                break;
            }
            RC_ASSERT(cache.merge(key, {{"m", action.number}}) == now.has_value());
            if (now) {
                now->get_object()["m"] = action.number;
                model.put(key, *now, true);
            }
            break;
        }
        case Kind::put_tagged:
            cache.put_with(key, numbered(action.number), ttl, with_tag(tag));
            model.put(key, numbered(action.number), action.lives);
            model.tag(key, tag, action.lives);
            break;
        case Kind::put_tagged_if_absent: {
            const bool absent = !model.get(key);
            RC_ASSERT(cache.put_if_absent(key, action.number, ttl, with_tag(tag)) == absent);
            if (absent) {
                model.put(key, action.number, action.lives);
                model.tag(key, tag, action.lives);
            }
            break;
        }
        case Kind::remove_tag:
            RC_ASSERT(cache.remove_tag(tag) == model.remove_tag(tag));
            break;
        case Kind::remove_prefix:
            if (!key.empty()) {
                RC_ASSERT(cache.remove_prefix(key) == model.remove_prefix(key));
            }
            break;
        case Kind::clear:
            cache.clear();
            model.clear();
            break;
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
    TestSchema schema(Table::tagged);
    const auto cache = make_cache(flavour, schema);
    check_property("like a map", 60, [&] {
        const auto sequence = *actions();
        cache->clear();
        Model model;
        for (const auto& action : sequence) {
            apply(*cache, model, action);
        }
        RC_ASSERT(schema.rows() == static_cast<std::int64_t>(model.flush()));
    });
}
