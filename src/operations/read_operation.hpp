#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "operations/table.hpp"
#include "operations/value_call.hpp"

namespace psycache::detail {

/// An operation that looks up rows by their keys and changes nothing. Equal keys are asked for
/// once.
class ReadOperation : public TableOperation {
  public:
    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            parameters.borrow(group.key(0));
            return one_;
        }
        parameters.own(keys_of(group));
        return table.distributed ? distributed_ : many_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        // Rows come in no order, and none comes for a miss. Those of many keys begin with the
        // number of their key, or with the key.
        const std::size_t first = group.lone() ? 0 : 1;
        const bool names_keys = !group.lone() && rows.type(0) == pg::Oid::text;
        std::vector<bool> found(group.keys());
        for (std::size_t row = 0; row < rows.size(); ++row) {
            std::size_t number = 0;
            if (names_keys) {
                number = group.find(rows.bytes(row, 0)).value_or(group.keys());
            } else if (!group.lone()) {
                number = static_cast<std::size_t>(rows.integer(row, 0)) - 1;
            }
            if (number < group.keys() && !found[number]) {
                found[number] = true;
                answer_row(group, number, rows, row, first, how);
            }
        }
        for (std::size_t number = 0; number < group.keys(); ++number) {
            if (!found[number]) {
                answer_miss(group, number, how);
            }
        }
    }

  protected:
    /// In SQL, a condition for rows that are live.
    static constexpr std::string_view live = " AND t.expires_at > statement_timestamp()";

    /// @param columns   in SQL, of the row `t`.
    /// @param condition of the row; "" for any.
    ReadOperation(const Table& its_table, std::string_view its_name, std::string_view columns,
                  std::string_view condition)
        : TableOperation(its_table, its_name, false),
          one_(concat(
                   {"SELECT ", columns, " FROM ", table.name, " AS t WHERE t.key = $1", condition}),
               {pg::Oid::text}),
          many_(concat({"SELECT o.i, ", columns,
                        " FROM unnest($1::text[]) WITH ORDINALITY AS o(k, i) JOIN ", table.name,
                        " AS t ON t.key = o.k", condition}),
                {pg::Oid::text_array}),
          // Where a join asks every part of the table for every key.
          distributed_(concat({"SELECT t.key, ", columns, " FROM ", table.name,
                               " AS t WHERE t.key = ANY($1)", condition}),
                       {pg::Oid::text_array}) {}

  private:
    /// Answers the calls of a key with its row. @param first the place of the first column.
    virtual void answer_row(const Group& group, std::size_t number, const pg::Rows& rows,
                            std::size_t row, std::size_t first, Resume how) const = 0;

    const pg::Statement one_;
    const pg::Statement many_;
    const pg::Statement distributed_;
};

}  // namespace psycache::detail
