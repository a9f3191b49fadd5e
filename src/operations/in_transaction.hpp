#pragma once

#include <algorithm>
#include <boost/json/object.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/observers.hpp"
#include "operations/checks.hpp"
#include "operations/put.hpp"
#include "operations/remove_prefix.hpp"
#include "operations/remove_tag.hpp"
#include "operations/table.hpp"
#include "values/json_codec.hpp"
#include "values/utf8.hpp"

namespace psycache::detail {

/// The statements of calls inside of a transaction that the application has open.
///
/// They set nothing: what a cache's own writes set for their statement, `lock_timeout`, would last
/// to the end of a larger transaction. So they wait for locked rows as any statement does. Those of
/// one key are the simple ones that servers with distributed tables take.
struct TransactionStatements {
    /// @param with_sizes whether gets and puts also ask for the stored size.
    TransactionStatements(const std::optional<std::string>& schema, bool with_sizes)
        : table(schema, with_sizes, std::chrono::milliseconds::zero()),
          get(concat({"SELECT value", with_sizes ? ", pg_column_size(value)" : "", " FROM ",
                      table.name, " WHERE key = $1 AND expires_at > statement_timestamp()"}),
              {pg::Oid::text}),
          put(upsert(with_sizes ? " RETURNING pg_column_size(value)" : ""),
              {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8}),
          put_tagged(
              concat({"WITH stored AS (",
                      upsert(" RETURNING key, expires_at, pg_column_size(value) AS size"),
                      "), tagged AS (INSERT INTO ", table.tags,
                      " (tag, key, expires_at) SELECT t.tag, stored.key, ",
                      Table::look_after("stored.expires_at"),
                      " FROM stored, unnest($4::text[]) AS t(tag) ORDER BY t.tag COLLATE \"C\""
                      " ON CONFLICT (tag, key) DO UPDATE SET expires_at = excluded.expires_at)"
                      " SELECT size FROM stored"}),
              {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text_array}),
          remove(concat({"DELETE FROM ", table.name, " WHERE key = $1"}), {pg::Oid::text}),
          remove_prefix(concat({"DELETE FROM ", table.name, " WHERE key LIKE $1"}),
                        {pg::Oid::text}),
          remove_tag(
              concat({"WITH doomed AS MATERIALIZED (SELECT key, xmin AS version FROM ", table.tags,
                      " WHERE tag = $1), held AS (SELECT t.key FROM ", table.name,
                      " AS t JOIN doomed ON doomed.key = t.key ORDER BY t.key COLLATE \"C\""
                      " FOR UPDATE OF t), gone AS (DELETE FROM ",
                      table.name,
                      " AS t USING held WHERE t.key = held.key RETURNING 1),"
                      " untagged AS (DELETE FROM ",
                      table.tags,
                      " AS g USING doomed WHERE g.tag = $1 AND g.key = doomed.key"
                      " AND g.xmin = doomed.version)"
                      " SELECT count(*) FROM gone"}),
              {pg::Oid::text}) {}

    const Table table;
    const pg::Statement get;            ///< key -> value, and size if asked for; no row is a miss
    const pg::Statement put;            ///< key, value, ttl -> size if asked for
    const pg::Statement put_tagged;     ///< key, value, ttl, table.tags, each once -> size
    const pg::Statement remove;         ///< key -> affected rows
    const pg::Statement remove_prefix;  ///< pattern -> affected rows
    /// Tag -> how many entries. The row of a tag goes only in the version that the statement saw:
    /// one that is put meanwhile, of an entry that it did not see, stays. That is told by xmin: a
    /// condition on it is evaluated again for a new version of a row, one on ctid may not be.
    const pg::Statement remove_tag;

