#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace psycache::detail {

/// How deep arrays and objects may be nested in a text: a server whose max_stack_depth is that of
/// its default settings reads a little less.
inline constexpr std::size_t max_text_depth = 15000;

/// What is wrong with a text, and at which byte, counted from 0.
struct TextMistake {
    const char* what;
    std::size_t at;
};

/// Looks for what keeps PostgreSQL from taking a text for a JSON object and storing it as JSONB: by
/// the rules of its own parser, and of its type numeric for numbers.
///
/// Not Boost.JSON's parser: that calls itself for each level, and takes a stack for it, and it has
/// other limits for numbers.
/// @returns nothing where PostgreSQL takes it. It may still refuse what depends on the server:
/// characters that its encoding has not, and what gets too large in its own format.
std::optional<TextMistake> mistake_in_text(std::string_view text) noexcept;

}  // namespace psycache::detail
