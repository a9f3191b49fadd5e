#pragma once

#include <boost/container/small_vector.hpp>
#include <functional>

#include "batching/call.hpp"
#include "pg/parameters.hpp"
#include "pg/rows.hpp"
#include "statements/table_statements.hpp"

namespace psycache {

/// Calls of one kind as one statement: which one, its parameters, and which call gets what of the
/// answer. No I/O.
class GroupStatement {
  public:
    /// @param calls      not empty, of one kind; they are borrowed as long as this lives. They are
    /// sorted by key: equal keys are asked for once;
    ///                   of several puts of a key the last one is stored, for all of them.
    /// @param lock_limit how long a write waits for a locked row; more than zero.
    GroupStatement(const TableStatements& statements, CallSpan calls,
                   std::chrono::milliseconds lock_limit);

    const pg::Statement& statement() const noexcept { return *statement_; }
    const pg::Parameters& parameters() const noexcept { return parameters_; }

    /// Takes the answer of one call, by its place among those that were given.
    using Deliver = std::function<void(std::size_t, Result<CallAnswer>&&)>;

    /// Hands over the answer of each call.
    void answer(const pg::Rows& rows, const Deliver& deliver) const;

  private:
    void sort();
    void one(const Call& call);
    void many();
    void answer_get(const pg::Rows& rows, const Deliver& deliver) const;
    void answer_gets(const pg::Rows& rows, const Deliver& deliver) const;
    void answer_puts(const pg::Rows& rows, const Deliver& deliver) const;
    void answer_removes(const pg::Rows& rows, const Deliver& deliver) const;

    /// Calls with the same key: [begin, end) of order_.
    struct Run {
        std::size_t begin;
        std::size_t end;
    };

    const Call& at(std::size_t position) const { return *calls_[order_[position]]; }
    const Run* find(std::string_view key) const;

    const TableStatements& statements_;
    const CallSpan calls_;
    const CallKind kind_;
    // Room for a lone call without allocating.
    boost::container::small_vector<std::size_t, 1> order_;  // of calls_, by key, then as they came
    boost::container::small_vector<Run, 1> runs_;
    const pg::Statement* statement_ = nullptr;
    pg::Parameters parameters_;
};

}  // namespace psycache
