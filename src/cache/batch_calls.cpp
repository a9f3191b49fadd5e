// The calls of many keys: get_many, put_many and remove_many.

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "batching/call_queue.hpp"
#include "cache/cache_core.hpp"
#include "cache/call_checks.hpp"
#include "values/json_codec.hpp"

namespace psycache::detail {

namespace {

/// How many calls of a batch are queued at once, so that a large one does not fill the queue.
constexpr std::size_t slice_size = 1024;

/// Names the place of what was wrong, since a key must not be shown.
Failure at_place(Failure failure, std::string_view what, std::size_t place) {
    failure.cause = std::string(what) + " " + std::to_string(place) + ": " + failure.cause;
    return failure;
}

std::optional<Failure> check_keys(const std::vector<std::string>& keys) {
    for (std::size_t i = 0; i < keys.size(); ++i) {
        if (auto mistake = check_key(keys[i])) {
            return at_place(std::move(*mistake), "key", i);
        }
    }
    return std::nullopt;
}

template <class Things, class KeyOf>
std::vector<std::string_view> views(const Things& things, KeyOf key_of) {
    std::vector<std::string_view> all;
    all.reserve(things.size());
    for (const auto& thing : things) {
        all.push_back(key_of(thing));
    }
    return all;
}

std::string_view whole(const std::string& key) {
    return key;
}

/// One call for each different key, and which of them each key is.
struct Distinct {
    Distinct(CallKind kind, const std::vector<std::string>& keys, TimePoint until) {
        std::unordered_map<std::string_view, std::size_t> seen;
        seen.reserve(keys.size());
        place.reserve(keys.size());
        for (const std::string& key : keys) {
            const auto [known, is_new] = seen.try_emplace(key, calls.size());
            if (is_new) {
                calls.push_back(std::make_shared<Call>(kind, key, until));
            }
            place.push_back(known->second);
        }
    }

    Calls calls;
    std::vector<std::size_t> place;  // of each key among the calls
};

}  // namespace

Result<std::vector<PutItem>> put_items(const std::vector<Entry>& entries) {
    std::vector<PutItem> items;
    items.reserve(entries.size());
    std::unordered_map<std::string_view, std::size_t> seen;
    seen.reserve(entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const Entry& entry = entries[i];
        if (auto bad_key = check_key(entry.key)) {
            return at_place(std::move(*bad_key), "entry", i);
        }
        if (auto bad_ttl = check_ttl(entry.ttl)) {
            return at_place(std::move(*bad_ttl), "entry", i);
        }
        Result<std::string> jsonb = encode_jsonb(entry.value);
        if (!jsonb) {
            return at_place(jsonb.error(), "entry", i);
        }
        PutItem item{entry.key, std::move(*jsonb), entry.ttl};
        const auto [known, is_new] = seen.try_emplace(entry.key, items.size());
        if (is_new) {
            items.push_back(std::move(item));
        } else {
            items[known->second] = std::move(item);
        }
    }
    return items;
}

/// In a lane: answers what can be answered at once.
void CacheCore::answer_blocking(Calls& calls) const {
    CallQueue queue(batcher_->limits(), calls.size());
    for (const auto& call : calls) {
        queue.push(call);
    }
    for (Calls group = queue.next_group(take_all); !group.empty();
         group = queue.next_group(take_all)) {
        if (!batcher_->perform_blocking(group)) {
            return;
        }
    }
}

/// Performs the calls, however many. @returns why the first one failed that did, in their order.
asio::awaitable<Failure> CacheCore::perform_all(Self self, Calls calls) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    const auto end = calls.end();
    for (auto begin = calls.begin(); begin != end;) {
        // Asked for by name: to wait once more would throw it, past everybody who counts.
        const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() != asio::cancellation_type::none) {
            co_return cancelled_failure();
        }
        const auto slice_end =
            begin + std::min(static_cast<std::ptrdiff_t>(slice_size), end - begin);
        Calls slice(begin, slice_end);
        if (self->serves_ == Serves::one_call) {
            self->answer_blocking(slice);
        }
        Calls left;
        std::copy_if(slice.begin(), slice.end(), std::back_inserter(left),
                     [](const auto& call) { return !call->settled(); });
        if (!left.empty()) {
            auto batch = std::make_shared<Batch>(self->batcher_, left);
            auto done = Batcher::perform_all(self->batcher_, std::move(batch), executor);
            co_await std::move(done);
        }
        for (const auto& call : slice) {
            if (!call->value()) {
                co_return call->value().error();
            }
        }
        begin = slice_end;
    }
    co_return Failure();
}

