#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <vector>

#include "batching/call.hpp"
#include "core/counts.hpp"
#include "core/observers.hpp"
#include "operations/many.hpp"
#include "operations/read_operation.hpp"

namespace psycache::detail {

using GetCall = ValueCall;

/// Looks up live entries.
class Get final : public ReadOperation {
  public:
    explicit Get(const Table& its_table)
        : ReadOperation(its_table, "get",
                        its_table.sizes ? "t.value, pg_column_size(t.value)" : "t.value", live) {}

  private:
    void answer_row(const Group& group, std::size_t number, const pg::Rows& rows, std::size_t row,
                    std::size_t first, Resume how) const override {
        const auto size = table.sizes ? static_cast<std::size_t>(rows.integer(row, first + 1)) : 0;
        StoredValue(rows.bytes(row, first), size).answer_all(group, number, how);
    }
};

/// What a call of one key has in common, whatever a value is to its caller.
struct GetOne {
    using Span = CacheGetSpan;
    static constexpr bool writes = false;

    explicit GetOne(std::string its_key) : key(std::move(its_key)) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_get_spans(observers, key, span_name);
    }
    std::optional<Failure> mistake() const { return check_lookup_key(key); }
    Failure explain(Failure failure) const { return failure; }

    std::string key;
};

/// The value goes to where the caller's type reads it. What has been read may also have been
/// changed.
struct ReadOne : GetOne {
    using Value = bool;

    ReadOne(std::string its_key, ValueReader its_reader)
        : GetOne(std::move(its_key)), reader(its_reader) {}

    Failure read(CallSpan calls) const {
        auto& call = static_cast<ValueCall&>(*calls.front());
        return call.value ? read_into(reader, 0, std::move(*call.value)) : Failure();
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        return told_of(*calls.front(), counts, spans).hit();
    }
    Value outage(Counts& counts) const {
        ++counts.outage_misses;
        return false;
    }

    ValueReader reader;
};

struct GetTyped : ReadOne {
    using ReadOne::ReadOne;
    static constexpr std::string_view name = "get";

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(
            std::make_shared<GetCall>(operations.get, std::move(key), until, Wanted::value));
    }
};

struct GetRaw : GetOne {
    using GetOne::GetOne;
    using Value = std::optional<boost::json::object>;
    static constexpr std::string_view name = "get_raw";

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(
            std::make_shared<GetCall>(operations.get, std::move(key), until, Wanted::object));
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        ValueCall& call = told_of(*calls.front(), counts, spans);
        return call.value ? Value(std::move(call.value->get_object())) : std::nullopt;
    }
    Value outage(Counts& counts) const {
        ++counts.outage_misses;
        return std::nullopt;
    }
};

struct GetText : GetOne {
    using GetOne::GetOne;
    using Value = std::optional<std::string>;
    static constexpr std::string_view name = "get_text";

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(
            std::make_shared<GetCall>(operations.get, std::move(key), until, Wanted::text));
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        return std::move(told_of(*calls.front(), counts, spans).text);
    }
    Value outage(Counts& counts) const {
        ++counts.outage_misses;
        return std::nullopt;
    }
};

/// The values go to where the caller's type reads them.
struct ReadMany : ManyKeys {
    using Span = CacheGetSpan;
    using Value = void;

    ReadMany(std::vector<std::string>&& its_keys, ValueReader its_reader)
        : ManyKeys(std::move(its_keys)), reader(its_reader) {}
    ReadMany(const std::vector<std::string>& its_keys, ValueReader its_reader)
        : ManyKeys(its_keys), reader(its_reader) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return observers.empty() ? Spans<Span>(observers)
                                 : open_get_spans(observers, keys(), span_name);
    }
    Failure take(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        return take_values<ValueCall>(calls, counts, spans, [](const ValueCall&) {});
    }
    static void value(Spans<Span>& /*spans*/) {}
    void outage(Counts& counts) const { counts.outage_misses += size() - answered(); }
    bool drop(std::size_t count) { return drop_items(count); }
    static bool drop_answers(std::size_t /*count*/) { return false; }

    ValueReader reader;

  protected:
    /// Gives values to the caller's type. @param each hears of every item's call, in order.
    template <class ItsCall, class Each>
    Failure take_values(CallSpan calls, Counts& counts, Spans<Span>& spans, Each each) {
        Failure failure;
        const bool repeated = has_repeated(calls);
        take_slice<ItsCall>(calls, [&](ItsCall& call, std::size_t place) {
            each(call);
            if (told_of(call, counts, spans).hit() && !failure.code) {
                failure = repeated ? read_into(reader, place, boost::json::value(*call.value))
                                   : read_into(reader, place, std::move(*call.value));
                if (failure.code) {
                    failure = at_place(std::move(failure), "key", place);
                }
            }
        });
        return failure;
    }
};

struct GetMany : ReadMany {
    using ReadMany::ReadMany;
    static constexpr bool writes = false;
    static constexpr std::string_view name = "get_many";

    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        make_slice(calls, Repeated::first, [&](const std::string& key) {
            return std::make_shared<GetCall>(operations.get, key, until, Wanted::value);
        });
    }
};

struct GetRawMany : ManyKeys {
    using Span = CacheGetSpan;
    static constexpr bool writes = false;
    using Value = std::vector<std::optional<boost::json::object>>;
    static constexpr std::string_view name = "get_raw_many";
    using ManyKeys::ManyKeys;

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return observers.empty() ? Spans<Span>(observers)
                                 : open_get_spans(observers, keys(), span_name);
    }

    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        values_.reserve(size());
        make_slice(calls, Repeated::first, [&](const std::string& key) {
            return std::make_shared<GetCall>(operations.get, key, until, Wanted::object);
        });
    }
    void take(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        const bool repeated = has_repeated(calls);
        take_slice<GetCall>(calls, [&](GetCall& call, std::size_t /*place*/) {
            if (!told_of(call, counts, spans).hit()) {
                values_.emplace_back();
            } else if (repeated) {
                values_.emplace_back(call.value->get_object());
            } else {
                values_.emplace_back(std::move(call.value->get_object()));
            }
        });
    }
    Value value(Spans<Span>& /*spans*/) { return std::move(values_); }
    Value outage(Counts& counts) {
        counts.outage_misses += size() - answered();
        values_.resize(size());
        return std::move(values_);
    }
    bool drop(std::size_t count) { return drop_items(count); }
    bool drop_answers(std::size_t count) {
        drop_last(values_, count);
        return !values_.empty();
    }

  private:
    Value values_;
};

}  // namespace psycache::detail