  private:
    std::string upsert(std::string_view returning) const {
        return concat({"INSERT INTO ", table.name, " (key, value, expires_at) VALUES ($1, $2, ",
                       Table::expiry_of("$3"),
                       ") ON CONFLICT (key) DO UPDATE SET value = excluded.value,"
                       " expires_at = excluded.expires_at",
                       returning});
    }
};

/// Says of a table that is missing that it may be the one that tags need.
inline Failure explain_tags(Failure failure, const TransactionStatements& statements) {
    if (failure.code == Errc::table_missing) {
        failure.cause = "table " + statements.table.tags + " or " + statements.table.name +
                        " does not exist: run init_db with TableOptions::tags or \"psycache "
                        "init-db --tags\" for their schema";
        return failure;
    }
    return statements.table.explain(std::move(failure));
}

// The requests: what src/transaction/perform.hpp lists.

/// Looks up a key, whatever its value is to the caller.
struct GetInside {
    using Span = CacheGetSpan;
    static constexpr std::string_view operation = "get";

    explicit GetInside(std::string its_key) : key(std::move(its_key)) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_get_spans(observers, key, span_name);
    }
    std::optional<Failure> mistake() const { return check_lookup_key(key); }
    const pg::Statement& bind(const TransactionStatements& statements,
                              pg::Parameters& parameters) const {
        parameters.borrow(key);
        return statements.get;
    }
    static Failure explain(Failure failure, const TransactionStatements& statements) {
        return statements.table.explain(std::move(failure));
    }
    static void tell(Spans<Span>& spans, const pg::Rows& rows, bool with_sizes) {
        if (rows.size() == 0) {
            spans.record([](Span& span) { span.record_cache_miss(); });
            return;
        }
        const auto size = with_sizes ? static_cast<std::size_t>(rows.integer(0, 1)) : 0;
        spans.record([&](Span& span) { span.record_cache_hit(size); });
    }

    std::string key;
};

struct GetRawInside : GetInside {
    using GetInside::GetInside;
    using Value = std::optional<boost::json::object>;
    static constexpr std::string_view name = "get_raw";

    static Result<Value> read(const pg::Rows& rows) {
        if (rows.size() == 0) {
            return Value();
        }
        Result<boost::json::value> value = decode_jsonb(rows.bytes(0, 0));
        if (!value) {
            return value.error();
        }
        if (!value->is_object()) {
            return no_object_failure();
        }
        return Value(std::move(value->get_object()));
    }
};

/// The value goes to where the caller's type reads it.
struct GetTypedInside : GetInside {
    using Value = bool;
    static constexpr std::string_view name = "get";

    GetTypedInside(std::string its_key, ValueReader its_reader)
        : GetInside(std::move(its_key)), reader(its_reader) {}

    Result<Value> read(const pg::Rows& rows) const {
        if (rows.size() == 0) {
            return false;
        }
        Result<boost::json::value> value = decode_jsonb(rows.bytes(0, 0));
        Failure failure = value ? read_into(reader, 0, std::move(*value)) : value.error();
        return failure.code ? Result<Value>(std::move(failure)) : Result<Value>(true);
    }

    ValueReader reader;
};

struct GetTextInside : GetInside {
    using GetInside::GetInside;
    using Value = std::optional<std::string>;
    static constexpr std::string_view name = "get_text";

    static Result<Value> read(const pg::Rows& rows) {
        if (rows.size() == 0) {
            return Value();
        }
        const std::string_view jsonb = rows.bytes(0, 0);
        if (jsonb.empty() || jsonb.front() != pg::jsonb_version) {
            return Failure(Errc::protocol_error);
        }
        return Value(jsonb.substr(1));
    }
};

/// Stores an entry with its tags, if it has any.
struct PutRawInside {
    using Span = CachePutSpan;
    using Value = void;
    static constexpr std::string_view operation = "put";
    static constexpr std::string_view name = "put_raw";

