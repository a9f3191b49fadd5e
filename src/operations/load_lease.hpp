#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/duration.hpp>

#include "operations/put.hpp"
#include "operations/put_tagged.hpp"

namespace psycache::detail {

/// What is known of a key that a value may have to be loaded for.
struct Sight {
    enum class State {
        absent,       ///< no entry, or one that has expired
        live,         ///< an entry, fresh or stale
        leased,       ///< no entry, and another one holds the load lease
        out_of_reach  ///< the server cannot be asked, and OnOutage::miss says to do without
    };

    State state = State::absent;
    Duration left{0};  ///< until the entry, or the lease, ends; no_expiry for one without end
    std::int64_t version = 0;  ///< the expiry of the row, as the server writes it; 0 for no row
    std::size_t size = 0;      ///< the stored size of the value; 0 where it was not asked for
};

/// How the right to load a value is written into the table: as a *stub*, an entry that has expired
/// for every reader. Its expiry is the end of the lease, so far back that no time to live reaches
/// there by accident, and its value names the owner.
///
/// For a key without a live entry the stub is in the place of the entry: whatever removes or stores
/// the entry takes the stub away, and what was loaded before that is not stored. A live entry stays
/// where it is while it is renewed. Its stub is then under a key of its own, and its expiry is the
/// version by which the renewal sees whether it was changed meanwhile.
struct LoadLease {
    static constexpr Duration longest = std::chrono::hours(24);

    /// @returns in SQL, whether a row that has expired is a stub whose lease has not ended.
    static std::string leased(std::string_view row) {
        return concat({"(", row, ".expires_at > statement_timestamp() - ", shift, " AND ", row,
                       ".expires_at < statement_timestamp() - interval '999990 days' AND ", row,
                       ".value ? '", member, "')"});
    }
    /// @returns in SQL, the expiry of a stub whose lease ends in so many microseconds.
    static std::string expiry_of(std::string_view lease) {
        return concat({"statement_timestamp() + ", lease, " * interval '1 microsecond' - ", shift});
    }

    /// @param expiry of a row, @param now as the server has sent them. @param is_leased as above.
    static Sight sight(std::int64_t expiry, std::int64_t now, bool is_leased) {
        Sight sight;
        sight.version = expiry;
        if (expiry > now) {
            sight.state = Sight::State::live;
            sight.left = expiry == std::numeric_limits<std::int64_t>::max()
                             ? no_expiry
                             : Duration(expiry - now);
        } else if (is_leased) {
            sight.state = Sight::State::leased;
            sight.left = Duration(expiry - now + shift_microseconds);
        }
        return sight;
    }

    /// @returns the value of a stub, which no other owner writes.
    static std::string stub_of(std::string_view owner) {
        return concat(
            {std::string_view(&pg::jsonb_version, 1), "{\"", member, "\":\"", owner, "\"}"});
    }
    /// @returns the key of the stub of a live entry. It begins with a character that no sensible
    /// key begins with; keys of any length fit.
    static std::string key_for_renewal(std::string_view key);

  private:
    static constexpr std::string_view member = "psycache load lease";
    static constexpr std::string_view shift = "interval '1000000 days'";
    static constexpr std::int64_t shift_microseconds = std::int64_t{1'000'000} * 86'400 * 1'000'000;
};

/// In SQL, rows of an array of keys, locked in the order of the keys.
inline std::string held_rows(const Table& table, std::string_view milliseconds) {
    return concat({"WITH held AS (SELECT t.key FROM ", table.name, " AS t, ",
                   Table::lock_limit(milliseconds),
                   " WHERE t.key = ANY($1::text[]) ORDER BY t.key COLLATE \"C\" FOR UPDATE OF t)"});
}

/// A call of an operation on the lease of a key.
struct LeaseCall : Call {
    /// @param its_tags   none where nothing is tagged.
    LeaseCall(const Operation& its_operation, std::string its_key, TimePoint until,
              std::string its_stub, Duration its_lease, std::string the_tagged = {},
              Tags its_tags = {})
        : Call(its_operation, std::move(its_key), until, its_stub.size()),
          stub(std::move(its_stub)),
          lease(its_lease),
          tagged(std::move(the_tagged)),
          tags(std::move(its_tags)) {}

    const std::string stub;
    const Duration lease;
    const std::string tagged;  // the key of the entry that tags are for
    const Tags tags;
    bool done = false;         // whether it had an effect
    std::int64_t version = 0;  // the expiry of the stub
};

/// An operation on load leases. Calls of one key go one after the other.
class LeaseOperation : public TableOperation {
  public:
    /// @param many  in SQL, of arrays of keys, stubs and leases; its rows are key and expiry.
    /// @param one   the same of one key: however little the server knows of the table, it finds
    /// that
    ///              by the index.
    /// @param plain the same where tables are distributed, in steps; "" for no further one.
    LeaseOperation(const Table& its_table, std::string_view its_name, std::string many,
                   std::string one, std::array<std::string, 3> plain)
        : TableOperation(its_table, its_name, true, Traits{.keys_apart = true}),
          many_(std::move(many),
                {pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::int8_array, pg::Oid::text}),
          one_(std::move(one), {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text}),
          distributed_(std::move(plain),
                       {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text}) {}

    bool wants_other_form(const Group& group, const pg::Statement& sent,
                          const pg::Rows& rows) const noexcept override {
        return distributed_.goes_on(group, sent, rows);
    }

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            const auto& call = group.first<LeaseCall>(0);
            parameters.borrow(call.key);
            parameters.borrow(call.stub);
            parameters.int8(call.lease.count());
            return table.distributed ? distributed_.of(group) : one_;
        }
        add_leases(group, parameters);
        return many_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        answer_leases(group, rows, how);
    }

    /// Answers calls with rows of keys and expiries.
    static void answer_leases(const Group& group, const pg::Rows& rows, Resume how) {
        const auto row_of = rows_by_key(group, rows);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            for (LeaseCall& call : group.calls<LeaseCall>(number)) {
                call.answer(
                    [&] {
                        call.done = row_of[number].has_value();
                        call.version = call.done ? rows.integer(*row_of[number], 1) : 0;
                    },
                    how);
            }
        }
    }

    static void add_leases(const Group& group, pg::Parameters& parameters) {
        pg::ArrayBuilder leases(pg::Oid::int8, group.keys());
        for (std::size_t i = 0; i < group.keys(); ++i) {
            leases.add_int8(group.first<LeaseCall>(i).lease.count());
        }
        parameters.own(keys_of(group));
        parameters.own(values_of(group, [&](std::size_t i) -> std::string_view {
            return group.first<LeaseCall>(i).stub;
        }));
        parameters.own(leases.take());
    }

  private:
    const pg::Statement many_;
    const pg::Statement one_;
    const Steps<3> distributed_;
};

/// What the calls of a load on its lease have in common. They have no spans: only the call that
/// stores what was loaded has.
struct LeaseRequest {
    using Span = CachePutSpan;
    static constexpr bool writes = true;
    static constexpr std::string_view name = "get_or_create";

    static Spans<Span> open_spans_of(const Observers& observers, Keys /*keys*/,
                                     SpanName /*span_name*/) {
        return Spans<Span>(observers);
    }
    static std::optional<Failure> mistake() { return std::nullopt; }
    static Failure explain(Failure failure) { return failure; }

    std::string key;  // of the stub
    std::string stub;
    Duration lease{0};
};

}  // namespace psycache::detail
