#pragma once

/// @file
/// Marks what a shared build of the library exports; everything else is hidden.

#if defined(_WIN32)
#error "psycache supports POSIX systems only"
#elif defined(PSYCACHE_STATIC)
#define PSYCACHE_EXPORT
#else
#define PSYCACHE_EXPORT __attribute__((visibility("default")))
#endif
