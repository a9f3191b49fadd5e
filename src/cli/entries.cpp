#include "cli/entries.hpp"

#include <cstddef>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <psycache/postgres_cache.hpp>

#include "cli/json_value.hpp"
#include "cli/outcome.hpp"

namespace psycache::cli {

namespace {

/// The cache of a command that makes one call.
class OneCallCache {
  public:
    explicit OneCallCache(const Place& place, const Bounds& bounds = {})
        : cache_(pool_options(place), cache_options(place, bounds)) {}

    PostgresCache* operator->() { return &cache_; }

  private:
    static PoolOptions pool_options(const Place& place) {
        PoolOptions pool;
        pool.dsn = place.dsn;
        pool.max_size = 1;
        // A command that fails says so itself.
        pool.log = [](LogLevel, std::string_view) {};
        return pool;
    }
    static CacheOptions cache_options(const Place& place, const Bounds& bounds) {
        CacheOptions options;
        options.schema = place.schema;
        options.max_entries = bounds.max_entries;
        options.max_bytes = bounds.max_bytes;
        return options;
    }

    PostgresCache cache_;
};

int print_removed(std::string_view command, std::uint64_t count, bool as_json) {
    const std::string number = std::to_string(count);
    return print(command, as_json ? "{\"removed\":" + number + "}\n"
                                  : "psycache: removed entries: " + number + "\n");
}

/// Whether JSON text can be nothing but an object, which is stored as it is written.
bool is_object(std::string_view text) {
    const std::size_t start = text.find_first_not_of(" \t\r\n");
    return start != std::string_view::npos && text[start] == '{';
}

std::string standard_input() {
    std::string text(std::istreambuf_iterator<char>(std::cin), {});
    if (std::cin.bad()) {
        throw std::runtime_error("cannot read standard input");
    }
    return text;
}

}  // namespace

int get(const Place& place, const std::string& key) {
    return run("get", ServerWords::of_access, [&] {
        std::optional<std::string> text = OneCallCache(place)->get_text(key);
        if (!text) {
            std::cerr << "psycache: there is no such entry, or it has expired\n";
            return exit_failure;
        }
        text->push_back('\n');
        return print("get", *text);
    });
}

int put(const Place& place, const std::string& key, const std::string& json, Duration ttl,
        const std::vector<std::string>& tags) {
    return run("put", ServerWords::of_access, [&] {
        PutOptions options;
        options.tags = tags;
        const std::string text = json == "-" ? standard_input() : json;
        OneCallCache cache(place);
        if (is_object(text)) {
            cache->put_text(key, text, ttl, options);
        } else {
            cache->put(key, parse_exactly(text), ttl, options);
        }
        return print("put", "psycache: stored the entry.\n");
    });
}

int remove(const Place& place, const std::vector<std::string>& keys, bool as_json) {
    return run("remove", ServerWords::of_access, [&] {
        return print_removed("remove", OneCallCache(place)->remove_many(keys), as_json);
    });
}

int flush(const Place& place, bool as_json) {
    return run("flush", ServerWords::of_access,
               [&] { return print_removed("flush", OneCallCache(place)->flush(), as_json); });
}

int clear(const Place& place) {
    return run("clear", ServerWords::all, [&] {
        OneCallCache(place)->clear();
        return print("clear", "psycache: cleared the cache table.\n");
    });
}

int cleanup(const Place& place, const Bounds& bounds, bool as_json) {
    return run("cleanup", ServerWords::of_access, [&] {
        return print_removed("cleanup", OneCallCache(place, bounds)->cleanup_expired(), as_json);
    });
}

}  // namespace psycache::cli
