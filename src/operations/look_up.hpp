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

/// Lets the caller's type read a value. @returns why it cannot.
inline Failure read_shared(const SharedReader& reader,
                           const std::shared_ptr<const boost::json::value>& value,
                           std::shared_ptr<const void>& into) {
    std::string wrong = reader.read(value, into);
    return wrong.empty() ? Failure() : Failure(Errc::unreadable_value, std::move(wrong));
}

/// What was found of a key, to be shared.
struct FoundShared {
    Sight sight;
    std::shared_ptr<const boost::json::value> value;  ///< null if it is not live
    std::shared_ptr<const void> object;               ///< what the caller's type is made of it
};

/// The same for one who shares the value.
struct GetShared : LookUpOne {
    using Value = FoundShared;
    static constexpr std::string_view name = "get_shared";

    GetShared(std::string its_key, const SharedReader& reader)
        : LookUpOne(std::move(its_key)), reader_(reader) {}

    Failure read(CallSpan calls) {
        auto& call = static_cast<LookUpCall&>(*calls.front());
        if (!call.value) {
            return Failure();
        }
        found_.value = std::make_shared<const boost::json::value>(std::move(*call.value));
        return read_shared(reader_, found_.value, found_.object);
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        found_.sight = static_cast<LookUpCall&>(told_of(*calls.front(), counts, spans)).sight;
        return std::move(found_);
    }
    static Value outage(Counts& counts) {
        ++counts.outage_misses;
        return FoundShared{Sight{.state = Sight::State::out_of_reach}, nullptr, nullptr};
    }

  private:
    SharedReader reader_;
    FoundShared found_;
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
