#pragma once

/// @file
/// The version of the library. CMake reads these three numbers, so they are kept nowhere else.

#define PSYCACHE_VERSION_MAJOR 0
#define PSYCACHE_VERSION_MINOR 1
#define PSYCACHE_VERSION_PATCH 0
