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
class GetEntry : public TableOperation {
  public:
    GetEntry(const Table& its_table, std::string_view its_name, bool with_values)
        : TableOperation(its_table, its_name, false),
          values_(with_values),
          one_(concat({"SELECT 1::bigint, ", left, value_of(with_values), " FROM ", table.name,
                       " AS t WHERE t.key = $1 AND t.expires_at > statement_timestamp()"}),
               {pg::Oid::text}),
          many_(concat({"SELECT o.i, ", left, value_of(with_values),
                        " FROM unnest($1::text[]) WITH ORDINALITY AS o(k, i) JOIN ", table.name,
                        " AS t ON t.key = o.k WHERE t.expires_at > statement_timestamp()"}),
                {pg::Oid::text_array}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            parameters.borrow(group.key(0));
            return one_;
        }
        parameters.own(keys_of(group));
        return many_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        std::vector<bool> found(group.keys());
        for (std::size_t row = 0; row < rows.size(); ++row) {
            const auto number = static_cast<std::size_t>(rows.integer(row, 0)) - 1;
            if (number < group.keys() && !found[number]) {
                found[number] = true;
                answer_one(group, number, rows, row, how);
            }
        }
        for (std::size_t number = 0; number < group.keys(); ++number) {
            if (!found[number]) {
                answer_miss(group, number, how);
            }
        }
    }

  private:
    /// What is left of the time to live, in microseconds; NULL for an entry without end.
    static constexpr std::string_view left =
        "CASE WHEN isfinite(t.expires_at) THEN"
        " (extract(epoch FROM t.expires_at - statement_timestamp()) * 1000000)::bigint END";
    static std::string_view value_of(bool with_values) {
        return with_values ? ", t.value, pg_column_size(t.value)" : "";
    }

    void answer_one(const Group& group, std::size_t number, const pg::Rows& rows, std::size_t row,
                    Resume how) const {
        const Duration left_to_live =
            rows.bytes(row, 1).empty() ? no_expiry : Duration(rows.integer(row, 1));
        std::optional<StoredValue> value;
        if (values_) {
            value.emplace(rows.bytes(row, 2), static_cast<std::size_t>(rows.integer(row, 3)));
        }
        std::size_t calls_left = group.calls(number).size();
        for (EntryCall& call : group.calls<EntryCall>(number)) {
            --calls_left;
            const auto fill = [&] {
                call.live = true;
                call.expires_in = left_to_live;
            };
            if (value) {
                value->answer(call, calls_left == 0, how, fill);
            } else {
                call.answer(fill, how);
            }
        }
    }

    const bool values_;
    const pg::Statement one_;
    const pg::Statement many_;
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
