#pragma once

#include <array>

#include "operations/conditional_put.hpp"

namespace psycache::detail {

/// Stores entries where none is live. Of several with one key the first one is stored, as if they
/// had come one after the other; one that has expired from the start keeps no other out.
class PutIfAbsent final : public TableOperation {
  public:
    explicit PutIfAbsent(const Table& its_table)
        : TableOperation(its_table, "put_if_absent", true, Traits{.replayable = false}),
          one_(concat({"INSERT INTO ", table.name,
                       " AS t (key, value, expires_at) SELECT $1::text, $2::jsonb, ",
                       Table::expiry_of("$3::bigint"), " FROM ", Table::lock_limit("$4"), conflict,
                       table.returning()}),
               {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text}),
          distributed_(steps(table), {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text}),
          many_(concat({"INSERT INTO ", table.name,
                        " AS t (key, value, expires_at) SELECT e.k, e.v, ",
                        Table::expiry_of("e.ttl"), " FROM ", Table::lock_limit("$4"),
                        ", unnest($1::text[], $2::jsonb[], $3::bigint[]) AS e(k, v, ttl)", conflict,
                        table.returning()}),
                {pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::int8_array, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        add_entries(group, parameters,
                    [&](std::size_t i) -> const PutCall& { return first_to_stay(group, i); });
        return !group.lone() ? many_ : table.distributed ? distributed_.of(group) : one_;
    }

    bool wants_other_form(const Group& group, const pg::Statement& sent,
                          const pg::Rows& rows) const noexcept override {
        return distributed_.goes_on(group, sent, rows);
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const StoredRows stored(group, rows, table.sizes);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            const ConditionalPutCall* const winner = &first_to_stay(group, number);
            bool comes_first = true;  // those before it had expired when it came
            answer_stored<ConditionalPutCall>(group, number, stored.size(number), how,
                                              [&](const ConditionalPutCall& call) {
                                                  const bool its = comes_first;
                                                  comes_first = comes_first && &call != winner;
                                                  return its && stored.stored(number);
                                              });
        }
    }

    static constexpr std::string_view conflict =
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at"
        " WHERE t.expires_at <= statement_timestamp()";

  private:
    /// Stores where there is no row; else where it has expired; else it may have gone meanwhile.
    static std::array<std::string, 3> steps(const Table& table) {
        const std::string insert = concat(
            {"INSERT INTO ", table.name, " AS t (key, value, expires_at) VALUES ($1, $2, ",
             Table::expiry_of("$3"), ") ON CONFLICT (key) DO NOTHING", table.returning_unsized()});
        return {insert,
                concat({"UPDATE ", table.name,
                        " AS t SET value = $2, expires_at = ", Table::expiry_for_update("$3"),
                        " WHERE t.key = $1 AND t.expires_at <= statement_timestamp()",
                        table.returning_unsized()}),
                insert};
    }

    /// @returns the first call of a key whose entry does not expire at once; else the last one.
    static const ConditionalPutCall& first_to_stay(const Group& group, std::size_t number) {
        for (const ConditionalPutCall& call : group.calls<ConditionalPutCall>(number)) {
            if (call.ttl > Duration::zero()) {
                return call;
            }
        }
        return group.last<ConditionalPutCall>(number);
    }

    const pg::Statement one_;
    const Steps<3> distributed_;
    const pg::Statement many_;
};

struct WhereAbsent {
    using ItsCall = ConditionalPutCall;
    static constexpr Repeated repeated = Repeated::each;

    template <class Operations>
    static const Operation& plain(const Operations& operations) {
        return operations.put_if_absent;
    }
    template <class Operations>
    static const Operation& tagged(const Operations& operations) {
        return operations.put_if_absent_tagged;
    }
};

struct PutIfAbsentOne : ConditionalPut<WhereAbsent> {
    using ConditionalPut::ConditionalPut;
    static constexpr std::string_view name = "put_if_absent";
};

struct PutIfAbsentMany : ConditionalPutMany<WhereAbsent> {
    using ConditionalPutMany::ConditionalPutMany;
    static constexpr std::string_view name = "put_if_absent_many";
};

}  // namespace psycache::detail
