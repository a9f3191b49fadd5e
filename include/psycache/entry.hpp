#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <utility>

#include <psycache/duration.hpp>

namespace psycache {

namespace json = boost::json;

/// What `put_raw_many` stores: a key, its value and its time to live, with the limits of `put_raw`.
struct Entry {
    Entry(std::string its_key, json::object its_value, Duration its_ttl)
        : key(std::move(its_key)), value(std::move(its_value)), ttl(its_ttl) {}

    std::string key;
    json::object value;
    Duration ttl;
};

}  // namespace psycache
