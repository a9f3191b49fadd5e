#include "core/key_hash.hpp"

#include <bit>
#include <cstddef>
#include <cstring>

namespace psycache::detail {

namespace {

// lookup3 by Bob Jenkins, in the public domain, as PostgreSQL uses it.
struct State {
    std::uint32_t a;
    std::uint32_t b;
    std::uint32_t c;

    void mix() noexcept {
        a = (a - c) ^ std::rotl(c, 4);
        c += b;
        b = (b - a) ^ std::rotl(a, 6);
        a += c;
        c = (c - b) ^ std::rotl(b, 8);
        b += a;
        a = (a - c) ^ std::rotl(c, 16);
        c += b;
        b = (b - a) ^ std::rotl(a, 19);
        a += c;
        c = (c - b) ^ std::rotl(b, 4);
        b += a;
    }

    void finish() noexcept {
        c = (c ^ b) - std::rotl(b, 14);
        a = (a ^ c) - std::rotl(c, 11);
        b = (b ^ a) - std::rotl(a, 25);
        c = (c ^ b) - std::rotl(b, 16);
        a = (a ^ c) - std::rotl(c, 4);
        b = (b ^ a) - std::rotl(a, 14);
        c = (c ^ b) - std::rotl(b, 24);
    }
};

/// @returns @p count bytes as a little-endian number.
std::uint32_t some_bytes(const char* bytes, std::size_t count) noexcept {
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < count; ++i) {
        word |= std::uint32_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    }
    return word;
}

std::uint32_t four_bytes(const char* bytes) noexcept {
    if constexpr (std::endian::native == std::endian::little) {
        std::uint32_t word;
        std::memcpy(&word, bytes, sizeof word);
        return word;
    } else {
        return some_bytes(bytes, 4);
    }
}

}  // namespace

std::uint64_t key_hash(std::string_view key) noexcept {
    const char* bytes = key.data();
    std::size_t left = key.size();
    const std::uint32_t start = 0x9e3779b9U + static_cast<std::uint32_t>(left) + 3923095U;
    State state{start, start, start};
    for (; left >= 12; bytes += 12, left -= 12) {
        state.a += four_bytes(bytes);
        state.b += four_bytes(bytes + 4);
        state.c += four_bytes(bytes + 8);
        state.mix();
    }
    // The lowest byte of c stands for the length, which went in at the start.
    if (left >= 8) {
        state.a += four_bytes(bytes);
        state.b += four_bytes(bytes + 4);
        state.c += some_bytes(bytes + 8, left - 8) << 8;
    } else if (left >= 4) {
        state.a += four_bytes(bytes);
        state.b += some_bytes(bytes + 4, left - 4);
    } else {
        state.a += some_bytes(bytes, left);
    }
    state.finish();
    return std::uint64_t{state.b} << 32 | state.c;
}

}  // namespace psycache::detail
