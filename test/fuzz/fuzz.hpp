#pragma once

/// @file
/// What all fuzz targets share: the bytes they are given, and how they complain.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

/// Defined by each target: runs the library on one input. A fault ends the program.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace psycache::fuzz {

/// Ends the program unless the property holds.
inline void require(bool holds, const char* property) {
    if (!holds) {
        std::fprintf(stderr, "violated: %s\n", property);
        std::abort();
    }
}

/// Bytes that are used up from the front; zero bytes follow them for ever.
class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size)
        : left_(reinterpret_cast<const char*>(data), size) {}

    bool empty() const { return left_.empty(); }

    /// At most @p count bytes.
    std::string_view take(std::size_t count) {
        const std::string_view taken = left_.substr(0, count);
        left_.remove_prefix(taken.size());
        return taken;
    }

    std::uint8_t byte() {
        const std::string_view one = take(1);
        return one.empty() ? std::uint8_t{0} : static_cast<std::uint8_t>(one.front());
    }

    bool flag() { return (byte() & 1) != 0; }

    /// A number below @p bound, which is at most 256.
    std::size_t below(std::size_t bound) { return byte() % bound; }

    /// The bytes of a number or the like.
    template <class T>
    T plain() {
        T value{};
        const std::string_view bytes = take(sizeof value);
        std::memcpy(&value, bytes.data(), bytes.size());
        return value;
    }

    /// A byte with the length, then the text.
    std::string_view text() { return take(byte()); }

    std::string_view rest() { return take(left_.size()); }

  private:
    std::string_view left_;
};

}  // namespace psycache::fuzz