asio::awaitable<std::vector<std::optional<json::object>>> CacheCore::get_many(
    Self self, std::vector<std::string> keys, std::string span_name, Begun<CacheGetSpan> begun) {
    const Observers& observers = self->telemetry_->observers;
    Spans<CacheGetSpan> spans =
        begun.spans         ? std::move(*begun.spans)
        : observers.empty() ? Spans<CacheGetSpan>(observers)
                            : open_get_spans(observers, Keys(views(keys, whole)), span_name);
    std::vector<std::optional<json::object>> values(keys.size());
    Breaker::Pass pass = self->admit(begun);
    Failure failure;
    if (auto mistake = check_keys(keys)) {
        failure = std::move(*mistake);
    } else if (auto why = obstacle(begun, pass)) {
        failure = std::move(*why);
    } else {
        Distinct distinct(CallKind::get, keys, begun.until.value_or(self->deadline()));
        failure = co_await perform_all(self, distinct.calls);
        if (!failure.code) {
            pass.succeeded();
            const bool repeated = distinct.calls.size() < keys.size();
            for (std::size_t i = 0; i < keys.size(); ++i) {
                Result<CallAnswer>& answer = distinct.calls[distinct.place[i]]->value();
                if (answer->value) {
                    self->telemetry_->hit();
                    spans.record([&](CacheGetSpan& span) { span.record_cache_hit(answer->size); });
                    if (repeated) {
                        values[i] = *answer->value;
                    } else {
                        values[i] = std::move(answer->value);
                    }
                } else {
                    self->telemetry_->miss();
                    spans.record([](CacheGetSpan& span) { span.record_cache_miss(); });
                }
            }
            co_return values;
        }
    }
    if (self->failed(spans, pass, failure)) {
        self->telemetry_->outage_miss(keys.size());
        co_return values;
    }
    throw to_error("get_raw_many", failure);
}

asio::awaitable<void> CacheCore::put_many(Self self, Result<std::vector<PutItem>> items,
                                          std::string span_name, Begun<CachePutSpan> begun) {
    const Observers& observers = self->telemetry_->observers;
    const auto key_of = [](const PutItem& item) { return std::string_view(item.key); };
    Spans<CachePutSpan> spans =
        begun.spans         ? std::move(*begun.spans)
        : observers.empty() ? Spans<CachePutSpan>(observers)
        : items             ? open_put_spans(observers, Keys(views(*items, key_of)), span_name)
                            : open_put_spans(observers, Keys(), span_name);
    Breaker::Pass pass = self->admit(begun);
    Failure failure;
    const std::size_t count = items ? items->size() : 0;
    if (!items) {
        failure = items.error();
    } else if (auto why = obstacle(begun, pass)) {
        failure = std::move(*why);
    } else {
        const TimePoint until = begun.until.value_or(self->deadline());
        Calls calls;
        calls.reserve(count);
        for (PutItem& item : *items) {
            calls.push_back(std::make_shared<Call>(CallKind::put, std::move(item.key), until));
            calls.back()->jsonb = std::move(item.jsonb);
            calls.back()->ttl = item.ttl;
        }
        failure = co_await perform_all(self, calls);
        if (!failure.code) {
            pass.succeeded();
            for (const auto& call : calls) {
                self->telemetry_->put();
                spans.record([&](CachePutSpan& span) { span.record_put(call->value()->size); });
            }
            co_return;
        }
    }
    if (self->failed(spans, pass, failure)) {
        self->telemetry_->dropped_write(count);
        co_return;
    }
    throw to_error("put_raw_many", failure);
}

asio::awaitable<std::uint64_t> CacheCore::remove_many(Self self, std::vector<std::string> keys,
                                                      Begun<CacheRemoveSpan> begun) {
    const Observers& observers = self->telemetry_->observers;
    Spans<CacheRemoveSpan> spans = begun.spans ? std::move(*begun.spans)
                                   : observers.empty()
                                       ? Spans<CacheRemoveSpan>(observers)
                                       : open_remove_spans(observers, Keys(views(keys, whole)));
    Breaker::Pass pass = self->admit(begun);
    Failure failure;
    if (auto mistake = check_keys(keys)) {
        failure = std::move(*mistake);
    } else if (auto why = obstacle(begun, pass)) {
        failure = std::move(*why);
    } else {
        Distinct distinct(CallKind::remove, keys, begun.until.value_or(self->deadline()));
        failure = co_await perform_all(self, distinct.calls);
        if (!failure.code) {
            pass.succeeded();
            std::uint64_t existed = 0;
            for (const auto& call : distinct.calls) {
                self->telemetry_->removed();
                existed += call->value()->existed ? 1 : 0;
            }
            spans.record([](CacheRemoveSpan& span) { span.record_removed(); });
            co_return existed;
        }
    }
    if (self->failed(spans, pass, failure)) {
        self->telemetry_->dropped_write(keys.size());
        co_return 0;
    }
    throw to_error("remove_many", failure);
}

}  // namespace psycache::detail
