#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <psycache/entry.hpp>

#include "batching/call.hpp"
#include "core/counts.hpp"
#include "core/observers.hpp"
#include "operations/many.hpp"
#include "operations/table.hpp"
#include "values/json_codec.hpp"

namespace psycache::detail {

struct PutCall : Call {
    /// @param more how many bytes it sends beside key and value.
    PutCall(const Operation& put, std::string its_key, TimePoint until, std::string its_jsonb,
            Duration its_ttl, std::size_t more = 0)
        : Call(put, std::move(its_key), until, its_jsonb.size() + more),
          jsonb(std::move(its_jsonb)),
          ttl(its_ttl) {}

    const std::string jsonb;
    const Duration ttl;
    std::size_t size = 0;  // stored; 0 where it was not asked for
};

/// Adds the entries of a group as arrays. @param choose names the put that counts for a key.
template <class Choose>
void add_entry_arrays(const Group& group, pg::Parameters& parameters, Choose choose) {
    parameters.own(keys_of(group));
    parameters.own(
        values_of(group, [&](std::size_t i) -> std::string_view { return choose(i).jsonb; }));
    parameters.own(ttls_of(group, [&](std::size_t i) { return choose(i).ttl; }));
}
/// The same, or the entry of a lone call.
template <class Choose>
void add_entries(const Group& group, pg::Parameters& parameters, Choose choose) {
    if (!group.lone()) {
        return add_entry_arrays(group, parameters, choose);
    }
    const PutCall& call = group.first<PutCall>(0);
    parameters.borrow(call.key);
    parameters.borrow(call.jsonb);
    add_ttl(parameters, call.ttl);
}

/// The statements that store so many entries of a distributed table whose rows lie together: an
/// INSERT of VALUES, since one of a SELECT is committed in two phases. Made when they are needed.
///
/// Safe for several threads.
class PutsOnServer {
  public:
    PutsOnServer(std::string_view table, std::string_view conflict)
        : table_(table), conflict_(conflict) {}

    const pg::Statement& of(std::size_t entries) const {
        const std::lock_guard lock(mutex_);
        auto& statement = statements_[entries];
        if (!statement) {
            statement = make(entries);
        }
        return *statement;
    }

  private:
    std::unique_ptr<const pg::Statement> make(std::size_t entries) const {
        std::string sql = concat({"INSERT INTO ", table_, " (key, value, expires_at) VALUES "});
        std::vector<pg::Oid> types;
        for (std::size_t i = 0; i < entries; ++i) {
            const auto parameter = [&](std::size_t number) {
                return "$" + std::to_string(3 * i + number);
            };
            sql += concat({i == 0 ? "(" : ", (", parameter(1), ", ", parameter(2), ", ",
                           Table::expiry_of(parameter(3)), ")"});
            types.insert(types.end(), {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8});
        }
        types.push_back(pg::Oid::text);
        return std::make_unique<const pg::Statement>(sql + conflict_, std::move(types));
    }

    const std::string table_;
    const std::string conflict_;
    mutable std::mutex mutex_;
    mutable std::map<std::size_t, std::unique_ptr<const pg::Statement>> statements_;
};

/// Stores entries. Of several with one key the last one is stored, for all of them.
///
/// Where the server distributes tables the usual statements store nothing, which is how that is
/// found out: then there is one for each key, which asks for no size.
class Put final : public TableOperation {
  public:
    explicit Put(const Table& its_table)
        : TableOperation(its_table, "put", true),
          plain_(table, Table::undistributed),
          local_(table, table.is_local),
          distributed_(
              concat({"INSERT INTO ", table.name, " (key, value, expires_at) VALUES ($1, $2, ",
                      Table::expiry_of("$3"), ")", conflict}),
              {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.one_server() && !group.lone()) {
            for (std::size_t i = 0; i < group.keys(); ++i) {
                const PutCall& call = group.last<PutCall>(i);
                parameters.borrow(call.key);
                parameters.borrow(call.jsonb);
                add_ttl(parameters, call.ttl);
            }
            return on_server_.of(group.keys());
        }
        add_entries(group, parameters,
                    [&](std::size_t i) -> const PutCall& { return group.last<PutCall>(i); });
        const Guarded& guarded = table.local ? local_ : plain_;
        return !group.lone() ? guarded.many : table.distributed ? distributed_ : guarded.one;
    }

