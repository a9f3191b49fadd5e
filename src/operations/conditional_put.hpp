#pragma once

#include "operations/put.hpp"

namespace psycache::detail {

/// A put that stores only where a condition holds.
struct ConditionalPutCall : PutCall {
    using PutCall::PutCall;
    bool stored = false;
};

/// Answers the calls of a key one by one. @param which says, of one of them, whether it has stored.
template <class ItsCall, class Which>
void answer_stored(const Group& group, std::size_t number, std::size_t size, Resume how,
                   Which which) {
    for (ItsCall& call : group.calls<ItsCall>(number)) {
        const bool stored = which(call);
        call.answer(
            [&] {
                call.stored = stored;
                call.size = stored ? size : 0;
            },
            how);
    }
}

/// What the rows of a conditional put say: key and size of what was stored.
class StoredRows {
  public:
    StoredRows(const Group& group, const pg::Rows& rows, bool sizes)
        : rows_(rows), sizes_(sizes), found_(rows_by_key(group, rows)) {}

    bool stored(std::size_t number) const noexcept { return found_[number].has_value(); }
    std::size_t size(std::size_t number) const noexcept {
        return sizes_ && stored(number)
                   ? static_cast<std::size_t>(rows_.integer(*found_[number], 1))
                   : 0;
    }

  private:
    const pg::Rows& rows_;
    const bool sizes_;
    const std::vector<std::optional<std::size_t>> found_;
};

/// The public call of a conditional put.
struct ConditionalPut {
    using Span = CachePutSpan;
    static constexpr bool writes = true;
    using Value = bool;

    ConditionalPut(std::string its_key, Result<std::string> its_jsonb, Duration its_ttl)
        : key(std::move(its_key)), jsonb(std::move(its_jsonb)), ttl(its_ttl) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_put_spans(observers, key, span_name);
    }
    std::optional<Failure> mistake() const { return check_put(key, jsonb, ttl); }
    Failure explain(Failure failure) const { return failure; }

    Value value(CallSpan calls, Counts& counts, Spans<Span>& spans) const {
        const auto& call = static_cast<const ConditionalPutCall&>(*calls.front());
        if (call.stored) {
            ++counts.puts;
            spans.record([&](Span& span) { span.record_put(call.size); });
        }
        return call.stored;
    }
    Value outage(Counts& counts) const {
        ++counts.dropped_writes;
        return false;
    }

    std::string key;
    Result<std::string> jsonb;
    Duration ttl;
};

}  // namespace psycache::detail
