#pragma once

#include "operations/load_lease.hpp"

namespace psycache::detail {

/// In SQL, whether a row is a stub, and what ended leases tell.
inline constexpr std::string_view stub_of_one =
    " WHERE t.key = $1 AND t.value = $2 AND t.expires_at <= statement_timestamp()";
inline constexpr std::string_view stubs_of_many =
    " JOIN unnest($1::text[], $2::jsonb[], $3::bigint[]) AS e(k, stub, lease) ON e.k = held.key"
    " WHERE t.key = held.key AND t.value = e.stub AND t.expires_at <= statement_timestamp()";
inline constexpr std::string_view told_of_lease = " RETURNING t.key, t.expires_at";

/// Gives a lease back: takes its stub away.
class ReleaseLoad final : public LeaseOperation {
  public:
    explicit ReleaseLoad(const Table& its_table)
        : LeaseOperation(its_table, "release_load",
                         concat({held_rows(its_table, "$4"), " DELETE FROM ", its_table.name,
                                 " AS t USING held", stubs_of_many, told_of_lease}),
                         concat({"DELETE FROM ", its_table.name, " AS t USING ",
                                 Table::lock_limit("$4"), stub_of_one, no_lease, told_of_lease}),
                         {concat({"DELETE FROM ", its_table.name, " AS t", stub_of_one, no_lease,
                                  told_of_lease})}) {}

  private:
    // A parameter that is not used has no type.
    static constexpr std::string_view no_lease = " AND $3::bigint IS NOT NULL";
};

/// Lets a lease end after another time: a load has failed, and is not to be tried again at once.
class DeferLoad final : public LeaseOperation {
  public:
    explicit DeferLoad(const Table& its_table)
        : LeaseOperation(its_table, "release_load",
                         concat({held_rows(its_table, "$4"), " UPDATE ", its_table.name,
                                 " AS t SET expires_at = ", LoadLease::expiry_of("e.lease"),
                                 " FROM held", stubs_of_many, told_of_lease}),
                         concat({"UPDATE ", its_table.name,
                                 " AS t SET expires_at = ", LoadLease::expiry_of("$3::bigint"),
                                 " FROM ", Table::lock_limit("$4"), stub_of_one, told_of_lease}),
                         {concat({"UPDATE ", its_table.name, " AS t SET expires_at = ",
                                  LoadLease::expiry_of("$3"), stub_of_one, told_of_lease})}) {}
};

struct EndOne : LeaseRequest {
    using Value = bool;

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        const Operation& operation = lease > Duration::zero()
                                         ? static_cast<const Operation&>(operations.defer_load)
                                         : operations.release_load;
        calls.push_back(
            std::make_shared<LeaseCall>(operation, std::move(key), until, std::move(stub), lease));
    }
    static Value value(CallSpan calls, Counts& /*counts*/, Spans<Span>& /*spans*/) {
        return static_cast<const LeaseCall&>(*calls.front()).done;
    }
};

}  // namespace psycache::detail
