#pragma once

#include "operations/put.hpp"

namespace psycache::detail {

struct MergeCall final : Call {
    MergeCall(const Operation& merge, std::string its_key, TimePoint until, std::string its_patch)
        : Call(merge, std::move(its_key), until, its_patch.size()), patch(std::move(its_patch)) {}

    const std::string patch;  // an object as JSONB
    bool live = false;
    std::size_t size = 0;  // stored; 0 where it was not asked for
};

/// Puts members into live objects, and keeps their expiry. Of several patches of one key the later
/// ones come on top of the earlier.
class Merge final : public TableOperation {
  public:
    explicit Merge(const Table& its_table)
        : TableOperation(its_table, "merge", true),
          one_(concat({"UPDATE ", table.name, " AS t SET value = ", merged("$2"), " FROM ",
                       Table::lock_limit("$3"), one_live, returning()}),
               {pg::Oid::text, pg::Oid::jsonb, pg::Oid::text}),
          distributed_(concat({"UPDATE ", table.name, " AS t SET value = ", merged("$2"), one_live,
                               unsized()}),
                       {pg::Oid::text, pg::Oid::jsonb, pg::Oid::text}),
          many_(concat({table.live_keys("$1", "$3"), " UPDATE ", table.name,
                        " AS t SET value = ", merged("e.v"),
                        " FROM live JOIN unnest($1::text[], $2::jsonb[]) AS e(k, v)"
                        " ON e.k = live.key WHERE t.key = live.key",
                        returning()}),
                {pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            parameters.borrow(group.key(0));
            parameters.borrow(group.first<MergeCall>(0).patch);
            return table.distributed ? distributed_ : one_;
        }
        parameters.own(keys_of(group));
        parameters.own(values_of(group, [&](std::size_t i) { return patch_of(group, i); }));
        return many_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const auto row_of = rows_by_key(group, rows);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            const auto row = row_of[number];
            const bool object = row && rows.integer(*row, 1) != 0;
            const std::size_t size =
                object && table.sizes ? static_cast<std::size_t>(rows.integer(*row, 2)) : 0;
            for (MergeCall& call : group.calls<MergeCall>(number)) {
                if (row && !object) {
                    call.fail(Failure(Errc::unreadable_value,
                                      "the stored value is no object, and was not changed"),
                              how);
                    continue;
                }
                call.answer(
                    [&] {
                        call.live = object;
                        call.size = size;
                    },
                    how);
            }
        }
    }

  private:
    static constexpr std::string_view one_live =
        " WHERE t.key = $1 AND t.expires_at > statement_timestamp()";

    static std::string merged(std::string_view patch) {
        // Citus does not pass on a CASE that has something to compare with.
        return concat({"CASE WHEN jsonb_typeof(t.value) = 'object' THEN t.value || ", patch,
                       " ELSE t.value END"});
    }
    /// A value that is no object is the same afterwards.
    std::string_view returning() const noexcept {
        return table.sizes ? " RETURNING t.key, (jsonb_typeof(t.value) = 'object')::int,"
                             " pg_column_size(t.value)"
                           : " RETURNING t.key, (jsonb_typeof(t.value) = 'object')::int";
    }

    std::string_view unsized() const noexcept {
        return table.sizes ? " RETURNING t.key, (jsonb_typeof(t.value) = 'object')::int, 0"
                           : " RETURNING t.key, (jsonb_typeof(t.value) = 'object')::int";
    }

    /// @returns the patches of a key as one: JSONB keeps the last of repeated names.
    static std::string patch_of(const Group& group, std::size_t number) {
        std::string all(1, pg::jsonb_version);
        all += '{';
        for (const MergeCall& call : group.calls<MergeCall>(number)) {
            const auto members = std::string_view(call.patch).substr(2, call.patch.size() - 3);
            if (!members.empty()) {
                all.append(all.size() > 2 ? "," : "").append(members);
            }
        }
        return all += '}';
    }

    const pg::Statement one_;
    const pg::Statement distributed_;
    const pg::Statement many_;
};

struct MergeOne {
    using Span = CachePutSpan;
    static constexpr bool writes = true;
    using Value = bool;
    static constexpr std::string_view name = "merge";

    MergeOne(std::string its_key, Result<std::string> its_patch)
        : key(std::move(its_key)), patch(std::move(its_patch)) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_put_spans(observers, key, span_name);
    }
    std::optional<Failure> mistake() const {
        auto wrong = check_lookup_key(key);
        if (!wrong && !patch) {
            wrong = patch.error();
        }
        return wrong;
    }
    Failure explain(Failure failure) const { return failure; }

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(std::make_shared<MergeCall>(operations.merge, std::move(key), until,
                                                    std::move(*patch)));
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        const auto& call = static_cast<const MergeCall&>(*calls.front());
        if (call.live) {
            ++counts.puts;
            spans.record([&](Span& span) { span.record_put(call.size); });
        }
        return call.live;
    }
    Value outage(Counts& counts) const {
        ++counts.dropped_writes;
        return false;
    }

    std::string key;
    Result<std::string> patch;
};

}  // namespace psycache::detail
