#pragma once

#include "core/counts.hpp"
#include "core/observers.hpp"
#include "operations/table.hpp"

namespace psycache::detail {

/// Deletes all entries, in one statement.
struct Flush {
    explicit Flush(const Table& table) : all(concat({"DELETE FROM ", table.name}), {}) {}

    const pg::Statement all;  ///< -> affected rows
};

struct FlushAll {
    using Span = CacheFlushSpan;
    static constexpr std::string_view name = "flush";

    static Spans<Span> open_spans(const Observers& observers, SpanName span_name) {
        return open_flush_spans(observers, span_name);
    }
    static std::optional<Failure> mistake() { return std::nullopt; }
    static void tell(Counts& /*counts*/, Spans<Span>& spans, std::uint64_t entries) {
        spans.record([&](Span& span) { span.record_flush(entries); });
    }
};

}  // namespace psycache::detail