    bool wants_other_form(const Group& /*group*/, const pg::Statement& sent,
                          const pg::Rows& rows) const noexcept override {
        const bool guarded = plain_.is(sent) || local_.is(sent);
        const bool stored_nothing = guarded && rows.affected() == 0;
        if (stored_nothing) {
            table.distributed = true;
            table.local = false;
        }
        return stored_nothing;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        answer_puts(group, rows, table.sizes, how);
    }

    /// Answers calls of puts. @param sizes whether the rows are keys and stored sizes.
    static void answer_puts(const Group& group, const pg::Rows& rows, bool sizes, Resume how) {
        std::vector<std::size_t> found(sizes ? group.keys() : 0);
        for (std::size_t row = 0; row < rows.size() && sizes; ++row) {
            if (const auto number = group.find(rows.bytes(row, 0))) {
                found[*number] = static_cast<std::size_t>(rows.integer(row, 1));
            }
        }
        for (std::size_t number = 0; number < group.keys(); ++number) {
            const std::size_t size = sizes ? found[number] : 0;
            for (PutCall& call : group.calls<PutCall>(number)) {
                call.answer([&] { call.size = size; }, how);
            }
        }
    }

    static constexpr std::string_view conflict =
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value,"
        " expires_at = excluded.expires_at";

  private:
    bool shares_on_server() const noexcept override { return true; }

    /// The usual statements, which store nothing where a condition is not met.
    struct Guarded {
        Guarded(const Table& table, std::string_view guard)
            : one(concat({"INSERT INTO ", table.name,
                          " (key, value, expires_at) SELECT $1::text, $2::jsonb, ",
                          Table::expiry_of("$3::bigint"), " FROM ", Table::lock_limit("$4"),
                          " WHERE ", guard, conflict, returning(table)}),
                  {pg::Oid::text, pg::Oid::jsonb, pg::Oid::int8, pg::Oid::text}),
              many(
                  concat({"INSERT INTO ", table.name, " (key, value, expires_at) SELECT e.k, e.v, ",
                          Table::expiry_of("e.ttl"), " FROM ", Table::lock_limit("$4"),
                          ", unnest($1::text[], $2::jsonb[], $3::bigint[]) AS e(k, v, ttl) WHERE ",
                          guard, conflict, returning(table)}),
                  {pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::int8_array, pg::Oid::text}) {
        }

        bool is(const pg::Statement& statement) const noexcept {
            return &statement == &one || &statement == &many;
        }
        static std::string_view returning(const Table& table) {
            return table.sizes ? " RETURNING key, pg_column_size(value)" : "";
        }

        const pg::Statement one;
        const pg::Statement many;
    };

    const Guarded plain_;
    const Guarded local_;              // where the server distributes other tables
    const pg::Statement distributed_;  // of one key of a table that is distributed
    const PutsOnServer on_server_{table.name, conflict};  // of many keys that lie together
};

/// @returns what is wrong with an entry, if anything.
inline std::optional<Failure> check_put(std::string_view key, const Result<std::string>& jsonb,
                                        Duration ttl) {
    std::optional<Failure> mistake = check_key(key);
    if (!mistake) {
        mistake = check_ttl(ttl);
    }
    if (!mistake && !jsonb) {
        mistake = jsonb.error();
    }
    return mistake;
}

/// Tells counters and spans of entries that were stored.
inline void record_puts(CallSpan calls, Counts& counts, Spans<CachePutSpan>& spans) {
    for (const auto& call : calls) {
        ++counts.puts;
        spans.record(
            [&](CachePutSpan& span) { span.record_put(static_cast<const PutCall&>(*call).size); });
    }
}

/// The two operations of a put, of which the second one gives entries tags, and their calls.
struct Overwriting {
    using ItsCall = PutCall;
    static constexpr Repeated repeated = Repeated::last;

    template <class Operations>
    static const Operation& plain(const Operations& operations) {
        return operations.put;
    }
    template <class Operations>
    static const Operation& tagged(const Operations& operations) {
        return operations.put_tagged;
    }
};

/// What puts of one entry have in common. What the value was made of is not needed any more.
template <class ItsKind>
struct PutOne {
    using Kind = ItsKind;
    using Span = CachePutSpan;
    static constexpr bool writes = true;

