#include "operations/load_lease.hpp"

#include <cstdio>

namespace psycache::detail {

namespace {

// FNV-1a, which is the same in every process, whatever it was compiled with.
std::uint64_t hash_of(std::uint64_t hash, std::string_view text) {
    for (const char c : text) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
    }
    return hash;
}

}  // namespace

std::string LoadLease::key_for_renewal(std::string_view key) {
    constexpr std::string_view prefix = "\x01psycache load lease ";
    if (key.size() + prefix.size() <= max_tag_size) {
        return concat({prefix, key});
    }
    // Two keys with one of these make each other wait, and no more.
    std::array<char, 64> text;
    std::snprintf(text.data(), text.size(), "#%zu %016llx%016llx", key.size(),
                  static_cast<unsigned long long>(hash_of(14695981039346656037U, key)),
                  static_cast<unsigned long long>(hash_of(88172645463325252U, key)));
    return concat({prefix, text.data()});
}

}  // namespace psycache::detail
