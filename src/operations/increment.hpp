#pragma once

#include <array>
#include <limits>

#include "operations/put.hpp"

namespace psycache::detail {

struct IncrementCall final : Call {
    IncrementCall(const Operation& increment, std::string its_key, TimePoint until,
                  std::int64_t its_by, Duration its_ttl)
        : Call(increment, std::move(its_key), until), by(its_by), ttl(its_ttl) {}

    const std::int64_t by;
    const Duration ttl;
    std::int64_t count = 0;
    std::size_t size = 0;  // stored; 0 where it was not asked for
};

/// Adds to counters, and makes those that are not there. Several increments of one key are added up
/// on the way, and each hears what the counter was after it.
class Increment final : public TableOperation {
  public:
    explicit Increment(const Table& its_table)
        : TableOperation(its_table, "increment", true, Traits{.replayable = false}),
          one_(concat({"INSERT INTO ", table.name,
                       " AS t (key, value, expires_at) SELECT $1::text, to_jsonb($2::bigint), ",
                       Table::expiry_of("$3::bigint"), " FROM ", Table::lock_limit("$4"),
                       conflict(), returning()}),
               {pg::Oid::text, pg::Oid::int8, pg::Oid::int8, pg::Oid::text}),
          distributed_(steps(table), {pg::Oid::text, pg::Oid::int8, pg::Oid::int8, pg::Oid::text}),
          // As text: the sum of several may be none of 64 bits, which the server then says.
          many_(concat({"INSERT INTO ", table.name,
                        " AS t (key, value, expires_at) SELECT e.k, to_jsonb(e.n::bigint), ",
                        Table::expiry_of("e.ttl"), " FROM ", Table::lock_limit("$4"),
                        ", unnest($1::text[], $2::text[], $3::bigint[]) AS e(k, n, ttl)",
                        conflict(), returning()}),
                {pg::Oid::text_array, pg::Oid::text_array, pg::Oid::int8_array, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        if (group.lone()) {
            const auto& call = group.first<IncrementCall>(0);
            parameters.borrow(call.key);
            parameters.int8(call.by);
            add_ttl(parameters, call.ttl);
            return table.distributed ? distributed_.of(group) : one_;
        }
        pg::ArrayBuilder sums(pg::Oid::text, group.keys());
        for (std::size_t i = 0; i < group.keys(); ++i) {
            sums.add(text_of(sum_of(group, i)));
        }
        parameters.own(keys_of(group));
        parameters.own(sums.take());
        parameters.own(
            ttls_of(group, [&](std::size_t i) { return group.first<IncrementCall>(i).ttl; }));
        return many_;
    }

    bool wants_other_form(const Group& group, const pg::Statement& sent,
                          const pg::Rows& rows) const noexcept override {
        return distributed_.goes_on(group, sent, rows);
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const auto row_of = rows_by_key(group, rows);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            if (!row_of[number]) {
                for (Call& call : group.calls(number)) {
                    call.fail(Failure(Errc::unreadable_value,
                                      "the stored value is no integer of 64 bits, and was not "
                                      "changed"),
                              how);
                }
                continue;
            }
            const std::size_t row = *row_of[number];
            count_up(group, number, rows.integer(row, 1),
                     table.sizes ? static_cast<std::size_t>(rows.integer(row, 2)) : 0, how);
        }
    }

    Failure explain(Failure failure) const override {
        if (failure.sqlstate == "22003") {
            failure.code = Errc::counter_overflow;
            failure.cause = make_error_code(Errc::counter_overflow).message();
            return failure;
        }
        return TableOperation::explain(std::move(failure));
    }

  private:
    __extension__ using Sum = __int128;  // of 64 bits each, however many

    static constexpr std::string_view is_counter =
        "CASE WHEN jsonb_typeof(t.value) = 'number' THEN scale(t.value::numeric) = 0"
        " AND t.value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807"
        " ELSE false END";
    static std::string conflict() {
        return concat(
            {" ON CONFLICT (key) DO UPDATE SET value = CASE WHEN t.expires_at <="
             " statement_timestamp() THEN excluded.value"
             " ELSE to_jsonb(t.value::bigint + excluded.value::bigint) END,"
             " expires_at = CASE WHEN t.expires_at <= statement_timestamp() THEN"
             " excluded.expires_at ELSE t.expires_at END"
             " WHERE t.expires_at <= statement_timestamp() OR ",
             is_counter});
    }
    /// Counts up where a counter is live; else makes one where there is no row, or one that has
    /// expired; else one may have come meanwhile. What is no counter answers none of them.
    static std::array<std::string, 4> steps(const Table& table) {
        const std::string_view told = table.sizes ? " RETURNING t.key, t.value::bigint, 0"
                                                  : " RETURNING t.key, t.value::bigint";
        // The cast by way of text is immutable, as such a table wants it; to_jsonb() is not.
        const std::string count =
            concat({"UPDATE ", table.name,
                    " AS t SET value = (t.value::bigint + $2::bigint)::text::jsonb"
                    " WHERE t.key = $1 AND t.expires_at > statement_timestamp() AND ",
                    is_counter, told});
        return {count,
                concat({"INSERT INTO ", table.name,
                        " AS t (key, value, expires_at) VALUES ($1, $2::bigint::text::jsonb, ",
                        Table::expiry_of("$3"), ") ON CONFLICT (key) DO NOTHING", told}),
                concat({"UPDATE ", table.name,
                        " AS t SET value = $2::bigint::text::jsonb, expires_at = ",
                        Table::expiry_for_update("$3"),
                        " WHERE t.key = $1 AND t.expires_at <= statement_timestamp()", told}),
                count};
    }

