#include "cache/get_shared.hpp"

#include "cache/perform.hpp"

namespace psycache::detail {

namespace {

template <class T>
asio::awaitable<std::shared_ptr<const T>> found_at_once(std::shared_ptr<const T> object) {
    co_return object;
}

/// What is wrong is for the one who awaits the call.
template <class T>
asio::awaitable<std::shared_ptr<const T>> failed(std::exception_ptr why) {
    std::rethrow_exception(why);
    co_return nullptr;
}

template <class T>
asio::awaitable<std::shared_ptr<const T>> look_up(CacheCore::Self core, std::string key,
                                                  SharedReader reader, CallOptions options) {
    const SharedLookUp look_up(*core, key, reader);
    auto looking = perform(core, look_up.request(), std::move(options));
    FoundShared found = co_await std::move(looking);
    co_return std::static_pointer_cast<const T>(look_up.found(std::move(found)));
}

NearCache::Object kept(const SharedReader& reader, const Shared& object) {
    return reader.type == nullptr ? NearCache::Object()
                                  : NearCache::Object{object, reader.type, reader.size};
}

/// Makes the object of a value that is in memory. @throws Error
Shared make_shared_object(const CacheCore& core, std::string_view key, const SharedReader& reader,
                          const NearCache::Value& value, Spans<CacheGetSpan>& spans) {
    Shared object;
    const Failure failure = read_shared(reader, value, object);
    if (failure.code) {
        core.count_failure(failure);
        spans.record_error(failure.code);
        throw to_error(GetShared::name, failure);
    }
    if (reader.type != nullptr) {
        core.near->keep_object(key, value, kept(reader, object));
    }
    return object;
}

}  // namespace

std::shared_ptr<const boost::json::object> peek(const CacheCore& core,
                                                std::string_view key) noexcept {
    NearCache::Value value = core.near ? core.near->find(key).value : nullptr;
    if (value == nullptr || !value->is_object()) {
        return nullptr;
    }
    const auto* const object = &value->get_object();
    return {std::move(value), object};
}

Shared peek(const CacheCore& core, std::string_view key, const std::type_info* wanted) noexcept {
    if (!core.near) {
        return nullptr;
    }
    NearCache::Found found = core.near->find(key, wanted);
    return wanted != nullptr ? std::move(found.object) : Shared(std::move(found.value));
}

Shared find_shared(const CacheCore& core, std::string_view key, const SharedReader& reader,
                   const CallOptions& options) {
    NearCache::Found found = core.near ? core.near->find(key, reader.type) : NearCache::Found();
    if (found.object == nullptr && found.value == nullptr) {
        return nullptr;
    }
    auto spans =
        core.observers->empty()
            ? Spans<CacheGetSpan>(*core.observers)
            : open_get_spans(*core.observers, key, SpanName{options.span_name, GetShared::name});
    if (found.value != nullptr) {
        found.object = make_shared_object(core, key, reader, found.value, spans);
    }
    spans.record([](CacheGetSpan& span) { span.record_cache_hit(0); });
    return std::move(found.object);
}

SharedLookUp::SharedLookUp(const CacheCore& core, std::string_view key, const SharedReader& reader)
    : near_(core.near.get()),
      key_(key),
      reader_(reader),
      ticket_(near_ == nullptr ? std::nullopt : std::optional(near_->begin(key_))) {}

Shared SharedLookUp::found(FoundShared found) const {
    if (found.value != nullptr && ticket_) {
        near_->keep(*ticket_, key_, std::move(found.value), found.sight.left,
                    kept(reader_, found.object));
    }
    return std::move(found.object);
}

template <class T>
asio::awaitable<std::shared_ptr<const T>> get_shared(CacheCore::Self core, std::string key,
                                                     SharedReader reader, CallOptions options) {
    try {
        if (Shared object = find_shared(*core, key, reader, options)) {
            return found_at_once<T>(std::static_pointer_cast<const T>(std::move(object)));
        }
    } catch (...) {
        return failed<T>(std::current_exception());
    }
    return look_up<T>(std::move(core), std::move(key), reader, std::move(options));
}

template asio::awaitable<std::shared_ptr<const boost::json::object>> get_shared(
    CacheCore::Self core, std::string key, SharedReader reader, CallOptions options);
template asio::awaitable<Shared> get_shared(CacheCore::Self core, std::string key,
                                            SharedReader reader, CallOptions options);

}  // namespace psycache::detail
