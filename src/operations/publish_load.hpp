#pragma once

#include "operations/conditional_put.hpp"
#include "operations/load_lease.hpp"
#include "operations/put_tagged.hpp"

namespace psycache::detail {

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
        : TableOperation(its_table, "publish_load", true,
                         Traits{.keys_apart = true, .by_key = !with_tags}),
          tagged_(with_tags),
          publish_(with_tags ? tagged(table) : concat({publish(table, "$6"), table.returning()}),
                   types(with_tags)),
          one_(publish_one(Table::expiry_of("$3::bigint"),
                           concat({" FROM ", Table::lock_limit("$6")}), table.returning()),
               types_of_one()),
          distributed_(
              publish_one(Table::expiry_for_update("$3::bigint"), "", table.returning_unsized()),
              types_of_one()) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        const auto call = [&](std::size_t i) -> const PublishCall& {
            return group.first<PublishCall>(i);
        };
        if (group.lone() && !tagged_) {
            add_entries(group, parameters, call);
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
        add_entry_arrays(group, parameters, call);
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
    std::string publish_one(std::string_view expiry, std::string_view joined,
                            std::string_view returning) const {
        return concat({"UPDATE ", table.name, " AS t SET value = $2, expires_at = ", expiry, joined,
                       " WHERE t.key = $1 AND t.expires_at = $5"
                       " AND ($4::jsonb IS NULL OR t.value = $4)",
                       returning});
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

struct WhereUnchanged {
    using ItsCall = PublishCall;
};

struct PublishOne : PutOne<WhereUnchanged> {
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
