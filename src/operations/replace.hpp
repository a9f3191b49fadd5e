#pragma once

#include "operations/conditional_put.hpp"

namespace psycache::detail {

/// Stores entries where one is live. Of several with one key the last one counts, and all of them
/// hear whether there was an entry; one that expires it at once is the last.
class Replace final : public TableOperation {
  public:
    explicit Replace(const Table& its_table)
        : TableOperation(its_table, "replace", true),
          one_(concat({"UPDATE ", table.name,
                       " AS t SET value = $2, expires_at = ", Table::expiry_of("$3::bigint"),
                       " FROM ", Table::lock_limit("$4"), one_live, table.returning()}),
               {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text}),
          distributed_(
              concat({"UPDATE ", table.name, " AS t SET value = $2, expires_at = ",
                      Table::expiry_for_update("$3"), one_live, table.returning_unsized()}),
              {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text}),
          many_(concat({table.live_keys("$1", "$4"), " UPDATE ", table.name,
                        " AS t SET value = e.v, expires_at = ", Table::expiry_of("e.ttl"),
                        " FROM live JOIN unnest($1::text[], $2::jsonb[], $3::bigint[])"
                        " AS e(k, v, ttl) ON e.k = live.key WHERE t.key = live.key",
                        table.returning()}),
                {pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::int8_array, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        add_entries(group, parameters, [&](std::size_t i) -> const PutCall& {
            return last_live<ConditionalPutCall>(group, i);
        });
        return !group.lone() ? many_ : table.distributed ? distributed_ : one_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const StoredRows stored(group, rows, table.sizes);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            const ConditionalPutCall* const last = &last_live<ConditionalPutCall>(group, number);
            bool live = stored.stored(number);
            answer_stored<ConditionalPutCall>(group, number, stored.size(number), how,
                                              [&](const ConditionalPutCall& call) {
                                                  const bool its = live;
                                                  live = live && &call != last;
                                                  return its;
                                              });
        }
    }

  private:
    static constexpr std::string_view one_live =
        " WHERE t.key = $1 AND t.expires_at > statement_timestamp()";

    const pg::Statement one_;
    const pg::Statement distributed_;
    const pg::Statement many_;
};

struct WhereLive {
    using ItsCall = ConditionalPutCall;
    static constexpr Repeated repeated = Repeated::each;

    template <class Operations>
    static const Operation& plain(const Operations& operations) {
        return operations.replace;
    }
    template <class Operations>
    static const Operation& tagged(const Operations& operations) {
        return operations.replace_tagged;
    }
};

struct ReplaceOne : ConditionalPut<WhereLive> {
    using ConditionalPut::ConditionalPut;
    static constexpr std::string_view name = "replace";
};

struct ReplaceMany : ConditionalPutMany<WhereLive> {
    using ConditionalPutMany::ConditionalPutMany;
    static constexpr std::string_view name = "replace_many";
};

}  // namespace psycache::detail