    PutOne(std::string its_key, Result<std::string> its_jsonb, Duration its_ttl)
        : key(std::move(its_key)), jsonb(std::move(its_jsonb)), ttl(its_ttl) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_put_spans(observers, key, span_name);
    }
    std::optional<Failure> mistake() const { return check_put(key, jsonb, ttl); }
    Failure explain(Failure failure) const { return failure; }

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(std::make_shared<typename Kind::ItsCall>(
            Kind::plain(operations), std::move(key), until, std::move(*jsonb), ttl));
    }

    std::string key;
    Result<std::string> jsonb;
    Duration ttl;
};

struct PutRaw : PutOne<Overwriting> {
    using PutOne::PutOne;
    using Value = void;
    static constexpr std::string_view name = "put_raw";

    static void value(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        record_puts(calls, counts, spans);
    }
    void outage(Counts& counts) const { ++counts.dropped_writes; }
};

struct PutTyped : PutRaw {
    using PutRaw::PutRaw;
    static constexpr std::string_view name = "put";
};

struct PutText : PutRaw {
    using PutRaw::PutRaw;
    static constexpr std::string_view name = "put_text";

    Failure explain(Failure failure) const { return explain_text(std::move(failure)); }
};

/// What puts of many entries have in common. @tparam Request derives from it, and has
/// `ttl_of(item)`.
template <class Request, class ItsKind, class Item>
struct PutItems : Many<Item> {
    using Kind = ItsKind;
    using Span = CachePutSpan;
    static constexpr bool writes = true;
    using Base = Many<Item>;
    using Base::Base;

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return observers.empty() ? Spans<Span>(observers)
                                 : open_put_spans(observers, Base::keys(), span_name);
    }
    /// A value is written twice, here and to be sent: all must be right before the first is sent,
    /// and what is written of all takes more room than time.
    std::optional<Failure> mistake(std::size_t place) const {
        const Item& item = Base::item(place);
        auto wrong = check_put(item.key, encode_jsonb(item.value), self().ttl_of(item));
        return wrong ? at_place(std::move(*wrong), "entry", place) : wrong;
    }
    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        make_puts<typename Kind::ItsCall>(Kind::plain(operations), until, calls);
    }
    bool drop(std::size_t count) { return Base::drop_items(count); }
    static bool drop_answers(std::size_t /*count*/) { return false; }

  protected:
    /// @param more what a call takes beside the entry.
    template <class ItsCall, class ItsCalls, class... More>
    void make_puts(const Operation& put, TimePoint until, ItsCalls& calls, const More&... more) {
        Base::make_slice(calls, Kind::repeated, [&](const Item& item) {
            Result<std::string> jsonb = encode_jsonb(item.value);
            return std::make_shared<ItsCall>(put, item.key, until, std::move(*jsonb),
                                             self().ttl_of(item), more...);
        });
    }

  private:
    const Request& self() const noexcept { return static_cast<const Request&>(*this); }
};

/// Those that store whatever is there.
template <class Request, class Item>
struct OverwriteItems : PutItems<Request, Overwriting, Item> {
    using Base = PutItems<Request, Overwriting, Item>;
    using Base::Base;
    using Span = CachePutSpan;
    using Value = void;

    void take(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        record_puts(calls, counts, spans);
        Base::template take_slice<PutCall>(calls, [](PutCall&, std::size_t) {});
    }
    static void value(Spans<Span>& /*spans*/) {}
    void outage(Counts& counts) const { counts.dropped_writes += Base::size() - Base::answered(); }
};

struct PutRawMany : OverwriteItems<PutRawMany, Entry> {
    using OverwriteItems::OverwriteItems;
    static constexpr std::string_view name = "put_raw_many";

    static Duration ttl_of(const Entry& entry) noexcept { return entry.ttl; }
};

struct PutMany : OverwriteItems<PutMany, KeyedValue> {
    static constexpr std::string_view name = "put_many";

    PutMany(std::vector<KeyedValue>&& entries, Duration its_ttl)
        : OverwriteItems(std::move(entries)), ttl(its_ttl) {}
    PutMany(const std::vector<KeyedValue>& entries, Duration its_ttl)
        : OverwriteItems(entries), ttl(its_ttl) {}

    Duration ttl_of(const KeyedValue& /*entry*/) const noexcept { return ttl; }

    Duration ttl;
};

}  // namespace psycache::detail
