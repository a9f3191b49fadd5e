#pragma once

/// @file
/// Every kind of call of an AsyncPostgresCache, by name: writes, reads, maintenance.

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <psycache/async_postgres_cache.hpp>

#include "run_coro.hpp"
#include "server.hpp"

namespace psycache::test {

/// A call on "key", or on "key0", "key1" and so on; its answer is dropped.
using AnyCall = std::function<asio::awaitable<void>(AsyncPostgresCache)>;

namespace detail {

template <class T>
asio::awaitable<void> dropped(asio::awaitable<T> operation) {
    co_await std::move(operation);
}

}  // namespace detail

inline std::vector<std::string> numbered_keys(int count) {
    std::vector<std::string> all;
    for (int i = 0; i < count; ++i) {
        all.push_back("key" + std::to_string(i));
    }
    return all;
}

inline std::vector<Entry> numbered_entries(int count) {
    std::vector<Entry> all;
    for (const std::string& key : numbered_keys(count)) {
        all.push_back(Entry(key, numbered(1), 1h));
    }
    return all;
}

inline const std::map<std::string, AnyCall>& writes() {
    static const std::map<std::string, AnyCall> all{
        {"put_raw", [](auto cache) { return cache.put_raw("key", numbered(1), 1h); }},
        {"put_text", [](auto cache) { return cache.put_text("key", "{\"n\": 1}", 1h); }},
        {"remove", [](auto cache) { return detail::dropped(cache.remove("key")); }},
        {"put_raw_many", [](auto cache) { return cache.put_raw_many(numbered_entries(20)); }},
        {"remove_many",
         [](auto cache) { return detail::dropped(cache.remove_many(numbered_keys(20))); }},
    };
    return all;
}

inline const std::map<std::string, AnyCall>& reads() {
    static const std::map<std::string, AnyCall> all{
        {"get_raw", [](auto cache) { return detail::dropped(cache.get_raw("key")); }},
        {"get_text", [](auto cache) { return detail::dropped(cache.get_text("key")); }},
        {"get_raw_many",
         [](auto cache) { return detail::dropped(cache.get_raw_many(numbered_keys(20))); }},
    };
    return all;
}

inline const std::map<std::string, AnyCall>& maintenance() {
    static const std::map<std::string, AnyCall> all{
        {"flush", [](auto cache) { return detail::dropped(cache.flush()); }},
        {"cleanup_expired", [](auto cache) { return detail::dropped(cache.cleanup_expired()); }},
        {"run_cleanup", [](auto cache) { return cache.run_cleanup(1ms); }},
    };
    return all;
}

}  // namespace psycache::test
