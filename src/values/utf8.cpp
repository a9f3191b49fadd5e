#include "values/utf8.hpp"

#include <cstddef>
#include <cstdint>

namespace psycache {

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

}  // namespace

bool is_storable_text(std::string_view bytes) noexcept {
    const auto* const data = reinterpret_cast<const unsigned char*>(bytes.data());
    for (std::size_t i = 0; i < bytes.size();) {
        if (data[i] == 0) {
            return false;
        }
        if (data[i] < 0x80) {
            ++i;
            continue;
        }
        const std::size_t length = sequence_length(data + i, bytes.size() - i);
        if (length == 0) {
            return false;
        }
        i += length;
    }
    return true;
}

}  // namespace psycache
