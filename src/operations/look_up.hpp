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
class LookUp final : public ReadOperation {
  public:
    explicit LookUp(const Table& its_table)
        : ReadOperation(
              its_table, "get_or_create",
              concat({"t.expires_at, statement_timestamp(),"
                      " CASE WHEN t.expires_at <= statement_timestamp() THEN ",
                      LoadLease::leased("t"),
                      " END, CASE WHEN t.expires_at > statement_timestamp() THEN t.value END",
                      its_table.sizes ? ", pg_column_size(t.value)" : ""}),
              "") {}

  private:
    void answer_row(const Group& group, std::size_t number, const pg::Rows& rows, std::size_t row,
                    std::size_t first, Resume how) const override {
        const bool leased = rows.bytes(row, first + 2) == std::string_view("\x01", 1);
        Sight sight =
            LoadLease::sight(rows.integer(row, first), rows.integer(row, first + 1), leased);
        std::optional<StoredValue> value;
        if (sight.state == Sight::State::live) {
            sight.size = table.sizes ? static_cast<std::size_t>(rows.integer(row, first + 4)) : 0;
            value.emplace(rows.bytes(row, first + 3), sight.size);
        }
        answer_found<LookUpCall>(group, number, value, how,
                                 [&](LookUpCall& call) { call.sight = sight; });
    }
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

/// The same for one who shares the value, which must be an object.
struct GetShared : LookUpOne {
    using LookUpOne::LookUpOne;
    static constexpr std::string_view name = "get_shared";

    static Failure read(CallSpan calls) {
        const auto& call = static_cast<const LookUpCall&>(*calls.front());
        return call.value && !call.value->is_object() ? no_object_failure() : Failure();
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
