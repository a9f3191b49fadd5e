#include "values/utf8.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace psycache::detail {

namespace {

/// The length of the well-formed sequence that begins with a byte of 0x80 and above; 0 if there is
/// none. The bounds of the second byte keep out overlong forms, surrogates and what lies above
/// U+10FFFF.
std::size_t sequence_length(const unsigned char* at, std::size_t left) noexcept {
    const unsigned char lead = at[0];
    std::size_t length = 0;
    unsigned char low = 0x80;
    unsigned char high = 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf) {
        length = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        length = 3;
        low = lead == 0xe0 ? 0xa0 : low;
        high = lead == 0xed ? 0x9f : high;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        length = 4;
        low = lead == 0xf0 ? 0x90 : low;
        high = lead == 0xf4 ? 0x8f : high;
    }
    if (length == 0 || left < length || at[1] < low || at[1] > high) {
        return 0;
    }
    for (std::size_t i = 2; i < length; ++i) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

/// Whether eight bytes are all between 1 and 0x7f.
bool all_ascii(const unsigned char* at) noexcept {
    std::uint64_t eight = 0;
    std::memcpy(&eight, at, sizeof(eight));
    // Taking 1 from a byte of 0 sets its highest bit, or that of one before which there is such.
    return ((eight | (eight - 0x0101010101010101)) & 0x8080808080808080) == 0;
}

}  // namespace

std::size_t find_unstorable(std::string_view bytes) noexcept {
    const auto* const data = reinterpret_cast<const unsigned char*>(bytes.data());
    std::size_t i = 0;
    for (;;) {
        while (i + sizeof(std::uint64_t) <= bytes.size() && all_ascii(data + i)) {
            i += sizeof(std::uint64_t);
        }
        if (i == bytes.size() || data[i] == 0) {
            return i;
        }
        const std::size_t length = data[i] < 0x80 ? 1 : sequence_length(data + i, bytes.size() - i);
        if (length == 0) {
            return i;
        }
        i += length;
    }
}

}  // namespace psycache::detail
