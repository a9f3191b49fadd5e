#pragma once

#include <boost/json/object.hpp>
#include <boost/json/string_view.hpp>
#include <boost/json/value_ref.hpp>
#include <concepts>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>

#include <psycache/duration.hpp>

namespace psycache {

namespace json = boost::json;

namespace detail {

// Much converts to a json::object that is none: a number becomes an empty one with that capacity.
// Whatever takes an object has overloads for these, which are deleted.

template <class T>
concept NoObject = !std::derived_from<std::remove_cvref_t<T>, json::object>;

template <class T>
concept NoMember =
    NoObject<T> && !std::convertible_to<T, std::pair<json::string_view, json::value_ref>>;

}  // namespace detail

/// What `put_raw_many` stores: a key, its value and its time to live, with the limits of `put_raw`.
struct Entry {
    Entry(std::string its_key, json::object its_value, Duration its_ttl)
        : key(std::move(its_key)), value(std::move(its_value)), ttl(its_ttl) {}

    /// A value must be an object; what merely converts to one does not compile.
    template <detail::NoObject Value>
    Entry(std::string its_key, Value&& its_value, Duration its_ttl) = delete;
    template <detail::NoMember Value>
    Entry(std::string its_key, std::initializer_list<Value> its_value, Duration its_ttl) = delete;

    std::string key;
    json::object value;
    Duration ttl;
};

}  // namespace psycache