    PutRawInside(std::string its_key, Result<std::string> its_jsonb, Duration its_ttl,
                 std::vector<std::string> its_tags)
        : key(std::move(its_key)),
          jsonb(std::move(its_jsonb)),
          ttl(its_ttl),
          tags(std::move(its_tags)) {
        // One statement cannot write a row twice.
        std::sort(tags.begin(), tags.end());
        tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
    }

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_put_spans(observers, key, span_name);
    }
    std::optional<Failure> mistake() const {
        std::optional<Failure> mistake = check_put(key, jsonb, ttl);
        return mistake ? mistake : check_tags(tags, key);
    }
    const pg::Statement& bind(const TransactionStatements& statements,
                              pg::Parameters& parameters) const {
        parameters.borrow(key);
        parameters.borrow(*jsonb);
        add_ttl(parameters, ttl);
        if (tags.empty()) {
            return statements.put;
        }
        pg::ArrayBuilder array(pg::Oid::text, tags.size());
        for (const std::string& tag : tags) {
            array.add(tag);
        }
        parameters.own(array.take());
        return statements.put_tagged;
    }
    Failure explain(Failure failure, const TransactionStatements& statements) const {
        return tags.empty() ? statements.table.explain(std::move(failure))
                            : explain_tags(std::move(failure), statements);
    }
    static Result<void> read(const pg::Rows& /*rows*/) { return {}; }
    static void tell(Spans<Span>& spans, const pg::Rows& rows, bool with_sizes) {
        const auto size =
            with_sizes && rows.size() > 0 ? static_cast<std::size_t>(rows.integer(0, 0)) : 0;
        spans.record([&](Span& span) { span.record_put(size); });
    }

    std::string key;
    Result<std::string> jsonb;
    Duration ttl;
    std::vector<std::string> tags;
};

struct PutTypedInside : PutRawInside {
    using PutRawInside::PutRawInside;
    static constexpr std::string_view name = "put";
};

struct PutTextInside : PutRawInside {
    using PutRawInside::PutRawInside;
    static constexpr std::string_view name = "put_text";

    Failure explain(Failure failure, const TransactionStatements& statements) const {
        return explain_text(PutRawInside::explain(std::move(failure), statements));
    }
};

/// Deletes one entry.
struct RemoveOneInside {
    using Span = CacheRemoveSpan;
    using Value = bool;
    static constexpr std::string_view operation = "remove";
    static constexpr std::string_view name = "remove";

    explicit RemoveOneInside(std::string its_key) : key(std::move(its_key)) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_remove_spans(observers, key, span_name);
    }
    std::optional<Failure> mistake() const { return check_lookup_key(key); }
    const pg::Statement& bind(const TransactionStatements& statements,
                              pg::Parameters& parameters) const {
        parameters.borrow(key);
        return statements.remove;
    }
    static Failure explain(Failure failure, const TransactionStatements& statements) {
        return statements.table.explain(std::move(failure));
    }
    static Result<Value> read(const pg::Rows& rows) { return rows.affected() > 0; }
    static void tell(Spans<Span>& spans, const pg::Rows& /*rows*/, bool /*with_sizes*/) {
        spans.record([](Span& span) { span.record_removed(); });
    }

    std::string key;
};

struct RemovePrefixInside : RemovePrefixed {
    using RemovePrefixed::RemovePrefixed;
    using Value = std::uint64_t;
    static constexpr std::string_view operation = "remove_prefix";

    const pg::Statement& bind(const TransactionStatements& statements,
                              pg::Parameters& parameters) const {
        parameters.own(RemovePrefix::pattern(prefix));
        return statements.remove_prefix;
    }
    static Failure explain(Failure failure, const TransactionStatements& statements) {
        return statements.table.explain(std::move(failure));
    }
    static Result<Value> read(const pg::Rows& rows) { return rows.affected(); }
    static void tell(Spans<Span>& spans, const pg::Rows& rows, bool /*with_sizes*/) {
        Invalidation::tell(spans, rows.affected());
    }
};

struct RemoveTagInside : RemoveTagged {
    using RemoveTagged::RemoveTagged;
    using Value = std::uint64_t;
    static constexpr std::string_view operation = "remove_tag";

    const pg::Statement& bind(const TransactionStatements& statements,
                              pg::Parameters& parameters) const {
        parameters.borrow(tag);
        return statements.remove_tag;
    }
    static Failure explain(Failure failure, const TransactionStatements& statements) {
        return explain_tags(std::move(failure), statements);
    }
    static Result<Value> read(const pg::Rows& rows) {
        return static_cast<Value>(rows.integer(0, 0));
    }
    static void tell(Spans<Span>& spans, const pg::Rows& rows, bool /*with_sizes*/) {
        Invalidation::tell(spans, *read(rows));
    }
};

}  // namespace psycache::detail
