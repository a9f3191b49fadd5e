#pragma once

#include "batching/call.hpp"
#include "core/counts.hpp"
#include "core/observers.hpp"
#include "operations/many.hpp"
#include "operations/table.hpp"

namespace psycache::detail {

struct RemoveCall final : Call {
    using Call::Call;
    bool existed = false;
};

/// Deletes entries, live and expired. Several removes of one key are as if they had come one after
/// the other: the first one finds the entry.
class Remove final : public TableOperation {
  public:
    explicit Remove(const Table& its_table)
        : TableOperation(its_table, "remove", true),
          one_(concat({"DELETE FROM ", table.name, " USING ", Table::lock_limit("$2"),
                       " WHERE key = $1"}),
               {pg::Oid::text, pg::Oid::text}),
          distributed_(concat({"DELETE FROM ", table.name, " WHERE key = $1"}),
                       {pg::Oid::text, pg::Oid::text}),
          many_(concat({"WITH doomed AS (SELECT t.key FROM ", table.name, " AS t, ",
                        Table::lock_limit("$2"),
                        " WHERE t.key = ANY($1::text[]) ORDER BY t.key COLLATE \"C\""
                        " FOR UPDATE OF t) DELETE FROM ",
                        table.name, " AS t USING doomed WHERE t.key = doomed.key RETURNING t.key"}),
                {pg::Oid::text_array, pg::Oid::text}),
          on_server_(
              concat({"DELETE FROM ", table.name, " WHERE key = ANY($1::text[]) RETURNING key"}),
              {pg::Oid::text_array, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            parameters.borrow(group.key(0));
            return table.distributed ? distributed_ : one_;
        }
        parameters.own(keys_of(group));
        return group.one_server() ? on_server_ : many_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const std::vector<bool> found = found_keys(group, rows);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            bool existed = found[number];
            for (RemoveCall& call : group.calls<RemoveCall>(number)) {
                call.answer([&] { call.existed = existed; }, how);
                existed = false;
            }
        }
    }

  private:
    bool shares_on_server() const noexcept override { return true; }

    const pg::Statement one_;
    const pg::Statement distributed_;
    const pg::Statement many_;
    const pg::Statement on_server_;
};

struct RemoveOne {
    using Span = CacheRemoveSpan;
    static constexpr bool writes = true;
    using Value = bool;
    static constexpr std::string_view name = "remove";

    explicit RemoveOne(std::string its_key) : key(std::move(its_key)) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_remove_spans(observers, key, span_name);
    }
    std::optional<Failure> mistake() const { return check_lookup_key(key); }
    Failure explain(Failure failure) const { return failure; }

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(std::make_shared<RemoveCall>(operations.remove, std::move(key), until));
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        ++counts.removes;
        spans.record([](Span& span) { span.record_removed(); });
        return static_cast<const RemoveCall&>(*calls.front()).existed;
    }
    Value outage(Counts& counts) const {
        ++counts.dropped_writes;
        return false;
    }

    std::string key;
};

struct RemoveMany : ManyKeys {
    using Span = CacheRemoveSpan;
    static constexpr bool writes = true;
    using Value = std::uint64_t;
    static constexpr std::string_view name = "remove_many";
    using ManyKeys::ManyKeys;

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return observers.empty() ? Spans<Span>(observers)
                                 : open_remove_spans(observers, keys(), span_name);
    }

    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        make_slice(calls, Repeated::first, [&](const std::string& key) {
            return std::make_shared<RemoveCall>(operations.remove, key, until);
        });
    }
    void take(CallSpan calls, Counts& counts, Spans<Span>& /*spans*/) {
        counts.removes += calls.size();
        take_slice<RemoveCall>(calls, [&](RemoveCall& call, std::size_t /*place*/) {
            existed_ += call.existed ? 1 : 0;
            call.existed = false;  // one entry is counted once
        });
    }
    Value value(Spans<Span>& spans) const {
        spans.record([](Span& span) { span.record_removed(); });
        return existed_;
    }
    Value outage(Counts& counts) const {
        counts.dropped_writes += size() - answered();
        return existed_;
    }
    bool drop(std::size_t count) { return drop_items(count); }
    static bool drop_answers(std::size_t /*count*/) { return false; }

  private:
    Value existed_ = 0;
};

}  // namespace psycache::detail
