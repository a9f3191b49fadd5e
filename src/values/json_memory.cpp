#include "values/json_memory.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/string.hpp>
#include <cstdint>
#include <functional>

namespace psycache::detail {

namespace json = boost::json;

namespace {

// How Boost.JSON lays out its tables is not public; a test compares it with what malloc says.
constexpr std::size_t text_header = 2 * sizeof(std::uint32_t);
constexpr std::size_t array_header = 2 * sizeof(std::uint32_t);
constexpr std::size_t object_header = 2 * sizeof(std::uint32_t) + sizeof(std::uintptr_t);
/// An object that has room for more than this has a hash table as well.
constexpr std::size_t small_object = 18;

std::size_t of_string(const json::string& text) noexcept {
    // A short text lies in the string itself.
    const auto* inside = reinterpret_cast<const char*>(&text);
    const std::less<const char*> before;
    if (!before(text.data(), inside) && before(text.data(), inside + sizeof text)) {
        return 0;
    }
    return malloc_bytes(text_header + text.capacity() + 1);
}

std::size_t of_array(const json::array& array) noexcept {
    if (array.capacity() == 0) {
        return 0;
    }
    std::size_t bytes = malloc_bytes(array_header + array.capacity() * sizeof(json::value));
    for (const json::value& element : array) {
        bytes += heap_bytes(element);
    }
    return bytes;
}

std::size_t of_object(const json::object& object) noexcept {
    if (object.capacity() == 0) {
        return 0;
    }
    const std::size_t bucket = object.capacity() > small_object ? sizeof(std::uint32_t) : 0;
    std::size_t bytes =
        malloc_bytes(object_header + object.capacity() * (sizeof(json::key_value_pair) + bucket));
    for (const json::key_value_pair& member : object) {
        bytes += malloc_bytes(member.key().size() + 1) + heap_bytes(member.value());
    }
    return bytes;
}

}  // namespace

std::size_t heap_bytes(const json::value& value) noexcept {
    switch (value.kind()) {
        case json::kind::string:
            return of_string(value.get_string());
        case json::kind::array:
            return of_array(value.get_array());
        case json::kind::object:
            return of_object(value.get_object());
        default:
            return 0;
    }
}

}  // namespace psycache::detail
