#pragma once

/// @file
/// Everything but the optional targets (prometheus, sentry, soci).

#include <psycache/async_postgres_cache.hpp>
#include <psycache/borrowing_pool.hpp>
#include <psycache/cache_pool.hpp>
#include <psycache/cleanup_service.hpp>
#include <psycache/connection_pool.hpp>
#include <psycache/create.hpp>
#include <psycache/duration.hpp>
#include <psycache/entry.hpp>
#include <psycache/error.hpp>
#include <psycache/instrumentation.hpp>
#include <psycache/near_cache.hpp>
#include <psycache/options.hpp>
#include <psycache/pool_statistics.hpp>
#include <psycache/postgres_cache.hpp>
#include <psycache/table.hpp>
#include <psycache/transaction_cache.hpp>
#include <psycache/version.hpp>
