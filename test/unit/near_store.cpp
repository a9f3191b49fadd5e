// What a process keeps in its own memory: what is found, what makes room, what is too old to be
// kept, and what all of it takes.

#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

#include <algorithm>
#include <atomic>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <catch2/catch.hpp>
#include <list>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <typeinfo>
#include <vector>

#include "core/key_hash.hpp"
#include "near/near_store.hpp"
#include "support/slowness.hpp"
#include "values/json_memory.hpp"

using namespace psycache;
using namespace psycache::detail;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

constexpr TimePoint start{1000s};
constexpr TimePoint never = TimePoint::max();
constexpr std::size_t plenty = std::size_t{64} << 20;

NearStore::Value make(json::value value) {
    return std::make_shared<const json::value>(std::move(value));
}

template <class T>
bool put(NearStore& store, const std::string& key, T&& value) {
    return store.fill(store.mark(key), key, make(json::value(std::forward<T>(value))), never,
                      never);
}

bool has(NearStore& store, const std::string& key) {
    return store.find(key, start).value != nullptr;
}

std::string key_of(std::size_t number) {
    return "key" + std::to_string(10000 + number);
}

/// A key that shares a shard and its counter of changes with another one, or only the shard.
std::string neighbour(const std::string& key, bool same_counter) {
    const auto shard = [](std::uint64_t hash) { return hash >> 8 & 15; };
    const auto counter = [](std::uint64_t hash) { return hash >> 12 & 63; };
    const std::uint64_t hash = key_hash(key);
    for (std::size_t i = 0;; ++i) {
        const std::uint64_t other = key_hash(key_of(i));
        if (other != hash && shard(other) == shard(hash) &&
            (counter(other) == counter(hash)) == same_counter) {
            return key_of(i);
        }
    }
}

}  // namespace

TEST_CASE("What was stored is found under its key until it ends") {
    struct Row {
        TimePoint expires;
        TimePoint usable_until;
        TimePoint now;
        bool found;
    };
    for (const Row& row : std::vector<Row>{
             {never, never, start, true},
             {never, never, never - 1ns, true},
             {start + 1s, never, start + 1s - 1ns, true},
             {start + 1s, never, start + 1s, false},
             {never, start + 1s, start + 1s - 1ns, true},
             {never, start + 1s, start + 1s, false},
             {start + 2s, start + 1s, start, true},
             {start + 2s, start + 1s, start + 1s, false},
             {start + 1s, start + 2s, start + 1s, false},
             {start - 1s, never, start, false},
         }) {
        CAPTURE(row.expires.time_since_epoch().count(), row.usable_until.time_since_epoch().count(),
                row.now.time_since_epoch().count());
        NearStore store(plenty);
        const auto value = make({{"a", 1}});
        REQUIRE(store.fill(store.mark("key"), "key", value, row.expires, row.usable_until));
        const NearStore::Found found = store.find("key", row.now);
        CHECK((found.value == value) == row.found);
        CHECK((found.value == nullptr) != row.found);
        if (row.found) {
            CHECK(found.expires == row.expires);
        }
        CHECK(store.find("another", row.now).value == nullptr);
        const auto statistics = store.statistics();
        CHECK(statistics.hits == (row.found ? 1 : 0));
        CHECK(statistics.misses == (row.found ? 1 : 2));
        CHECK(statistics.entries == 1);
        CHECK(statistics.bytes > 0);
    }
}

TEST_CASE("Keys may be empty, long, and begin alike") {
    NearStore store(plenty);
    const std::vector<std::string> keys{"",
                                        "a",
                                        "ab",
                                        std::string(1024, 'x'),
                                        std::string(1023, 'x') + 'y',
                                        std::string("a\0b", 3)};
    for (std::size_t i = 0; i < keys.size(); ++i) {
        CHECK(put(store, keys[i], i));
    }
    for (std::size_t i = 0; i < keys.size(); ++i) {
        REQUIRE(has(store, keys[i]));
        CHECK(*store.find(keys[i], start).value == json::value(i));
    }
}

