#pragma once

#include "operations/get.hpp"

namespace psycache::detail {

struct EntryCall final : ValueCall {
    EntryCall(const Operation& its_operation, std::string its_key, TimePoint until)
        : ValueCall(its_operation, std::move(its_key), until, Wanted::value) {}

    Duration expires_in{0};
    bool live = false;

    std::optional<EntryFacts> facts() const {
        return live ? std::optional(EntryFacts{expires_in, size}) : std::nullopt;
    }
};

/// Looks up live entries with their expiry, and with value and size or without.
class GetEntry final : public ReadOperation {
  public:
    GetEntry(const Table& its_table, std::string_view its_name, bool with_values)
        : ReadOperation(its_table, its_name,
                        concat({left, with_values ? ", t.value, pg_column_size(t.value)" : ""}),
                        live),
          values_(with_values) {}

  private:
    /// What is left of the time to live, in microseconds; NULL for an entry without end.
    static constexpr std::string_view left =
        "CASE WHEN isfinite(t.expires_at) THEN"
        " (extract(epoch FROM t.expires_at - statement_timestamp()) * 1000000)::bigint END";

    void answer_row(const Group& group, std::size_t number, const pg::Rows& rows, std::size_t row,
                    std::size_t first, Resume how) const override {
        const Duration left_to_live =
            rows.bytes(row, first).empty() ? no_expiry : Duration(rows.integer(row, first));
        std::optional<StoredValue> value;
        if (values_) {
            value.emplace(rows.bytes(row, first + 1),
                          static_cast<std::size_t>(rows.integer(row, first + 2)));
        }
        answer_found<EntryCall>(group, number, value, how, [&](EntryCall& call) {
            call.live = true;
            call.expires_in = left_to_live;
        });
    }

    const bool values_;
};

struct GetEntryOne : ReadOne {
    using ReadOne::ReadOne;
    static constexpr bool writes = false;
    using Value = std::optional<EntryFacts>;
    static constexpr std::string_view name = "get_entry";

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(std::make_shared<EntryCall>(operations.get_entry, std::move(key), until));
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        const auto& call = static_cast<const EntryCall&>(told_of(*calls.front(), counts, spans));
        return call.facts();
    }
    Value outage(Counts& counts) const {
        ++counts.outage_misses;
        return std::nullopt;
    }
};

struct GetEntryMany : ReadMany {
    using ReadMany::ReadMany;
    static constexpr bool writes = false;
    using Value = std::vector<std::optional<EntryFacts>>;
    static constexpr std::string_view name = "get_entry_many";

    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        facts_.reserve(size());
        make_slice(calls, Repeated::first, [&](const std::string& key) {
            return std::make_shared<EntryCall>(operations.get_entry, key, until);
        });
    }
    Failure take(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        return take_values<EntryCall>(
            calls, counts, spans, [&](const EntryCall& call) { facts_.push_back(call.facts()); });
    }
    Value value(Spans<Span>& /*spans*/) { return std::move(facts_); }
    Value outage(Counts& counts) {
        ReadMany::outage(counts);
        facts_.resize(size());
        return std::move(facts_);
    }

  private:
    Value facts_;
};

struct ExpiresIn : GetOne {
    using GetOne::GetOne;
    using Value = std::optional<Duration>;
    static constexpr std::string_view name = "expires_in";

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(std::make_shared<EntryCall>(operations.expires_in, std::move(key), until));
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        const auto& call = static_cast<const EntryCall&>(*calls.front());
        if (call.live) {
            ++counts.hits;
            spans.record([](Span& span) { span.record_cache_hit(0); });
            return call.expires_in;
        }
        ++counts.misses;
        spans.record([](Span& span) { span.record_cache_miss(); });
        return std::nullopt;
    }
    Value outage(Counts& counts) const {
        ++counts.outage_misses;
        return std::nullopt;
    }
};

}  // namespace psycache::detail
