#include "pg/rows.hpp"

#include <libpq-fe.h>

#include <cstdlib>

namespace psycache::detail::pg {

void ClearResult::operator()(pg_result* result) const noexcept {
    PQclear(result);
}

std::size_t Rows::size() const noexcept {
    return static_cast<std::size_t>(PQntuples(result_.get()));
}

std::string_view Rows::bytes(std::size_t row, std::size_t column) const noexcept {
    const int r = static_cast<int>(row);
    const int c = static_cast<int>(column);
    return {PQgetvalue(result_.get(), r, c),
            static_cast<std::size_t>(PQgetlength(result_.get(), r, c))};
}

std::int64_t Rows::integer(std::size_t row, std::size_t column) const noexcept {
    return read_integer(bytes(row, column));
}

Oid Rows::type(std::size_t column) const noexcept {
    return static_cast<Oid>(PQftype(result_.get(), static_cast<int>(column)));
}

std::uint64_t Rows::affected() const noexcept {
    return std::strtoull(PQcmdTuples(result_.get()), nullptr, 10);
}

}  // namespace psycache::detail::pg