TEST_CASE("A value replaces the one of its key") {
    NearStore store(plenty);
    REQUIRE(put(store, "key", std::string(1000, 'x')));
    const auto old = store.find("key", start);
    REQUIRE(put(store, "key", 2));
    CHECK(*store.find("key", start).value == json::value(2));
    CHECK(old.value->get_string().size() == 1000);
    const auto statistics = store.statistics();
    CHECK(statistics.entries == 1);
    CHECK(statistics.evictions == 0);
    CHECK(statistics.invalidations == 0);

    NearStore other(plenty);
    REQUIRE(put(other, "key", 2));
    CHECK(other.statistics().bytes == statistics.bytes);
}

TEST_CASE("Of two keys with one hash one is kept, and neither is taken for the other") {
    NearStore store(plenty);
    REQUIRE(put(store, "a", 1));
    REQUIRE(store.fill(store.mark("a"), "b", make(2), never, never));
    CHECK_FALSE(has(store, "a"));
    CHECK(store.statistics().entries == 1);
    REQUIRE(put(store, "a", 3));
    CHECK(*store.find("a", start).value == json::value(3));
    CHECK(store.statistics().entries == 1);
}

TEST_CASE("What is too large is not kept, and what it was to replace is not either") {
    for (const std::size_t max_bytes :
         {std::size_t{0}, std::size_t{200}, std::size_t{1000}, std::size_t{100'000},
          std::size_t{1} << 20, std::size_t{8} << 20}) {
        CAPTURE(max_bytes);
        NearStore store(max_bytes);
        const bool small_fits = max_bytes > 200;
        CHECK(put(store, "key", "small") == small_fits);
        CHECK(has(store, "key") == small_fits);
        CHECK_FALSE(put(store, "key", std::string(max_bytes / 2 + 1000, 'x')));
        CHECK_FALSE(has(store, "key"));
        CHECK(store.statistics().entries == 0);
    }
}

TEST_CASE("An answer that may be older than a change is not stored") {
    enum class Change { none, same, same_counter, other, all };
    const std::string key = "key";
    for (const auto& [change, stored] : std::vector<std::pair<Change, bool>>{
             {Change::none, true},
             {Change::same, false},
             {Change::same_counter, false},
             {Change::other, true},
             {Change::all, false},
         }) {
        CAPTURE(static_cast<int>(change));
        for (const bool present : {false, true}) {
            NearStore store(plenty);
            if (present) {
                REQUIRE(put(store, key, 1));
            }
            const NearStore::Mark mark = store.mark(key);
            switch (change) {
                case Change::none:
                    break;
                case Change::same:
                    store.forget(key_hash(key));
                    break;
                case Change::same_counter:
                    store.forget(key_hash(neighbour(key, true)));
                    break;
                case Change::other:
                    store.forget(key_hash(neighbour(key, false)));
                    break;
                case Change::all:
                    store.forget_all();
                    break;
            }
            const bool gone = change == Change::same || change == Change::all;
            CHECK(has(store, key) == (present && !gone));
            CHECK(store.fill(mark, key, make(2), never, never) == stored);
            CHECK(has(store, key) == (stored || (present && !gone)));
            CHECK(store.statistics().invalidations == (present && gone ? 1 : 0));
            // A look-up that begins now may be stored.
            CHECK(put(store, key, 3));
            CHECK(*store.find(key, start).value == json::value(3));
        }
    }
}

TEST_CASE("All of it can be forgotten, and goes on then") {
    NearStore store(plenty);
    for (int round = 0; round < 2; ++round) {
        for (std::size_t i = 0; i < 1000; ++i) {
            REQUIRE(put(store, key_of(i), i));
        }
        CHECK(store.statistics().entries == 1000);
        store.forget_all();
        CHECK(store.statistics().entries == 0);
        CHECK(store.statistics().bytes == 0);
        CHECK(store.statistics().invalidations == 1000u * (static_cast<unsigned>(round) + 1));
        CHECK_FALSE(has(store, key_of(1)));
    }
}

namespace {

/// SIEVE as its authors describe it, as slowly as it likes.
class Model {
  public:
    /// @returns whether it is there, and marks it.
    bool find(const std::string& key) {
        const auto entry = place(key);
        if (entry == entries_.end()) {
            return false;
        }
        entry->visited = true;
        return true;
    }
    void evict(std::uint64_t count) {
        for (; count > 0; --count) {
            for (;;) {
                if (hand_ == entries_.end()) {
                    hand_ = entries_.begin();
                }
                if (!hand_->visited) {
                    break;
                }
                hand_->visited = false;
                ++hand_;
            }
            hand_ = entries_.erase(hand_);
        }
    }
    void add(const std::string& key) { entries_.push_back({key, false}); }
    void remove(const std::string& key) {
        const auto entry = place(key);
        if (entry != entries_.end()) {
            const bool at_hand = entry == hand_;
            const auto next = entries_.erase(entry);
            if (at_hand) {
                hand_ = next;
            }
        }
    }
    std::size_t size() const { return entries_.size(); }

  private:
    struct Entry {
        std::string key;
        bool visited;
    };
    // Oldest first; the hand goes from the oldest to the newest.
    std::list<Entry> entries_;
    std::list<Entry>::iterator hand_ = entries_.end();

    std::list<Entry>::iterator place(const std::string& key) {
        return std::find_if(entries_.begin(), entries_.end(),
                            [&](const Entry& entry) { return entry.key == key; });
    }
};

}  // namespace

TEST_CASE("An object that was made of a value is found instead of it by its type") {
    NearStore store(plenty);
    const auto value = make({{"a", 1}});
    const auto number = std::make_shared<const int>(1);
    const auto object_of = [](const std::shared_ptr<const int>& made) {
        return NearStore::Object{made, &typeid(int), sizeof(int)};
    };
    const auto find = [&](const std::type_info* type) { return store.find("key", start, type); };
    const bool at_once = GENERATE(false, true);
    CAPTURE(at_once);
    const auto before = [&] {
        NearStore other(plenty);
        REQUIRE(other.fill(other.mark("key"), "key", value, never, never));
        return other.statistics().bytes;
    }();
    if (at_once) {
        REQUIRE(store.fill(store.mark("key"), "key", value, never, never, object_of(number)));
    } else {
        REQUIRE(store.fill(store.mark("key"), "key", value, never, never));
        CHECK(find(&typeid(int)).value == value);
        store.keep_object("key", value, object_of(number));
    }
    CHECK(store.statistics().bytes >= before + sizeof(int) + heap_bytes(*value));
    CHECK(find(&typeid(int)).object == number);
    CHECK(find(&typeid(int)).value == nullptr);
    CHECK(find(nullptr).value == value);
    CHECK(find(nullptr).object == nullptr);
    CHECK(find(&typeid(long)).value == value);
    CHECK(find(&typeid(long)).object == nullptr);

    // One of another type takes its place.
    const auto text = std::make_shared<const std::string>("1");
    store.keep_object("key", value, {text, &typeid(std::string), sizeof(std::string)});
    CHECK(find(&typeid(std::string)).object == text);
    CHECK(find(&typeid(int)).value == value);
    CHECK(number.use_count() == 1);

    // Neither that of a value which is there no more, nor that of a key which is not there.
    put(store, "key", json::value{{"a", 2}});
    CHECK(text.use_count() == 1);
    store.keep_object("key", value, object_of(number));
    store.keep_object("other", value, object_of(number));
    CHECK(find(&typeid(int)).object == nullptr);
    CHECK_FALSE(has(store, "other"));
    store.forget(key_hash("key"));
    CHECK(number.use_count() == 1);
    CHECK(store.statistics().entries == 0);
}

TEST_CASE("Objects make others give way, and are not kept where there is no room for both") {
    NearStore store(std::size_t{256} << 10);
    const auto object = [] {
        return NearStore::Object{std::make_shared<const int>(1), &typeid(int), sizeof(int)};
    };
    const auto value = make(json::string(60'000, 'x'));
    const std::vector<std::string> keys{"a", "b", "c", "d"};
    for (const std::string& key : keys) {
        REQUIRE(store.fill(store.mark(key), key, value, never, never));
    }
    store.keep_object("d", value, object());
    CHECK(store.find("d", start, &typeid(int)).object != nullptr);
    CHECK_FALSE(has(store, "a"));
    CHECK(store.statistics().evictions >= 1);
    CHECK(store.statistics().bytes <= std::size_t{256} << 10);

    const auto large = make(json::string(100'000, 'x'));
    REQUIRE(store.fill(store.mark("e"), "e", large, never, never, object()));
    CHECK(store.find("e", start, &typeid(int)).value == large);
    store.keep_object("e", large, object());
    CHECK(store.find("e", start, &typeid(int)).value == large);
    CHECK(store.statistics().bytes <= std::size_t{256} << 10);
}

TEST_CASE("SIEVE chooses what is evicted") {
    // How many entries fit depends on what they and their index take; which ones go does not.
    for (const unsigned seed : {1u, 2u, 3u}) {
        for (const std::size_t max_bytes : {std::size_t{2000}, std::size_t{20'000}}) {
            CAPTURE(seed, max_bytes);
            std::mt19937 dice(seed);
            NearStore store(max_bytes);
            Model model;
            std::size_t differences = 0;
            for (int step = 0; step < 8000 / test::slowness; ++step) {
                // Few keys are asked for often, many seldom.
                const std::string key = key_of(dice() % (1 + dice() % 200));
                const bool found = has(store, key);
                differences += found != model.find(key);
                if (dice() % 20 == 0) {
                    store.forget(key_hash(key));
                    model.remove(key);
                } else if (!found || dice() % 20 == 0) {
                    const std::uint64_t before = store.statistics().evictions;
                    REQUIRE(put(store, key, step));
                    model.evict(store.statistics().evictions - before);
                    if (!found) {
                        model.add(key);
                    }
                }
                differences += store.statistics().entries != model.size();
            }
            CHECK(differences == 0);
            CHECK(store.statistics().evictions > 100);
            CHECK(store.statistics().hits > 100);
        }
    }
}

TEST_CASE("What is read once does not drive out what is read again") {
    NearStore store(100'000);
    for (std::size_t i = 0; i < 10; ++i) {
        put(store, key_of(i), i);
        has(store, key_of(i));
    }
    for (std::size_t i = 100; i < 10'100; ++i) {
        put(store, key_of(i), i);
        has(store, key_of(i % 10));
    }
    for (std::size_t i = 0; i < 10; ++i) {
        CHECK(has(store, key_of(i)));
    }
}

#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 33)
#define PSYCACHE_TEST_MALLINFO
#endif
#endif

#ifdef PSYCACHE_TEST_MALLINFO

namespace {

std::size_t allocated() {
    const auto info = ::mallinfo2();
    return info.uordblks + info.hblkhd;
}

/// Values of every kind that takes memory.
json::value sample(const std::string& kind, std::mt19937& dice) {
    if (kind == "small") {
        return {{"id", static_cast<int>(dice() % 1000)}, {"name", "somebody"}};
    }
    if (kind == "number") {
        return 5;
    }
    if (kind == "text") {
        return json::value(std::string(dice() % 3000, 'x'));
    }
    if (kind == "large") {
        return json::value(std::string(10'000 + dice() % 150'000, 'x'));
    }
    if (kind == "wide") {
        json::object object;
        for (std::size_t i = 0, size = dice() % 60; i < size; ++i) {
            object["member" + std::to_string(i)] = std::string(dice() % 40, 'y');
        }
        return object;
    }
    json::value value = nullptr;
    for (std::size_t i = 0, depth = dice() % 100; i < depth; ++i) {
        if (i % 2 == 0) {
            value = json::array{1, 2, std::move(value)};
        } else {
            value = json::object{{"deeper and deeper", std::move(value)}};
        }
    }
    return value;
}

const std::vector<std::string> kinds{"number", "small", "text", "large", "wide", "deep"};

}  // namespace

TEST_CASE("What a value takes from the heap is known") {
    if (test::slowness != 1) {
        return;  // a sanitizer has a heap of its own
    }
    std::mt19937 dice(7);
    for (const std::string& kind : kinds) {
        CAPTURE(kind);
        constexpr std::size_t most_values = 20'000;
        std::vector<json::value> values;
        values.reserve(most_values);
        std::size_t reckoned = 0;
        const std::size_t before = allocated();
        while (values.size() < most_values && reckoned < std::size_t{4} << 20) {
            values.push_back(sample(kind, dice));
            reckoned += heap_bytes(values.back());
        }
        const std::size_t taken = allocated() - before;
        // What was freed a moment ago counts as allocated: malloc keeps some of it at hand.
        const auto spare = static_cast<double>(std::size_t{128} << 10);
        CHECK(static_cast<double>(taken) <= static_cast<double>(reckoned) * 1.03 + spare);
        CHECK(static_cast<double>(taken) >= static_cast<double>(reckoned) * 0.97 - spare);
    }
}

TEST_CASE("The store takes the memory that it may, whatever is in it") {
    if (test::slowness != 1) {
        return;
    }
    constexpr std::size_t max_bytes = std::size_t{8} << 20;
    std::mt19937 dice(7);
    const std::size_t before = allocated();
    NearStore store(max_bytes);
    // One kind after the other, so that each replaces the one before it.
    const std::map<std::string, std::size_t> fills_of{{"number", 100'000}, {"small", 30'000},
                                                      {"text", 15'000},    {"large", 600},
                                                      {"wide", 3000},      {"deep", 6000}};
    for (const std::string& kind : kinds) {
        CAPTURE(kind);
        std::size_t most = 0;
        std::size_t most_counted = 0;
        for (std::size_t i = 0; i < fills_of.at(kind); ++i) {
            put(store, key_of(dice() % 50'000), sample(kind, dice));
            if (i % 50 == 0) {
                most = std::max(most, allocated() - before);
                most_counted = std::max(most_counted, store.statistics().bytes);
            }
        }
        CHECK(most_counted <= max_bytes);
        CHECK(most <= max_bytes + max_bytes / 20);
        // And makes use of it.
        CHECK(most >= max_bytes * 8 / 10);
    }
    store.forget_all();
    CHECK(store.statistics().bytes == 0);
    CHECK(allocated() - before < max_bytes / 10);
}

#endif

TEST_CASE("Threads find whole values of their key, and none older than a change that is known") {
    constexpr std::size_t keys = 40;
    struct Key {
        std::atomic<std::int64_t> changed{0};    // what the row holds
        std::atomic<std::int64_t> forgotten{0};  // the change that the store knows of
    };
    for (const std::size_t max_bytes : {std::size_t{5000}, plenty}) {
        CAPTURE(max_bytes);
        NearStore store(max_bytes);
        std::vector<Key> rows(keys);
        std::atomic<bool> done{false};
        std::atomic<std::size_t> mistakes{0};
        std::atomic<std::size_t> fills{0};
        const auto read = [&](unsigned seed) {
            std::mt19937 dice(seed);
            while (!done.load()) {
                const std::size_t number = dice() % keys;
                const std::string key = key_of(number);
                const std::int64_t known = rows[number].forgotten.load();
                const NearStore::Found found = store.find(key, start);
                if (found.value != nullptr) {
                    const auto& value = found.value->get_object();
                    if (value.at("key") != json::value(key) ||
                        value.at("change").as_int64() < known) {
                        ++mistakes;
                    }
                    continue;
                }
                const NearStore::Mark mark = store.mark(key);
                const std::int64_t change = rows[number].changed.load();
                if (dice() % 4 == 0) {
                    std::this_thread::yield();
                }
                fills +=
                    store.fill(mark, key, make({{"key", key}, {"change", change}}), never, never);
            }
        };
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < 4; ++i) {
            threads.emplace_back(read, i);
        }
        std::mt19937 dice(99);
        for (int i = 1; (i < 2000 || fills < 500) && mistakes == 0; ++i) {
            const std::size_t number = dice() % keys;
            rows[number].changed = i;
            if (i % 500 == 0) {
                store.forget_all();
            } else {
                store.forget(key_hash(key_of(number)));
            }
            rows[number].forgotten = i;
            if (i % 8 == 0) {
                std::this_thread::yield();
            }
        }
        done = true;
        for (std::thread& thread : threads) {
            thread.join();
        }
        CHECK(mistakes == 0);
        CHECK(fills > 0);
    }
}
