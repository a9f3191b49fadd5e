#pragma once

#include "operations/conditional_put.hpp"

namespace psycache::detail {

struct CompareAndPutCall final : ConditionalPutCall {
    CompareAndPutCall(const Operation& compare_and_put, std::string its_key, TimePoint until,
                      std::string its_expected, std::string its_jsonb, Duration its_ttl)
        : ConditionalPutCall(compare_and_put, std::move(its_key), until, std::move(its_jsonb),
                             its_ttl, its_expected.size()),
          expected(std::move(its_expected)) {}

    const std::string expected;
};

/// Stores entries where a live one has the value that its writer expects. Several with one key go
/// one after the other: what the later ones find depends on the first.
class CompareAndPut final : public TableOperation {
  public:
    explicit CompareAndPut(const Table& its_table)
        : TableOperation(its_table, "compare_and_put", true,
                         Traits{.replayable = false, .keys_apart = true}),
          one_(concat({"UPDATE ", table.name,
                       " AS t SET value = $3, expires_at = ", Table::expiry_of("$4::bigint"),
                       " FROM ", Table::lock_limit("$5"), one_expected, table.returning()}),
               one_types()),
          distributed_(
              concat({"UPDATE ", table.name, " AS t SET value = $3, expires_at = ",
                      Table::expiry_for_update("$4"), one_expected, table.returning_unsized()}),
              one_types()),
          many_(
              concat({"WITH expected AS (SELECT t.key, e.v, e.ttl FROM ", table.name,
                      " AS t JOIN unnest($1::text[], $2::jsonb[], $3::jsonb[], $4::bigint[])"
                      " AS e(k, x, v, ttl) ON e.k = t.key AND e.x = t.value, ",
                      Table::lock_limit("$5"),
                      " WHERE t.expires_at > statement_timestamp()"
                      " ORDER BY t.key COLLATE \"C\" FOR UPDATE OF t) UPDATE ",
                      table.name, " AS t SET value = e.v, expires_at = ", Table::expiry_of("e.ttl"),
                      " FROM expected AS e WHERE t.key = e.key", table.returning()}),
              {pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::jsonb_array, pg::Oid::int8_array,
               pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            const auto& call = group.first<CompareAndPutCall>(0);
            parameters.borrow(call.key);
            parameters.borrow(call.expected);
            parameters.borrow(call.jsonb);
            add_ttl(parameters, call.ttl);
            return table.distributed ? distributed_ : one_;
        }
        const auto call = [&](std::size_t i) -> const CompareAndPutCall& {
            return group.first<CompareAndPutCall>(i);
        };
        parameters.own(keys_of(group));
        parameters.own(
            values_of(group, [&](std::size_t i) -> std::string_view { return call(i).expected; }));
        parameters.own(
            values_of(group, [&](std::size_t i) -> std::string_view { return call(i).jsonb; }));
        parameters.own(ttls_of(group, [&](std::size_t i) { return call(i).ttl; }));
        return many_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const StoredRows stored(group, rows, table.sizes);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            answer_stored<CompareAndPutCall>(
                group, number, stored.size(number), how,
                [&](const CompareAndPutCall& /*call*/) { return stored.stored(number); });
        }
    }

  private:
    static std::vector<pg::Oid> one_types() {
        return {pg::Oid::text, pg::Oid::jsonb, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text};
    }
    static constexpr std::string_view one_expected =
        " WHERE t.key = $1 AND t.value = $2 AND t.expires_at > statement_timestamp()";

    const pg::Statement one_;
    const pg::Statement distributed_;
    const pg::Statement many_;
};

struct WhereEqual {
    using ItsCall = CompareAndPutCall;

    template <class Operations>
    static const Operation& plain(const Operations& operations) {
        return operations.compare_and_put;
    }
};

struct CompareAndPutOne : ConditionalPut<WhereEqual> {
    static constexpr std::string_view name = "compare_and_put";

    CompareAndPutOne(std::string its_key, Result<std::string> its_expected,
                     Result<std::string> its_jsonb, Duration its_ttl)
        : ConditionalPut(std::move(its_key), std::move(its_jsonb), its_ttl),
          expected(std::move(its_expected)) {}

    std::optional<Failure> mistake() const {
        auto wrong = ConditionalPut::mistake();
        if (!wrong && !expected) {
            wrong = expected.error();
            wrong->cause = "the expected value cannot be a stored one: " + wrong->cause;
        }
        return wrong;
    }
    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(std::make_shared<CompareAndPutCall>(Kind::plain(operations), std::move(key),
                                                            until, std::move(*expected),
                                                            std::move(*jsonb), ttl));
    }

    Result<std::string> expected;
};

}  // namespace psycache::detail
