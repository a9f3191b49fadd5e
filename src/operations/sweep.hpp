#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/counts.hpp"
#include "core/observers.hpp"
#include "operations/table.hpp"

namespace psycache::detail {

/// How many entries one batch of a call on a group of entries removes.
inline constexpr std::size_t sweep_size = 1000;

/// What one batch has done. Entries whose rows are locked it leaves, and names: it waits for none,
/// so that it holds up no caller and cannot deadlock.
struct Sweep {
    std::uint64_t entries = 0;      ///< removed
    bool more = false;              ///< whether further batches are to follow
    std::string last;               ///< the key behind which they go on, where they go by key
    std::vector<std::string> held;  ///< keys that it left, as their rows were locked

    /// @returns in SQL, the rows that the constructor reads: a summary, and one for each key that
    /// was left. @param held a query of their keys.
    static std::string rows(std::string_view last, std::string_view more, std::string_view entries,
                            std::string_view held) {
        return concat({" SELECT ", last, ", (", more, ")::int::bigint, ", entries,
                       " UNION ALL (SELECT held.key, -1::bigint, 0::bigint FROM (", held,
                       ") AS held)"});
    }

    explicit Sweep(const pg::Rows& rows) {
        for (std::size_t row = 0; row < rows.size(); ++row) {
            const std::int64_t what = rows.integer(row, 1);
            if (what < 0) {
                held.emplace_back(rows.bytes(row, 0));
                continue;
            }
            more = what > 0;
            last = rows.bytes(row, 0);
            entries = static_cast<std::uint64_t>(rows.integer(row, 2));
        }
    }
};

/// What the requests on groups of entries have in common.
struct Invalidation {
    using Span = CacheInvalidationSpan;

    static void tell(Counts& counts, Spans<Span>& spans, std::uint64_t entries) {
        counts.removes += entries;
        tell(spans, entries);
    }
    static void tell(Spans<Span>& spans, std::uint64_t entries) {
        spans.record([&](Span& span) { span.record_invalidated(entries); });
    }
};

}  // namespace psycache::detail
