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

/// Tells counters and spans of a conditional put. @returns whether it has stored.
inline bool told_whether_stored(const Call& settled, Counts& counts, Spans<CachePutSpan>& spans) {
    const auto& call = static_cast<const ConditionalPutCall&>(settled);
    if (call.stored) {
        ++counts.puts;
        spans.record([&](CachePutSpan& span) { span.record_put(call.size); });
    }
    return call.stored;
}

/// The public call of a conditional put.
template <class Kind>
struct ConditionalPut : PutOne<Kind> {
    using PutOne<Kind>::PutOne;
    using Value = bool;

    Value value(CallSpan calls, Counts& counts, Spans<CachePutSpan>& spans) const {
        return told_whether_stored(*calls.front(), counts, spans);
    }
    Value outage(Counts& counts) const {
        ++counts.dropped_writes;
        return false;
    }
};

/// The same of many entries, each by itself, also those of one key.
template <class Kind>
struct ConditionalPutMany : PutItems<ConditionalPutMany<Kind>, Kind, KeyedValue> {
    using Base = PutItems<ConditionalPutMany<Kind>, Kind, KeyedValue>;
    using Span = CachePutSpan;
    using Value = std::vector<bool>;

    ConditionalPutMany(std::vector<KeyedValue>&& entries, Duration its_ttl)
        : Base(std::move(entries)), ttl(its_ttl) {}
    ConditionalPutMany(const std::vector<KeyedValue>& entries, Duration its_ttl)
        : Base(entries), ttl(its_ttl) {}

    Duration ttl_of(const KeyedValue& /*entry*/) const noexcept { return ttl; }

    void take(CallSpan calls, Counts& counts, Spans<Span>& spans) {
        Base::template take_slice<ConditionalPutCall>(
            calls, [&](const ConditionalPutCall& call, std::size_t /*place*/) {
                stored_.push_back(told_whether_stored(call, counts, spans));
            });
    }
    Value value(Spans<Span>& /*spans*/) { return std::move(stored_); }
    Value outage(Counts& counts) {
        counts.dropped_writes += Base::size() - Base::answered();
        stored_.resize(Base::size());
        return std::move(stored_);
    }

    Duration ttl;

  private:
    Value stored_;
};

}  // namespace psycache::detail