    std::string_view returning() const noexcept {
        return table.sizes ? " RETURNING t.key, t.value::bigint, pg_column_size(t.value)"
                           : " RETURNING t.key, t.value::bigint";
    }

    static Sum sum_of(const Group& group, std::size_t number) {
        Sum sum = 0;
        for (const IncrementCall& call : group.calls<IncrementCall>(number)) {
            sum += call.by;
        }
        return sum;
    }

    static std::string text_of(Sum sum) {
        std::string digits;
        for (Sum left = sum; left != 0 || digits.empty(); left /= 10) {
            const int digit = static_cast<int>(left % 10);
            digits.insert(digits.begin(), static_cast<char>('0' + (digit < 0 ? -digit : digit)));
        }
        return sum < 0 ? "-" + digits : digits;
    }

    /// Answers the calls of a key in an order in which the counter never leaves its range. There is
    /// one, since it was in range before and is after: those that go up while it is below zero,
    /// those that go down while it is not.
    static void count_up(const Group& group, std::size_t number, std::int64_t after,
                         std::size_t size, Resume how) {
        Sum count = after - sum_of(group, number);
        std::vector<IncrementCall*> left;
        for (IncrementCall& call : group.calls<IncrementCall>(number)) {
            left.push_back(&call);
        }
        while (!left.empty()) {
            std::erase_if(left, [&](IncrementCall* call) {
                const Sum next = count + call->by;
                if (next < std::numeric_limits<std::int64_t>::min() ||
                    next > std::numeric_limits<std::int64_t>::max()) {
                    return false;
                }
                count = next;
                call->answer(
                    [&] {
                        call->count = static_cast<std::int64_t>(count);
                        call->size = size;
                    },
                    how);
                return true;
            });
        }
    }

    const pg::Statement one_;
    const Steps<4> distributed_;
    const pg::Statement many_;
};

/// @returns why a ttl cannot be that of a counter, if it cannot: one that expires at once would
/// count nothing.
inline std::optional<Failure> check_counter_ttl(Duration ttl) {
    if (ttl <= Duration::zero()) {
        return Failure(Errc::invalid_ttl, "the ttl of a counter must be positive");
    }
    return check_ttl(ttl);
}

/// Tells counters and spans of an increment. @returns the count.
inline std::int64_t told_count(const Call& settled, Counts& counts, Spans<CachePutSpan>& spans) {
    const auto& call = static_cast<const IncrementCall&>(settled);
    ++counts.puts;
    spans.record([&](CachePutSpan& span) { span.record_put(call.size); });
    return call.count;
}

/// An outage is never hidden: there is no count to answer with.
struct IncrementOne {
    using Span = CachePutSpan;
    static constexpr bool writes = true;
    using Value = std::int64_t;
    static constexpr std::string_view name = "increment";

    IncrementOne(std::string its_key, std::int64_t its_by, Duration its_ttl)
        : key(std::move(its_key)), by(its_by), ttl(its_ttl) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_put_spans(observers, key, span_name);
    }
    std::optional<Failure> mistake() const {
        auto wrong = check_key(key);
        return wrong ? wrong : check_counter_ttl(ttl);
    }
    Failure explain(Failure failure) const { return failure; }

    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(
            std::make_shared<IncrementCall>(operations.increment, std::move(key), until, by, ttl));
    }
    static Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        return told_count(*calls.front(), counts, spans);
    }

    std::string key;
    std::int64_t by;
    Duration ttl;
};

struct IncrementMany : Many<KeyedNumber> {
    using Span = CachePutSpan;
    static constexpr bool writes = true;
    using Value = std::vector<std::int64_t>;
    static constexpr std::string_view name = "increment_many";

    IncrementMany(std::vector<KeyedNumber>&& counters, Duration its_ttl)
        : Many(std::move(counters)), ttl(its_ttl) {}
    IncrementMany(const std::vector<KeyedNumber>& counters, Duration its_ttl)
        : Many(counters), ttl(its_ttl) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return observers.empty() ? Spans<Span>(observers)
                                 : open_put_spans(observers, keys(), span_name);
    }
    std::optional<Failure> mistake(std::size_t place) const {
        auto wrong = check_key(item(place).first);
        return wrong ? at_place(std::move(*wrong), "counter", place) : check_counter_ttl(ttl);
    }
    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        counts_.reserve(size());
        make_slice(calls, Repeated::each, [&](const KeyedNumber& counter) {
            return std::make_shared<IncrementCall>(operations.increment, counter.first, until,
                                                   counter.second, ttl);
        });
    }
    void take(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        take_slice<IncrementCall>(calls, [&](const IncrementCall& call, std::size_t /*place*/) {
            counts_.push_back(told_count(call, counts, spans));
        });
    }
    Value value(Spans<Span>& /*spans*/) { return std::move(counts_); }
    bool drop(std::size_t count) { return drop_items(count); }
    static bool drop_answers(std::size_t /*count*/) { return false; }

    Duration ttl;

  private:
    Value counts_;
};

}  // namespace psycache::detail
