#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/describe/members.hpp>
#include <boost/json/conversion.hpp>
#include <boost/json/value.hpp>
#include <boost/json/value_from.hpp>
#include <boost/json/value_to.hpp>
#include <boost/mp11/algorithm.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <variant>
#include <vector>

#include <psycache/duration.hpp>
#include <psycache/entry.hpp>

namespace psycache {

namespace asio = boost::asio;

/// An entry with what the server knows about it.
template <class T>
struct EntryView {
    T value{};
    /// What is left of its time to live, by the server's clock; no_expiry for an entry without end.
    Duration expires_in{0};
    /// The stored size of the value in bytes, as `pg_column_size` tells it.
    std::size_t size = 0;
};

namespace detail {

// --- Which types convert. Boost.JSON's own traits look at the outermost type only: what a
// container holds is found out deep inside of it, in messages of many pages.

template <class T>
concept FromByHand = requires(json::value& into, const T& from) {
    tag_invoke(json::value_from_tag(), into, from);
};
template <class T>
concept ToByHand = requires(const json::value& from) {
    tag_invoke(json::value_to_tag<T>(), from);
}
|| requires(const json::value& from) {
    tag_invoke(json::try_value_to_tag<T>(), from);
};

template <class T, template <class...> class Template>
inline constexpr bool is_a = false;
template <template <class...> class Template, class... Args>
inline constexpr bool is_a<Template<Args...>, Template> = true;

template <class T>
using PublicMembers = boost::describe::describe_members<T, boost::describe::mod_public |
                                                               boost::describe::mod_inherited>;
template <class T, class Member>
using MemberType = std::remove_cvref_t<decltype(std::declval<T&>().*Member::pointer)>;

/// Text that is only looked at: what it is read from goes.
template <class T>
inline constexpr bool is_view =
    std::is_pointer_v<T> || std::is_array_v<T> || std::is_same_v<T, std::string_view> ||
    std::is_same_v<T, json::string_view>;

enum class Way { to_json, from_json };

template <Way way, class T, class... Seen>
constexpr bool converts() noexcept;

template <Way way, class... Seen, class... Parts>
constexpr bool all_convert(std::type_identity<std::tuple<Parts...>> /*parts*/) noexcept {
    return (converts<way, Parts, Seen...>() && ...);
}

template <Way way, class T, class... Seen>
constexpr bool members_convert() noexcept {
    bool all = way == Way::to_json || std::is_default_constructible_v<T>;
    boost::mp11::mp_for_each<PublicMembers<T>>([&](auto member) {
        all = all && converts<way, MemberType<T, decltype(member)>, Seen...>();
    });
    return all;
}

template <class T>
struct PartsOf;
template <class... Parts>
struct PartsOf<std::variant<Parts...>> : std::type_identity<std::tuple<Parts...>> {};
template <class First, class Second>
struct PartsOf<std::pair<First, Second>> : std::type_identity<std::tuple<First, Second>> {};
template <class... Parts>
struct PartsOf<std::tuple<Parts...>> : std::type_identity<std::tuple<Parts...>> {};

/// @returns whether a type converts, all that it holds included. A type within itself, as in a
/// tree, is looked at once.
template <Way way, class Type, class... Seen>
constexpr bool converts() noexcept {
    using T = std::remove_cvref_t<Type>;
    if constexpr ((std::is_same_v<T, Seen> || ...)) {
        return true;
    } else if constexpr (is_a<T, std::optional>) {
        return converts<way, typename T::value_type, Seen..., T>();
    } else if constexpr (is_a<T, std::variant>) {
        return all_convert<way, Seen..., T>(PartsOf<T>());
    } else if constexpr (way == Way::to_json && FromByHand<T>) {
        return true;
    } else if constexpr (way == Way::from_json && ToByHand<T>) {
        return true;
    } else if constexpr (std::is_same_v<T, json::value> || std::is_same_v<T, json::object> ||
                         std::is_same_v<T, json::array> || std::is_same_v<T, json::string> ||
                         std::is_arithmetic_v<T> || json::is_null_like<T>::value) {
        return true;
    } else if constexpr (json::is_string_like<T>::value) {
        return way == Way::to_json || !is_view<T>;
    } else if constexpr (json::is_map_like<T>::value) {
        return converts<way, typename T::mapped_type, Seen..., T>();
    } else if constexpr (json::is_sequence_like<T>::value) {
        return converts<way, decltype(*std::begin(std::declval<T&>())), Seen..., T>();
    } else if constexpr (is_a<T, std::pair> || is_a<T, std::tuple>) {
        return all_convert<way, Seen..., T>(PartsOf<T>());
    } else if constexpr (json::is_described_class<T>::value) {
        return members_convert<way, T, Seen..., T>();
    } else {
        return json::is_described_enum<T>::value;
    }
}

/// Stops the compiler with one message where a type cannot be stored. @returns whether it can.
template <class T>
constexpr bool check_storable() noexcept {
    constexpr bool good = converts<Way::to_json, T>();
    static_assert(good,
                  "psycache cannot store this type: it, or something that it holds, has no "
                  "conversion to JSON. Describe it (BOOST_DESCRIBE_STRUCT, BOOST_DESCRIBE_ENUM) or "
                  "give it a tag_invoke for boost::json::value_from_tag");
    return good;
}
/// The same where it cannot be read.
template <class T>
constexpr bool check_readable() noexcept {
    constexpr bool good = converts<Way::from_json, T>();
    static_assert(
        good,
        "psycache cannot read a value into this type: it, or something that it holds, has "
        "no conversion from JSON, or is only a view of text. Describe it "
        "(BOOST_DESCRIBE_STRUCT, BOOST_DESCRIBE_ENUM; it needs a default constructor) or "
        "give it a tag_invoke for boost::json::value_to_tag");
    return good;
}

// --- What is wrong with a value that does not convert.

/// Where a part of a value is, for people: "address.lines[2]".
struct Place {
    std::string path;

