#pragma once

#include <chrono>
#include <string>

#include "operations/sweep.hpp"

namespace psycache::detail {

/// Empties the table and that of tags, if there is one, without looking at their rows.
///
/// TRUNCATE wants the table for itself, and while it waits for those who use it everybody else
/// waits behind it: so it waits for a moment only, and is tried again. The limit ends with the
/// statement.
struct Clear {
    static constexpr std::chrono::milliseconds wait{100};

    explicit Clear(const Table& table)
        : all(concat({"DO ",
                      quoted_literal(concat(
                          {"BEGIN PERFORM set_config('lock_timeout', '",
                           std::to_string(wait.count()), "', true); IF to_regclass(",
                           quoted_literal(table.tags), ") IS NULL THEN TRUNCATE ", table.name,
                           "; ELSE TRUNCATE ", table.name, ", ", table.tags, "; END IF; END"}))}),
              {}) {}

    /// @returns whether the table was in use for all the time that was waited.
    static bool in_use(const Failure& failure) { return failure.sqlstate == "55P03"; }
    /// Says what the role needs beside what Table says.
    static Failure explain(Failure failure) {
        if (failure.code == Errc::permission_denied) {
            failure.cause += ", and TRUNCATE to clear it and its table of tags; flush does without";
        }
        return failure;
    }

    const pg::Statement all;
};

struct ClearAll : Invalidation {
    static constexpr std::string_view name = "clear";

    static Spans<Span> open_spans(const Observers& observers, SpanName span_name) {
        return open_invalidation_spans(observers, InvalidationInfo{name, {}, span_name.call});
    }
    static std::optional<Failure> mistake() { return std::nullopt; }
};

}  // namespace psycache::detail
