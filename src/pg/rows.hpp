#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "pg/parameters.hpp"
#include "pg/result.hpp"

namespace psycache::detail::pg {

/// The answer to a statement; its bytes stay valid as long as it lives.
class Rows {
  public:
    Rows() noexcept = default;
    explicit Rows(ResultHandle result) noexcept : result_(std::move(result)) {}

    std::size_t size() const noexcept;
    std::string_view bytes(std::size_t row, std::size_t column) const noexcept;
    /// A column of type int4 or int8.
    std::int64_t integer(std::size_t row, std::size_t column) const noexcept;
    /// The type of a column.
    Oid type(std::size_t column) const noexcept;
    /// How many rows the statement inserted, updated or deleted.
    std::uint64_t affected() const noexcept;

  private:
    ResultHandle result_;
};

}  // namespace psycache::detail::pg
