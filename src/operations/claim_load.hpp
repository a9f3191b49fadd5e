#pragma once

#include <array>

#include "operations/load_lease.hpp"
#include "operations/put_tagged.hpp"

namespace psycache::detail {

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
                         steps(its_table)) {}

    static std::string claim(const Table& table, std::string_view milliseconds) {
        return concat(
            {"INSERT INTO ", table.name, " AS t (key, value, expires_at) SELECT e.k, e.stub, ",
             LoadLease::expiry_of("e.lease"), " FROM ", Table::lock_limit(milliseconds),
             ", unnest($1::text[], $2::jsonb[], $3::bigint[]) AS e(k, stub, lease)", conflict()});
    }

  private:
    static constexpr std::string_view told = " RETURNING t.key, t.expires_at";
    static std::string may_be_taken() {
        return concat({"t.expires_at <= statement_timestamp() AND (t.value = $2 OR NOT ",
                       LoadLease::leased("t"), ")"});
    }
    /// Leaves a stub where there is no row; else where none is live and leased; else it may have
    /// gone meanwhile.
    static std::array<std::string, 3> steps(const Table& table) {
        const std::string insert =
            concat({"INSERT INTO ", table.name, " AS t (key, value, expires_at) VALUES ($1, $2, ",
                    LoadLease::expiry_of("$3"), ") ON CONFLICT (key) DO NOTHING", told});
        return {insert,
                concat({"UPDATE ", table.name,
                        " AS t SET value = $2, expires_at = ", LoadLease::expiry_of("$3"),
                        " WHERE t.key = $1 AND ", may_be_taken(), told}),
                insert};
    }
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
        : TableOperation(its_table, "claim_load", true,
                         Traits{.keys_apart = true, .by_key = false}),
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

}  // namespace psycache::detail
