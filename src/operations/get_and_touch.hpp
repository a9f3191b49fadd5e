#pragma once

#include "operations/get.hpp"
#include "operations/touch.hpp"

namespace psycache::detail {

struct GetAndTouchCall final : ValueCall {
    GetAndTouchCall(const Operation& get_and_touch, std::string its_key, TimePoint until,
                    Duration its_ttl)
        : ValueCall(get_and_touch, std::move(its_key), until, Wanted::value), ttl(its_ttl) {}

    const Duration ttl;
};

/// Gives live entries a new expiry and answers with their values. Several calls of one key are as
/// several touches.
class GetAndTouch final : public TableOperation {
  public:
    explicit GetAndTouch(const Table& its_table)
        : TableOperation(its_table, "get_and_touch", true),
          one_(touch_one(table, Table::expiry_of("$2::bigint"),
                         concat({" FROM ", Table::lock_limit("$3")}), table.returning_value()),
               {pg::Oid::text, pg::Oid::int8, pg::Oid::text}),
          distributed_(
              touch_one(table, Table::expiry_for_update("$2"), "", table.returning_value_unsized()),
              {pg::Oid::text, pg::Oid::int8, pg::Oid::text}),
          many_(touch_many(table, table.returning_value()),
                {pg::Oid::text_array, pg::Oid::int8_array, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            parameters.borrow(group.key(0));
            add_ttl(parameters, group.first<GetAndTouchCall>(0).ttl);
            return table.distributed ? distributed_ : one_;
        }
        parameters.own(keys_of(group));
        parameters.own(ttls_of(
            group, [&](std::size_t i) { return last_live<GetAndTouchCall>(group, i).ttl; }));
        return many_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const auto row_of = rows_by_key(group, rows);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            if (!row_of[number]) {
                answer_miss(group, number, how);
                continue;
            }
            StoredValue value = table.stored_value(rows, *row_of[number]);
            const Call* const last = &last_live<GetAndTouchCall>(group, number);
            bool live = true;
            for (GetAndTouchCall& call : group.calls<GetAndTouchCall>(number)) {
                if (live) {
                    value.answer(call, &call == last, how);
                } else {
                    call.answer([] {}, how);
                }
                live = live && &call != last;
            }
        }
    }

  private:
    const pg::Statement one_;
    const pg::Statement distributed_;
    const pg::Statement many_;
};

struct GetAndTouchOne : ReadOne {
    static constexpr bool writes = true;
    static constexpr std::string_view name = "get_and_touch";

    GetAndTouchOne(std::string its_key, Duration its_ttl, ValueReader its_reader)
        : ReadOne(std::move(its_key), its_reader), ttl(its_ttl) {}

    std::optional<Failure> mistake() const {
        auto wrong = ReadOne::mistake();
        return wrong ? wrong : check_ttl(ttl);
    }
    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(std::make_shared<GetAndTouchCall>(operations.get_and_touch, std::move(key),
                                                          until, ttl));
    }
    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        const bool hit = ReadOne::value(calls, counts, spans);
        counts.touches += hit ? 1 : 0;
        return hit;
    }
    Value outage(Counts& counts) const {
        ++counts.dropped_writes;
        return ReadOne::outage(counts);
    }

    Duration ttl;
};

struct GetAndTouchMany : ReadMany {
    static constexpr bool writes = true;
    static constexpr std::string_view name = "get_and_touch_many";

    GetAndTouchMany(std::vector<std::string>&& its_keys, Duration its_ttl, ValueReader its_reader)
        : ReadMany(std::move(its_keys), its_reader), ttl(its_ttl) {}
    GetAndTouchMany(const std::vector<std::string>& its_keys, Duration its_ttl,
                    ValueReader its_reader)
        : ReadMany(its_keys, its_reader), ttl(its_ttl) {}

    std::optional<Failure> mistake(std::size_t place) const {
        auto wrong = ReadMany::mistake(place);
        return wrong ? wrong : check_ttl(ttl);
    }
    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        make_slice(calls, Repeated::first, [&](const std::string& key) {
            return std::make_shared<GetAndTouchCall>(operations.get_and_touch, key, until, ttl);
        });
    }
    Failure take(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        for (const auto& call : calls) {
            counts.touches += static_cast<const ValueCall&>(*call).hit() ? 1 : 0;
        }
        return ReadMany::take(calls, counts, spans);
    }
    void outage(Counts& counts) const {
        counts.dropped_writes += size() - answered();
        ReadMany::outage(counts);
    }

    Duration ttl;
};

}  // namespace psycache::detail
