#pragma once

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
    /// @param plain the same where tables are distributed.
    LeaseOperation(const Table& its_table, std::string_view its_name, std::string many,
                   std::string one, std::string plain)
        : TableOperation(its_table, its_name, true, Traits{.keys_apart = true}),
          many_(std::move(many),
                {pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::int8_array, pg::Oid::text}),
          one_(std::move(one), {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text}),
          distributed_(std::move(plain),
                       {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            const auto& call = group.first<LeaseCall>(0);
            parameters.borrow(call.key);
            parameters.borrow(call.stub);
            parameters.int8(call.lease.count());
            return table.distributed ? distributed_ : one_;
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
    const pg::Statement distributed_;
};

/// Claims the right to load: leaves a stub where no entry is live and no other lease runs. One that
/// its owner has left already is its own, so that a claim may be sent once more.
class ClaimLoad final : public LeaseOperation {
  public:
    explicit ClaimLoad(const Table& its_table)
        : LeaseOperation(its_table, "claim_load", claim(its_table, "$4") + std::string(told),
                         concat({"INSERT INTO ", its_table.name,
                                 " AS t (key, value, expires_at) SELECT $1::text, $2::jsonb, ",
                                 LoadLease::expiry_of("$3::bigint"), " FROM ",
                                 Table::lock_limit("$4"), conflict(), told}),
                         concat({"INSERT INTO ", its_table.name,
                                 " AS t (key, value, expires_at) VALUES ($1, $2, ",
                                 LoadLease::expiry_of("$3"), ")", conflict(), told})) {}

    static std::string claim(const Table& table, std::string_view milliseconds) {
        return concat(
            {"INSERT INTO ", table.name, " AS t (key, value, expires_at) SELECT e.k, e.stub, ",
             LoadLease::expiry_of("e.lease"), " FROM ", Table::lock_limit(milliseconds),
             ", unnest($1::text[], $2::jsonb[], $3::bigint[]) AS e(k, stub, lease)", conflict()});
    }

  private:
    static constexpr std::string_view told = " RETURNING t.key, t.expires_at";
    static std::string conflict() {
        return concat(
            {" ON CONFLICT (key) DO UPDATE SET value = excluded.value,"
             " expires_at = excluded.expires_at"
             " WHERE t.expires_at <= statement_timestamp()"
             " AND (t.value = excluded.value OR NOT ",
             LoadLease::leased("t"), ")"});
    }
};

/// The same, with the tags of the entry that is to come: so remove_tag finds the stub, or the entry
/// that is renewed.
class ClaimLoadTagged final : public TableOperation {
  public:
    explicit ClaimLoadTagged(const Table& its_table)
        : TableOperation(its_table, "claim_load", true, Traits{.keys_apart = true}),
          claim_(concat({"WITH entries AS (", ClaimLoad::claim(table, "$7"),
                         " RETURNING t.key, t.expires_at), tagged AS (INSERT INTO ", table.tags,
                         " (tag, key, expires_at) SELECT g.tag, g.key, statement_timestamp()"
                         " + interval '1 day' FROM entries AS e"
                         " JOIN unnest($4::text[], $5::text[], $6::text[]) AS g(tag, stub, key)"
                         " ON g.stub = e.key ORDER BY g.key COLLATE \"C\", g.tag COLLATE \"C\""
                         " ON CONFLICT (tag, key) DO UPDATE SET expires_at = excluded.expires_at)"
                         " SELECT key, expires_at FROM entries"}),
                 {pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::int8_array,
                  pg::Oid::text_array, pg::Oid::text_array, pg::Oid::text_array, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        std::size_t count = 0;
        for (std::size_t i = 0; i < group.keys(); ++i) {
            count += group.first<LeaseCall>(i).tags->size();
        }
        pg::ArrayBuilder tags(pg::Oid::text, count);
        pg::ArrayBuilder stubs(pg::Oid::text, count);
        pg::ArrayBuilder tagged(pg::Oid::text, count);
        for (std::size_t i = 0; i < group.keys(); ++i) {
            const auto& call = group.first<LeaseCall>(i);
            for (const std::string& tag : *call.tags) {
                tags.add(tag);
                stubs.add(call.key);
                tagged.add(call.tagged);
            }
        }
        LeaseOperation::add_leases(group, parameters);
        parameters.own(tags.take());
        parameters.own(stubs.take());
        parameters.own(tagged.take());
        return claim_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        LeaseOperation::answer_leases(group, rows, how);
    }

  private:
    const pg::Statement claim_;
};

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
                         concat({"DELETE FROM ", its_table.name, " AS t", stub_of_one, no_lease,
                                 told_of_lease})) {}

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
                         concat({"UPDATE ", its_table.name, " AS t SET expires_at = ",
                                 LoadLease::expiry_of("$3"), stub_of_one, told_of_lease})) {}
};

