#pragma once

#include <memory>

struct pg_result;

namespace psycache::detail::pg {

struct ClearResult {
    void operator()(pg_result* result) const noexcept;
};

/// Owns what libpq answered.
using ResultHandle = std::unique_ptr<pg_result, ClearResult>;

}  // namespace psycache::detail::pg
