#pragma once

#include <string_view>

#include "core/failure.hpp"
#include "core/waiting.hpp"
#include "pg/connection.hpp"

namespace psycache::detail {

class Group;
struct LockSight;

/// A kind of call, as batching sees it: calls of one operation share statements.
///
/// Safe for several threads: it has no state but its statements.
class Operation {
  public:
    /// What is particular about a write.
    struct Traits {
        bool replayable = true;   ///< done twice is as done once, but for what later writers did
        bool keys_apart = false;  ///< two calls of one key cannot share a statement
        bool by_key = true;       ///< it works on the row of its key alone
    };

    /// @param its_name as StatementInfo has it; a literal.
    /// @param does_write whether it may change rows: then its last parameter, which batching adds,
    ///                   says for how many milliseconds it waits for a locked row.
    Operation(std::string_view its_name, bool does_write) : Operation(its_name, does_write, {}) {}
    Operation(std::string_view its_name, bool does_write, Traits its_traits)
        : name(its_name), writes(does_write), traits(its_traits) {}
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;
    virtual ~Operation() = default;

    /// Puts the arguments of a group's calls into @p parameters, which borrow from the calls.
    /// @returns the statement for them.
    virtual const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const = 0;

    /// Answers every call of the group with what it has in the rows.
    virtual void answer(const Group& group, const pg::Rows& rows, Resume how) const = 0;

    /// @param one_server whether their rows lie together on a server to which they are sent.
    /// @returns whether calls may share a statement, as far as is known.
    virtual bool shares(bool /*one_server*/) const noexcept { return true; }

    /// @returns whether good rows say that a statement of bind() had the wrong form, or was a step
    /// of several, and did nothing: then its calls are sent again, and bind() knows better.
    virtual bool wants_other_form(const Group& /*group*/, const pg::Statement& /*sent*/,
                                  const pg::Rows& /*rows*/) const noexcept {
        return false;
    }

    /// @returns the failure, in the terms of the table that the operation works on.
    virtual Failure explain(Failure failure) const = 0;

    /// @returns a statement that looks, for an array of keys, which of their rows are locked, and
    /// waits for none of them.
    virtual const pg::Statement& looks_for_locks() const = 0;
    /// @returns what the rows of that statement say.
    virtual LockSight lock_sight(const pg::Rows& rows) const = 0;

    const std::string_view name;
    const bool writes;
    const Traits traits;
};

}  // namespace psycache::detail
