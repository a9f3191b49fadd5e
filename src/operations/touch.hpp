#pragma once

#include "batching/call.hpp"
#include "core/counts.hpp"
#include "core/observers.hpp"
#include "operations/many.hpp"
#include "operations/table.hpp"

namespace psycache::detail {

struct TouchCall final : Call {
    TouchCall(const Operation& touch, std::string its_key, TimePoint until, Duration its_ttl)
        : Call(touch, std::move(its_key), until), ttl(its_ttl) {}

    const Duration ttl;
    bool live = false;
};

/// @returns in SQL, a new expiry for one entry if it is live. @param from what it joins with.
inline std::string touch_one(const Table& table, std::string_view expiry, std::string_view from,
                             std::string_view returning) {
    return concat({"UPDATE ", table.name, " AS t SET expires_at = ", expiry, from,
                   " WHERE t.key = $1 AND t.expires_at > statement_timestamp()", returning});
}
/// The same for those of many keys.
inline std::string touch_many(const Table& table, std::string_view returning) {
    return concat({table.live_keys("$1", "$3"), " UPDATE ", table.name,
                   " AS t SET expires_at = ", Table::expiry_of("e.ttl"),
                   " FROM live JOIN unnest($1::text[], $2::bigint[]) AS e(k, ttl)"
                   " ON e.k = live.key WHERE t.key = live.key",
                   returning});
}

/// Gives live entries a new expiry. Of several touches of one key the last ttl counts, and all of
/// them hear whether there was an entry; one that expires it at once is the last.
class Touch final : public TableOperation {
  public:
    explicit Touch(const Table& its_table)
        : TableOperation(its_table, "touch", true),
          one_(touch_one(table, Table::expiry_of("$2::bigint"),
                         concat({" FROM ", Table::lock_limit("$3")}), ""),
               {pg::Oid::text, pg::Oid::int8, pg::Oid::text}),
          distributed_(touch_one(table, Table::expiry_for_update("$2"), "", ""),
                       {pg::Oid::text, pg::Oid::int8, pg::Oid::text}),
          many_(touch_many(table, " RETURNING t.key"),
                {pg::Oid::text_array, pg::Oid::int8_array, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            parameters.borrow(group.key(0));
            add_ttl(parameters, group.first<TouchCall>(0).ttl);
            return table.distributed ? distributed_ : one_;
        }
        parameters.own(keys_of(group));
        parameters.own(
            ttls_of(group, [&](std::size_t i) { return last_live<TouchCall>(group, i).ttl; }));
        return many_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const std::vector<bool> found = found_keys(group, rows);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            const TouchCall* const last = &last_live<TouchCall>(group, number);
            bool live = found[number];
            for (TouchCall& call : group.calls<TouchCall>(number)) {
                call.answer([&] { call.live = live; }, how);
                live = live && &call != last;
            }
        }
    }

  private:
    const pg::Statement one_;
    const pg::Statement distributed_;
    const pg::Statement many_;
};

struct TouchOne {
    using Span = CacheTouchSpan;
    static constexpr bool writes = true;
    using Value = bool;
    static constexpr std::string_view name = "touch";

    TouchOne(std::string its_key, Duration its_ttl) : key(std::move(its_key)), ttl(its_ttl) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_touch_spans(observers, key, span_name);
    }
    std::optional<Failure> mistake() const {
        auto wrong = check_lookup_key(key);
        return wrong ? wrong : check_ttl(ttl);
    }
    Failure explain(Failure failure) const { return failure; }

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(std::make_shared<TouchCall>(operations.touch, std::move(key), until, ttl));
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        const bool live = static_cast<const TouchCall&>(*calls.front()).live;
        counts.touches += live ? 1 : 0;
        spans.record([&](Span& span) { span.record_touch(live); });
        return live;
    }
    Value outage(Counts& counts) const {
        ++counts.dropped_writes;
        return false;
    }

    std::string key;
    Duration ttl;
};

struct TouchMany : ManyKeys {
    using Span = CacheTouchSpan;
    static constexpr bool writes = true;
    using Value = std::vector<bool>;
    static constexpr std::string_view name = "touch_many";

    TouchMany(std::vector<std::string>&& its_keys, Duration its_ttl)
        : ManyKeys(std::move(its_keys)), ttl(its_ttl) {}
    TouchMany(const std::vector<std::string>& its_keys, Duration its_ttl)
        : ManyKeys(its_keys), ttl(its_ttl) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return observers.empty() ? Spans<Span>(observers)
                                 : open_touch_spans(observers, keys(), span_name);
    }
    std::optional<Failure> mistake(std::size_t place) const {
        auto wrong = ManyKeys::mistake(place);
        return wrong ? wrong : check_ttl(ttl);
    }
    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        make_slice(calls, Repeated::first, [&](const std::string& key) {
            return std::make_shared<TouchCall>(operations.touch, key, until, ttl);
        });
    }
    void take(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        for (const auto& call : calls) {
            const bool live = static_cast<const TouchCall&>(*call).live;
            counts.touches += live ? 1 : 0;
            spans.record([&](Span& span) { span.record_touch(live); });
        }
        take_slice<TouchCall>(
            calls, [&](TouchCall& call, std::size_t /*place*/) { live_.push_back(call.live); });
    }
    Value value(Spans<Span>& /*spans*/) { return std::move(live_); }
    Value outage(Counts& counts) {
        counts.dropped_writes += size() - answered();
        live_.resize(size());
        return std::move(live_);
    }
    bool drop(std::size_t count) { return drop_items(count); }
    static bool drop_answers(std::size_t /*count*/) { return false; }

    Duration ttl;

  private:
    Value live_;
};

}  // namespace psycache::detail
