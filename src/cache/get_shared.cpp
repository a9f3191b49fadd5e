#include "cache/get_shared.hpp"

#include "cache/perform.hpp"

namespace psycache::detail {

namespace {

asio::awaitable<SharedObject> found_at_once(SharedObject object) {
    co_return object;
}

asio::awaitable<SharedObject> look_up(CacheCore::Self core, std::string key, CallOptions options) {
    const SharedLookUp look_up(*core, key);
    auto looking = perform(core, look_up.request(), std::move(options));
    Found found = co_await std::move(looking);
    co_return look_up.found(std::move(found));
}

}  // namespace

SharedObject find_shared(const CacheCore& core, std::string_view key, const CallOptions& options) {
    SharedObject object = peek(core, key);
    if (object != nullptr && !core.observers->empty()) {
        auto spans =
            open_get_spans(*core.observers, key, SpanName{options.span_name, GetShared::name});
        spans.record([](CacheGetSpan& span) { span.record_cache_hit(0); });
    }
    return object;
}

SharedLookUp::SharedLookUp(const CacheCore& core, std::string_view key)
    : near_(core.near.get()),
      key_(key),
      ticket_(near_ == nullptr ? std::nullopt : std::optional(near_->begin(key_))) {}

SharedObject SharedLookUp::found(Found found) const {
    if (!found.value) {
        return nullptr;
    }
    auto value = std::make_shared<const boost::json::value>(std::move(*found.value));
    if (ticket_) {
        near_->keep(*ticket_, key_, value, found.sight.left);
    }
    return object_of(std::move(value));
}

asio::awaitable<SharedObject> get_shared(CacheCore::Self core, std::string key,
                                         CallOptions options) {
    if (SharedObject object = find_shared(*core, key, options)) {
        return found_at_once(std::move(object));
    }
    return look_up(std::move(core), std::move(key), std::move(options));
}

}  // namespace psycache::detail
