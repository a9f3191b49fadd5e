#include "soak/call.hpp"

#include <boost/json/serialize.hpp>
#include <utility>

namespace psycache::soak {

namespace {

constexpr std::string_view span_name = "soak";

std::optional<Stored> stored(const std::optional<json::object>& value) {
    return value ? std::optional(read_value(*value)) : std::nullopt;
}

std::optional<Stored> stored(const std::optional<std::string>& text) {
    return text ? std::optional(read_text(*text)) : std::nullopt;
}

void note(Call& call, const std::vector<std::optional<json::object>>& values) {
    for (const auto& value : values) {
        call.values.push_back(stored(value));
    }
}

std::string text_of(const Entry& entry) {
    return json::serialize(entry.value);
}

}  // namespace

std::string_view name_of(Kind kind) {
    static constexpr std::string_view names[] = {
        "get",           "get_text", "get_entry", "get_many", "put",  "put_text",
        "put_if_absent", "replace",  "put_many",  "remove",   "take", "remove_many"};
    return names[static_cast<int>(kind)];
}

std::vector<std::string> Call::key_names() const {
    std::vector<std::string> names;
    for (const auto& key : keys) {
        names.push_back(key->key());
    }
    return names;
}

asio::awaitable<void> perform(AsyncPostgresCache cache, std::shared_ptr<Call> call) {
    const std::string name(span_name);
    const std::string key = call->keys.front()->key();
    switch (call->kind) {
        case Kind::get: {
            auto operation = cache.get_raw(key, name);
            const auto value = co_await std::move(operation);
            call->values.push_back(stored(value));
            break;
        }
        case Kind::get_text: {
            auto operation = cache.get_text(key, name);
            const auto text = co_await std::move(operation);
            call->values.push_back(stored(text));
            break;
        }
        case Kind::get_entry: {
            auto operation = cache.get_entry<json::object>(key, name);
            const auto entry = co_await std::move(operation);
            call->values.push_back(stored(entry ? std::optional(entry->value) : std::nullopt));
            break;
        }
        case Kind::get_many: {
            auto operation = cache.get_raw_many(call->key_names(), name);
            const auto values = co_await std::move(operation);
            note(*call, values);
            break;
        }
        case Kind::put: {
            const Entry& entry = call->entries.front();
            auto operation = cache.put_raw(key, entry.value, entry.ttl, name);
            co_await std::move(operation);
            break;
        }
        case Kind::put_text: {
            const Entry& entry = call->entries.front();
            auto operation = cache.put_text(key, text_of(entry), entry.ttl, name);
            co_await std::move(operation);
            break;
        }
        case Kind::put_if_absent: {
            const Entry& entry = call->entries.front();
            auto operation = cache.put_if_absent(key, entry.value, entry.ttl, name);
            const bool stored = co_await std::move(operation);
            call->stored = stored;
            break;
        }
        case Kind::replace: {
            const Entry& entry = call->entries.front();
            auto operation = cache.replace(key, entry.value, entry.ttl, name);
            const bool stored = co_await std::move(operation);
            call->stored = stored;
            break;
        }
        case Kind::put_many: {
            auto operation = cache.put_raw_many(call->entries, name);
            co_await std::move(operation);
            break;
        }
        case Kind::remove: {
            auto operation = cache.remove(key);
            const bool existed = co_await std::move(operation);
            call->existed = existed ? 1 : 0;
            break;
        }
        case Kind::take: {
            auto operation = cache.take<json::object>(key);
            const auto value = co_await std::move(operation);
            call->existed = value ? 1 : 0;
            // What has expired stays.
            call->stored = value.has_value();
            break;
        }
        case Kind::remove_many: {
            auto operation = cache.remove_many(call->key_names());
            const std::uint64_t existed = co_await std::move(operation);
            call->existed = existed;
            break;
        }
    }
}

void perform(PostgresCache& cache, Call& call) {
    const std::string key = call.keys.front()->key();
    switch (call.kind) {
        case Kind::get:
            call.values.push_back(stored(cache.get_raw(key, span_name)));
            break;
        case Kind::get_text:
            call.values.push_back(stored(cache.get_text(key, span_name)));
            break;
        case Kind::get_entry: {
            const auto entry = cache.get_entry<json::object>(key, span_name);
            call.values.push_back(stored(entry ? std::optional(entry->value) : std::nullopt));
            break;
        }
        case Kind::get_many:
            note(call, cache.get_raw_many(call.key_names(), span_name));
            break;
        case Kind::put:
            cache.put_raw(key, call.entries.front().value, call.entries.front().ttl, span_name);
            break;
        case Kind::put_text:
            cache.put_text(key, text_of(call.entries.front()), call.entries.front().ttl, span_name);
            break;
        case Kind::put_if_absent:
            call.stored = cache.put_if_absent(key, call.entries.front().value,
                                              call.entries.front().ttl, span_name);
            break;
        case Kind::replace:
            call.stored =
                cache.replace(key, call.entries.front().value, call.entries.front().ttl, span_name);
            break;
        case Kind::put_many:
            cache.put_raw_many(call.entries, span_name);
            break;
        case Kind::remove:
            call.existed = cache.remove(key) ? 1 : 0;
            break;
        case Kind::take:
            call.existed = cache.take<json::object>(key) ? 1 : 0;
            // What has expired stays.
            call.stored = call.existed != 0;
            break;
        case Kind::remove_many:
            call.existed = cache.remove_many(call.key_names());
            break;
    }
}

}  // namespace psycache::soak