/// A value that was loaded, to be stored where nothing has changed since the lease was claimed.
struct PublishCall final : ConditionalPutCall {
    /// @param its_stub that is in the place of the entry; "" where the entry is renewed.
    PublishCall(const Operation& publish, std::string its_key, TimePoint until,
                std::string its_jsonb, Duration its_ttl, std::string its_stub,
                std::int64_t its_version, Tags its_tags)
        : ConditionalPutCall(publish, std::move(its_key), until, std::move(its_jsonb), its_ttl),
          stub(std::move(its_stub)),
          version(its_version),
          tags(std::move(its_tags)) {}

    const std::string stub;
    const std::int64_t version;  // the expiry that the row must have
    const Tags tags;
};

/// Stores what was loaded, if the row is what it was: a late answer undoes no later change.
class PublishLoad final : public TableOperation {
  public:
    PublishLoad(const Table& its_table, bool with_tags)
        : TableOperation(its_table, "publish_load", true, Traits{.keys_apart = true}),
          tagged_(with_tags),
          publish_(with_tags ? tagged(table) : concat({publish(table, "$6"), table.returning()}),
                   types(with_tags)),
          one_(publish_one(concat({" FROM ", Table::lock_limit("$6")})), types_of_one()),
          distributed_(publish_one(""), types_of_one()) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        const auto call = [&](std::size_t i) -> const PublishCall& {
            return group.first<PublishCall>(i);
        };
        if (group.lone() && !tagged_) {
            parameters.borrow(call(0).key);
            parameters.borrow(call(0).jsonb);
            add_ttl(parameters, call(0).ttl);
            if (call(0).stub.empty()) {
                parameters.null();
            } else {
                parameters.borrow(call(0).stub);
            }
            parameters.int8(call(0).version);
            return table.distributed ? distributed_ : one_;
        }
        pg::ArrayBuilder stubs(pg::Oid::jsonb, group.keys());
        pg::ArrayBuilder versions(pg::Oid::timestamptz, group.keys());
        for (std::size_t i = 0; i < group.keys(); ++i) {
            if (call(i).stub.empty()) {
                stubs.add_null();
            } else {
                stubs.add(call(i).stub);
            }
            versions.add_int8(call(i).version);
        }
        parameters.own(keys_of(group));
        parameters.own(
            values_of(group, [&](std::size_t i) -> std::string_view { return call(i).jsonb; }));
        parameters.own(ttls_of(group, [&](std::size_t i) { return call(i).ttl; }));
        parameters.own(stubs.take());
        parameters.own(versions.take());
        if (tagged_) {
            add_tags<PublishCall>(group, parameters);
        }
        return publish_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const StoredRows stored(group, rows, table.sizes);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            answer_stored<ConditionalPutCall>(
                group, number, stored.size(number), how,
                [&](const ConditionalPutCall& /*call*/) { return stored.stored(number); });
        }
    }

  private:
    static std::string publish(const Table& table, std::string_view milliseconds) {
        return concat({held_rows(table, milliseconds), " UPDATE ", table.name,
                       " AS t SET value = e.v, expires_at = ", Table::expiry_of("e.ttl"), from});
    }
    static std::string tagged(const Table& table) {
        return concat({held_rows(table, "$8"), ", entries AS (UPDATE ", table.name,
                       " AS t SET value = e.v, expires_at = ", Table::expiry_of("e.ttl"), from,
                       " RETURNING t.key, t.expires_at",
                       table.sizes ? ", pg_column_size(t.value) AS size" : "", ")",
                       store_tags(table, "key", "$6", "$7")});
    }
    /// @param joined with what.
    std::string publish_one(std::string_view joined) const {
        return concat({"UPDATE ", table.name, " AS t SET value = $2, expires_at = ",
                       Table::expiry_of("$3::bigint"), joined,
                       " WHERE t.key = $1 AND t.expires_at = $5"
                       " AND ($4::jsonb IS NULL OR t.value = $4)",
                       table.returning()});
    }
    static std::vector<pg::Oid> types_of_one() {
        return {pg::Oid::text,  pg::Oid::jsonb,       pg::Oid::int8,
                pg::Oid::jsonb, pg::Oid::timestamptz, pg::Oid::text};
    }
    static std::vector<pg::Oid> types(bool with_tags) {
        std::vector<pg::Oid> types{pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::int8_array,
                                   pg::Oid::jsonb_array, pg::Oid::timestamptz_array};
        if (with_tags) {
            types.insert(types.end(), {pg::Oid::text_array, pg::Oid::text_array});
        }
        types.push_back(pg::Oid::text);
        return types;
    }
    static constexpr std::string_view from =
        " FROM held JOIN unnest($1::text[], $2::jsonb[], $3::bigint[], $4::jsonb[],"
        " $5::timestamptz[]) AS e(k, v, ttl, stub, version) ON e.k = held.key"
        " WHERE t.key = held.key AND t.expires_at = e.version"
        " AND (e.stub IS NULL OR t.value = e.stub)";

    const bool tagged_;
    const pg::Statement publish_;
    const pg::Statement one_;
    const pg::Statement distributed_;
};

