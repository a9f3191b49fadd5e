#pragma once

#include "operations/get.hpp"
#include "operations/load_lease.hpp"

namespace psycache::detail {

struct LookUpCall final : ValueCall {
    LookUpCall(const Operation& look_up, std::string its_key, TimePoint until)
        : ValueCall(look_up, std::move(its_key), until, Wanted::value) {}

    Sight sight;
};

/// Looks up what get_or_create has to know of keys: the expiry of their rows, the values of those
/// that are live, and whether another one holds the load lease.
class LookUp final : public TableOperation {
  public:
    explicit LookUp(const Table& its_table)
        : TableOperation(its_table, "get_or_create", false),
          one_(concat({"SELECT 1::bigint", columns(table.sizes), " FROM ", table.name,
                       " AS t WHERE t.key = $1"}),
               {pg::Oid::text}),
          many_(concat({"SELECT o.i", columns(table.sizes),
                        " FROM unnest($1::text[]) WITH ORDINALITY AS o(k, i) JOIN ", table.name,
                        " AS t ON t.key = o.k"}),
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
    static std::string columns(bool sizes) {
        return concat(
            {", t.expires_at, statement_timestamp(),"
             " CASE WHEN t.expires_at <= statement_timestamp() THEN ",
             LoadLease::leased("t"),
             " END, CASE WHEN t.expires_at > statement_timestamp() THEN t.value END",
             sizes ? ", pg_column_size(t.value)" : ""});
    }

    void answer_one(const Group& group, std::size_t number, const pg::Rows& rows, std::size_t row,
                    Resume how) const {
        const bool leased = rows.bytes(row, 3) == std::string_view("\x01", 1);
        Sight sight = LoadLease::sight(rows.integer(row, 1), rows.integer(row, 2), leased);
        std::optional<StoredValue> value;
        if (sight.state == Sight::State::live) {
            sight.size = table.sizes ? static_cast<std::size_t>(rows.integer(row, 5)) : 0;
            value.emplace(rows.bytes(row, 4), sight.size);
        }
        std::size_t calls_left = group.calls(number).size();
        for (LookUpCall& call : group.calls<LookUpCall>(number)) {
            --calls_left;
            const auto fill = [&] { call.sight = sight; };
            if (value) {
                value->answer(call, calls_left == 0, how, fill);
            } else {
                call.answer(fill, how);
            }
        }
    }

    const pg::Statement one_;
    const pg::Statement many_;
};

/// What was found of a key, with its value if it is live.
struct Found {
    Sight sight;
    std::optional<boost::json::value> value;
};

struct LookUpOne : GetOne {
    using GetOne::GetOne;
    using Value = Found;
    static constexpr std::string_view name = "get_or_create";

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(std::make_shared<LookUpCall>(operations.look_up, std::move(key), until));
    }
    static Spans<Span> open_spans_of(const Observers& observers, Keys keys, SpanName span_name) {
        return observers.empty() ? Spans<Span>(observers)
                                 : open_get_spans(observers, keys, span_name);
    }
    static Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        auto& call = static_cast<LookUpCall&>(told_of(*calls.front(), counts, spans));
        return Found{call.sight, std::move(call.value)};
    }
    static Value outage(Counts& counts) {
        ++counts.outage_misses;
        return Found{Sight{.state = Sight::State::out_of_reach}, std::nullopt};
    }
};

/// The same without a span and without counting it: a load waits for what another process stores.
struct LookAgain : LookUpOne {
    using LookUpOne::LookUpOne;

    static Spans<Span> open_spans_of(const Observers& observers, Keys /*keys*/,
                                     SpanName /*span_name*/) {
        return Spans<Span>(observers);
    }
    static Value value(CallSpan calls, Counts& /*counts*/, Spans<Span>& /*spans*/) {
        auto& call = static_cast<LookUpCall&>(*calls.front());
        return Found{call.sight, std::move(call.value)};
    }
};

}  // namespace psycache::detail
