#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

struct pg_result;

namespace psycache::pg {

/// The answer to a statement; its bytes stay valid as long as it lives.
class Rows {
  public:
    Rows() noexcept = default;
    explicit Rows(pg_result* result) noexcept : result_(result) {}

    std::size_t size() const noexcept;
    std::string_view bytes(std::size_t row, std::size_t column) const noexcept;
    /// A column of type int4 or int8.
    std::int64_t integer(std::size_t row, std::size_t column) const noexcept;
    /// How many rows the statement inserted, updated or deleted.
    std::uint64_t affected() const noexcept;

  private:
    struct Clear {
        void operator()(pg_result* result) const noexcept;
    };
    std::unique_ptr<pg_result, Clear> result_;
};

}  // namespace psycache::pg