    Place member(std::string_view name) const {
        std::string inner = path;
        inner.append(inner.empty() ? "" : ".").append(name);
        return Place{std::move(inner)};
    }
    Place element(std::size_t number) const {
        return Place{path + "[" + std::to_string(number) + "]"};
    }
    std::string is(std::string_view what) const {
        return (path.empty() ? std::string("it") : "member '" + path + "'")
            .append(" ")
            .append(what);
    }
};

template <class T>
std::string mismatch(const json::value& value, const Place& place);

template <class T>
std::string mismatch_of_members(const json::value& value, const Place& place) {
    const json::object* const object = value.if_object();
    if (object == nullptr) {
        return place.is("is no object");
    }
    std::string wrong;
    boost::mp11::mp_for_each<PublicMembers<T>>([&](auto member) {
        using Type = MemberType<T, decltype(member)>;
        if (!wrong.empty()) {
            return;
        }
        const auto found = object->find(member.name);
        if (found == object->end()) {
            wrong = place.member(member.name).is("is missing");
        } else if (json::try_value_to<Type>(found->value()).has_error()) {
            wrong = mismatch<Type>(found->value(), place.member(member.name));
        }
    });
    return wrong.empty() ? place.is("has members that the type does not have") : wrong;
}

template <class T, std::size_t... places>
std::string mismatch_of_parts(const json::array& array, const Place& place,
                              std::index_sequence<places...> /*all*/) {
    std::string wrong;
    const auto look = [&]<std::size_t number>() {
        using Part = std::tuple_element_t<number, T>;
        if (wrong.empty() && json::try_value_to<Part>(array[number]).has_error()) {
            wrong = mismatch<Part>(array[number], place.element(number));
        }
    };
    (look.template operator()<places>(), ...);
    return wrong;
}

/// @returns which part of a value does not convert to a type, and why. Names are those of the type;
/// nothing that is stored is told.
template <class T>
std::string mismatch(const json::value& value, const Place& place) {
    if constexpr (is_a<T, std::optional>) {
        return mismatch<typename T::value_type>(value, place);
    } else if constexpr (ToByHand<T> || is_a<T, std::variant>) {
        return place.is("was refused by the type's own conversion");
    } else if constexpr (std::is_same_v<T, bool>) {
        return place.is("is no boolean");
    } else if constexpr (std::is_arithmetic_v<T>) {
        return place.is(value.is_number() ? "is a number that the type cannot hold"
                                          : "is no number");
    } else if constexpr (json::is_null_like<T>::value) {
        return place.is("is not null");
    } else if constexpr (std::is_same_v<T, json::object>) {
        return place.is("is no object");
    } else if constexpr (std::is_same_v<T, json::array>) {
        return place.is("is no array");
    } else if constexpr (std::is_same_v<T, json::value> || json::is_string_like<T>::value) {
        return place.is("is no string");
    } else if constexpr (json::is_map_like<T>::value) {
        if (!value.is_object()) {
            return place.is("is no object");
        }
        for (const auto& member : value.get_object()) {
            if (json::try_value_to<typename T::mapped_type>(member.value()).has_error()) {
                return mismatch<typename T::mapped_type>(member.value(), place.member("*"));
            }
        }
        return place.is("has another shape");
    } else if constexpr (json::is_sequence_like<T>::value) {
        using Element = std::remove_cvref_t<decltype(*std::begin(std::declval<T&>()))>;
        if (!value.is_array()) {
            return place.is("is no array");
        }
        const json::array& array = value.get_array();
        for (std::size_t i = 0; i < array.size(); ++i) {
            if (json::try_value_to<Element>(array[i]).has_error()) {
                return mismatch<Element>(array[i], place.element(i));
            }
        }
        return place.is("has another number of elements");
    } else if constexpr (json::is_tuple_like<T>::value) {
        if (!value.is_array()) {
            return place.is("is no array");
        }
        if (value.get_array().size() != std::tuple_size_v<T>) {
            return place.is("has another number of elements");
        }
        return mismatch_of_parts<T>(value.get_array(), place,
                                    std::make_index_sequence<std::tuple_size_v<T>>());
    } else if constexpr (json::is_described_class<T>::value) {
        return mismatch_of_members<T>(value, place);
    } else {
        return place.is("names no enumerator of its type");
    }
}

// --- How the library, which knows no type of its user, hands values over.

/// Takes values that were read, one by one.
struct ValueReader {
    void* into;
    /// @param place of its key among those of a call of many.
    /// @returns what is wrong with the value; "" if nothing is.
    std::string (*read)(void* into, std::size_t place, json::value&& value);
};

inline constexpr const char* is_no_object =
    "the stored value cannot be read: it is JSON, but no object";

/// @param make gets the T that was made of a value. @returns what is wrong; "" if nothing is.
template <class T, class Make>
std::string convert(const json::value& value, Make make) {
    auto converted = json::try_value_to<T>(value);
    if (converted.has_error()) {
        return "the stored value cannot be read as the type that was asked for: " +
               mismatch<T>(value, Place());
    }
    make(std::move(*converted));
    return {};
}

/// Makes a T of a value. @returns what is wrong; "" if nothing is.
template <class T>
std::string read_value(json::value&& value, std::optional<T>& into) {
    if constexpr (!check_readable<T>()) {
    } else if constexpr (std::is_same_v<T, json::value>) {
        into.emplace(std::move(value));
    } else if constexpr (std::is_same_v<T, json::object>) {
        if (!value.is_object()) {
            return is_no_object;
        }
        into.emplace(std::move(value.get_object()));
    } else {
        return convert<T>(value, [&](T&& made) { into.emplace(std::move(made)); });
    }
    return {};
}

/// Makes an object that is shared of a value that is.
struct SharedReader {
    const std::type_info* type;  ///< null where it is a part of the value itself
    std::size_t size;            ///< of the type
    /// @returns what is wrong with the value; "" if nothing is.
    std::string (*read)(const std::shared_ptr<const json::value>& value,
                        std::shared_ptr<const void>& into);
};

template <class T>
std::string read_shared(const std::shared_ptr<const json::value>& value,
                        std::shared_ptr<const void>& into) {
    if constexpr (!check_readable<T>()) {
    } else if constexpr (std::is_same_v<T, json::value>) {
        into = value;
    } else if constexpr (std::is_same_v<T, json::object>) {
        if (!value->is_object()) {
            return is_no_object;
        }
        into = std::shared_ptr<const void>(value, &value->get_object());
    } else {
        return convert<T>(*value,
                          [&](T&& made) { into = std::make_shared<const T>(std::move(made)); });
    }
    return {};
}

template <class T>
SharedReader shared_reader() noexcept {
    static_assert(std::is_same_v<T, std::remove_cvref_t<T>>);
    constexpr bool is_json = std::is_same_v<T, json::value> || std::is_same_v<T, json::object>;
    return {is_json ? nullptr : &typeid(T), sizeof(T), &read_shared<T>};
}

/// @returns what the memory of a cache has of a type.
template <class T, class Cache>
std::shared_ptr<const T> peek_typed(const Cache& cache, std::string_view key) noexcept {
    if constexpr (!check_readable<T>()) {
    } else if constexpr (std::is_same_v<T, json::object>) {
        return cache.peek(key);
    } else {
        return std::static_pointer_cast<const T>(cache.peek_as(key, shared_reader<T>().type));
    }
    return nullptr;
}

/// Where the value of one key goes.
template <class T>
ValueReader reader_of(std::optional<T>& into) {
    return {&into, [](void* target, std::size_t /*place*/, json::value&& value) {
                return read_value<T>(std::move(value), *static_cast<std::optional<T>*>(target));
            }};
}
/// Where those of many keys go; there is room for each.
template <class T>
ValueReader reader_of(std::vector<std::optional<T>>& into) {
    return {&into, [](void* target, std::size_t place, json::value&& value) {
                auto& values = *static_cast<std::vector<std::optional<T>>*>(target);
                return read_value<T>(std::move(value), values[place]);
            }};
}

/// @returns the value as JSON, for the time of an expression.
template <class T>
decltype(auto) as_json(const T& value) {
    if constexpr (!check_storable<T>()) {
        return json::value();
    } else if constexpr (std::is_same_v<T, json::value>) {
        return (value);
    } else {
        return json::value_from(value);
    }
}

/// What a call of many stores.
struct KeyedValue {
    std::string key;
    json::value value;
};
template <class T>
std::vector<KeyedValue> values_of(const std::vector<std::pair<std::string, T>>& entries) {
    std::vector<KeyedValue> values;
    values.reserve(entries.size());
    for (const auto& [key, value] : entries) {
        values.push_back(KeyedValue{key, as_json(value)});
    }
    return values;
}

/// What the server knows of an entry beside its value.
struct EntryFacts {
    Duration expires_in{0};
    std::size_t size = 0;
};

/// @returns the entry, of its value and the rest.
template <class T>
std::optional<EntryView<T>> entry_of(std::optional<T>&& value,
                                     const std::optional<EntryFacts>& facts) {
    std::optional<EntryView<T>> entry;
    if (facts) {
        entry.emplace(EntryView<T>{std::move(*value), facts->expires_in, facts->size});
    }
    return entry;
}
/// The same for many keys.
template <class T>
std::vector<std::optional<EntryView<T>>> entries_of(
    std::vector<std::optional<T>>&& values, const std::vector<std::optional<EntryFacts>>& facts) {
    std::vector<std::optional<EntryView<T>>> entries;
    entries.reserve(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
        entries.push_back(entry_of<T>(std::move(values[i]), facts[i]));
    }
    return entries;
}

// --- For coroutines.

/// A call whose value is read by the caller's type. @param start makes the call; it gets the
/// reader.
template <class T, class Start>
asio::awaitable<std::optional<T>> read_typed(Start start) {
    std::optional<T> value;
    auto call = start(reader_of(value));
    co_await std::move(call);
    co_return value;
}
/// The same for an object that is shared.
template <class T, class Start>
asio::awaitable<std::shared_ptr<const T>> share_typed(Start start) {
    auto call = start(shared_reader<T>());
    co_return std::static_pointer_cast<const T>(co_await std::move(call));
}
template <class T, class Start>
asio::awaitable<std::optional<EntryView<T>>> read_entry(Start start) {
    std::optional<T> value;
    auto call = start(reader_of(value));
    const std::optional<EntryFacts> facts = co_await std::move(call);
    co_return entry_of<T>(std::move(value), facts);
}
/// The same for many keys. @param count how many.
template <class T, class Start>
asio::awaitable<std::vector<std::optional<T>>> read_many(std::size_t count, Start start) {
    std::vector<std::optional<T>> values(count);
    auto call = start(reader_of(values));
    co_await std::move(call);
    co_return values;
}
template <class T, class Start>
asio::awaitable<std::vector<std::optional<EntryView<T>>>> read_entries(std::size_t count,
                                                                       Start start) {
    std::vector<std::optional<T>> values(count);
    auto call = start(reader_of(values));
    const std::vector<std::optional<EntryFacts>> facts = co_await std::move(call);
    co_return entries_of<T>(std::move(values), facts);
}

}  // namespace detail
}  // namespace psycache