// --- The calls that a load makes. None of them has a span of its own but the one that stores.

/// What calls on leases have in common.
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

/// How a claim has ended.
struct Claimed {
    enum class Answer {
        no,           ///< another one has the lease, or the entry is live
        yes,          ///< the lease is held
        out_of_reach  ///< the server cannot be asked, and OnOutage::miss says to do without
    };

    Answer answer = Answer::no;
    std::int64_t version = 0;  ///< the expiry of the stub
};

struct ClaimOne : LeaseRequest {
    using Value = Claimed;

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        const Operation& operation = tags == nullptr
                                         ? static_cast<const Operation&>(operations.claim_load)
                                         : operations.claim_load_tagged;
        calls.push_back(std::make_shared<LeaseCall>(
            operation, std::move(key), until, std::move(stub), lease, std::move(tagged), tags));
    }
    static Value value(CallSpan calls, Counts& /*counts*/, Spans<Span>& /*spans*/) {
        const auto& call = static_cast<const LeaseCall&>(*calls.front());
        return call.done ? Claimed{Claimed::Answer::yes, call.version} : Claimed();
    }
    static Value outage(Counts& /*counts*/) { return {Claimed::Answer::out_of_reach, 0}; }

    std::string tagged;
    Tags tags;
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

struct PublishOne : PutOne<WhereAbsent> {
    using Value = bool;
    static constexpr std::string_view name = "get_or_create";

    PublishOne(std::string its_key, std::string its_jsonb, Duration its_ttl, std::string its_stub,
               std::int64_t its_version, Tags its_tags)
        : PutOne(std::move(its_key), std::move(its_jsonb), its_ttl),
          stub(std::move(its_stub)),
          version(its_version),
          tags(std::move(its_tags)) {}

    static Spans<Span> open_spans_of(const Observers& observers, Keys keys, SpanName span_name) {
        return observers.empty() ? Spans<Span>(observers)
                                 : open_put_spans(observers, keys, span_name);
    }
    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        const Operation& operation =
            tags == nullptr ? operations.publish_load : operations.publish_load_tagged;
        calls.push_back(std::make_shared<PublishCall>(operation, std::move(key), until,
                                                      std::move(*jsonb), ttl, std::move(stub),
                                                      version, tags));
    }
    static Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        return told_whether_stored(*calls.front(), counts, spans);
    }
    static Value outage(Counts& counts) {
        ++counts.dropped_writes;
        return false;
    }

    std::string stub;
    std::int64_t version;
    Tags tags;
};

}  // namespace psycache::detail
