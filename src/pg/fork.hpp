#pragma once

namespace psycache::detail::pg {

/// @returns how many forks lie between this process and the one in which it was first called. What
/// was made under another number belongs to the parent, which goes on using the same sockets.
unsigned forks() noexcept;

}  // namespace psycache::detail::pg
