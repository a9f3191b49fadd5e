#pragma once

#include "operations/get.hpp"

namespace psycache::detail {

/// Deletes live entries and answers with their values. Several takes of one key are as if they had
/// come one after the other: the first one whose caller still waits gets the entry.
class Take final : public TableOperation {
  public:
    explicit Take(const Table& its_table)
        : TableOperation(its_table, "take", true, Traits{.replayable = false}),
          one_(concat({"DELETE FROM ", table.name, " AS t USING ", Table::lock_limit("$2"),
                       one_live, table.returning_value()}),
               {pg::Oid::text, pg::Oid::text}),
          distributed_(concat({"DELETE FROM ", table.name, " AS t", one_live,
                               table.returning_value_unsized()}),
                       {pg::Oid::text, pg::Oid::text}),
          many_(concat({table.live_keys("$1", "$2"), " DELETE FROM ", table.name,
                        " AS t USING live WHERE t.key = live.key", table.returning_value()}),
                {pg::Oid::text_array, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            parameters.borrow(group.key(0));
            return table.distributed ? distributed_ : one_;
        }
        parameters.own(keys_of(group));
        return many_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const auto row_of = rows_by_key(group, rows);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            bool there = row_of[number].has_value();
            for (ValueCall& call : group.calls<ValueCall>(number)) {
                if (there) {
                    there = !table.stored_value(rows, *row_of[number]).answer(call, true, how);
                } else {
                    call.answer([] {}, how);
                }
            }
        }
    }

  private:
    static constexpr std::string_view one_live =
        " WHERE t.key = $1 AND t.expires_at > statement_timestamp()";

    const pg::Statement one_;
    const pg::Statement distributed_;
    const pg::Statement many_;
};

struct TakeOne : ReadOne {
    using ReadOne::ReadOne;
    static constexpr bool writes = true;
    static constexpr std::string_view name = "take";

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(
            std::make_shared<ValueCall>(operations.take, std::move(key), until, Wanted::value));
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        const bool hit = ReadOne::value(calls, counts, spans);
        counts.removes += hit ? 1 : 0;
        return hit;
    }
    Value outage(Counts& counts) const {
        ++counts.dropped_writes;
        return ReadOne::outage(counts);
    }
};

struct TakeMany : ReadMany {
    using ReadMany::ReadMany;
    static constexpr bool writes = true;
    static constexpr std::string_view name = "take_many";

    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        make_slice(calls, Repeated::first, [&](const std::string& key) {
            return std::make_shared<ValueCall>(operations.take, key, until, Wanted::value);
        });
    }
    Failure take(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        for (const auto& call : calls) {
            counts.removes += static_cast<const ValueCall&>(*call).hit() ? 1 : 0;
        }
        return ReadMany::take(calls, counts, spans);
    }
    void outage(Counts& counts) const {
        counts.dropped_writes += size() - answered();
        ReadMany::outage(counts);
    }
};

}  // namespace psycache::detail
