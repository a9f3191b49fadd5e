#include "soak/call.hpp"

#include <boost/json/serialize.hpp>
#include <iterator>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace psycache::soak {

namespace {

constexpr std::string_view span_name = "soak";

// In the order of Kind.
constexpr Traits all_traits[] = {
    {"get", 35, Act::read, Asks::one},
    {"get_text", 10, Act::read, Asks::one},
    {"get_entry", 5, Act::read, Asks::one},
    {"get_many", 5, Act::read, Asks::many},
    {"get_entry_many", 2, Act::read, Asks::many},
    {"expires_in", 5, Act::read, Asks::one},
    {"put", 20, Act::put, Asks::one},
    {"put_text", 10, Act::put, Asks::one},
    {"put_many", 4, Act::put, Asks::many},
    {"put_if_absent", 3, Act::put, Asks::one, Tells::absent},
    {"put_if_absent_many", 1, Act::put, Asks::many, Tells::absent},
    {"replace", 3, Act::put, Asks::one, Tells::live},
    {"replace_many", 1, Act::put, Asks::many, Tells::live},
    {"compare_and_put", 4, Act::put, Asks::one, Tells::equal},
    {"touch", 4, Act::touch, Asks::one, Tells::live},
    {"touch_many", 1, Act::touch, Asks::many, Tells::live},
    {"get_and_touch", 3, Act::touch, Asks::one, Tells::live, true},
    {"get_and_touch_many", 1, Act::touch, Asks::many, Tells::live, true},
    {"merge", 4, Act::merge, Asks::one, Tells::live},
    {"remove", 2, Act::remove, Asks::one, Tells::number},
    {"remove_many", 1, Act::remove, Asks::many, Tells::number},
    {"take", 2, Act::remove, Asks::one, Tells::live, true},
    {"take_many", 1, Act::remove, Asks::many, Tells::live, true},
    {"remove_prefix", 1, Act::remove_group, Asks::many, Tells::number},
    {"remove_tag", 1, Act::remove_group, Asks::many, Tells::number},
    {"increment", 5, Act::count, Asks::one},
    {"increment_many", 2, Act::count, Asks::many}};
static_assert(std::size(all_traits) == kinds);

using Object = json::object;

std::string text_of(const Entry& entry) {
    return json::serialize(entry.value);
}

std::vector<std::pair<std::string, Object>> pairs_of(const std::vector<Entry>& entries) {
    std::vector<std::pair<std::string, Object>> pairs;
    for (const Entry& entry : entries) {
        pairs.emplace_back(entry.key, entry.value);
    }
    return pairs;
}

/// Calls what is asked. @param noted gets what makes the call.
template <class Cache, class Noted>
auto ask(Cache& cache, const Call& call, Noted noted) {
    const auto key = [&] { return call.keys.front()->key(); };
    const auto entry = [&]() -> const Entry& { return call.entries.front(); };
    const CallOptions named(span_name);
    PutOptions tagged(span_name);
    tagged.tags = call.tags;
    switch (call.kind) {
        case Kind::get:
            return noted([&] { return cache.get_raw(key(), named); });
        case Kind::get_text:
            return noted([&] { return cache.get_text(key(), named); });
        case Kind::get_entry:
            return noted([&] { return cache.template get_entry<Object>(key(), named); });
        case Kind::get_many:
            return noted([&] { return cache.get_raw_many(call.key_names(), named); });
        case Kind::get_entry_many:
            return noted(
                [&] { return cache.template get_entry_many<Object>(call.key_names(), named); });
        case Kind::expires_in:
            return noted([&] { return cache.expires_in(key(), named); });
        case Kind::put:
            return noted([&] { return cache.put_raw(key(), entry().value, entry().ttl, tagged); });
        case Kind::put_text:
            return noted(
                [&] { return cache.put_text(key(), text_of(entry()), entry().ttl, tagged); });
        case Kind::put_many:
            return noted([&] { return cache.put_raw_many(call.entries, tagged); });
        case Kind::put_if_absent:
            return noted(
                [&] { return cache.put_if_absent(key(), entry().value, call.ttl, tagged); });
        case Kind::put_if_absent_many:
            return noted(
                [&] { return cache.put_if_absent_many(pairs_of(call.entries), call.ttl, tagged); });
        case Kind::replace:
            return noted([&] { return cache.replace(key(), entry().value, call.ttl, tagged); });
        case Kind::replace_many:
            return noted(
                [&] { return cache.replace_many(pairs_of(call.entries), call.ttl, tagged); });
        case Kind::compare_and_put:
            return noted([&] {
                return cache.compare_and_put(key(), call.other, entry().value, call.ttl, named);
            });
        case Kind::touch:
            return noted([&] { return cache.touch(key(), call.ttl, named); });
        case Kind::touch_many:
            return noted([&] { return cache.touch_many(call.key_names(), call.ttl, named); });
        case Kind::get_and_touch:
            return noted(
                [&] { return cache.template get_and_touch<Object>(key(), call.ttl, named); });
        case Kind::get_and_touch_many:
            return noted([&] {
                return cache.template get_and_touch_many<Object>(call.key_names(), call.ttl, named);
            });
        case Kind::merge:
            return noted([&] { return cache.merge(key(), call.other, named); });
        case Kind::remove:
            return noted([&] { return cache.remove(key(), named); });
        case Kind::remove_many:
            return noted([&] { return cache.remove_many(call.key_names(), named); });
        case Kind::take:
            return noted([&] { return cache.template take<Object>(key(), named); });
        case Kind::take_many:
            return noted([&] { return cache.template take_many<Object>(call.key_names(), named); });
        case Kind::remove_prefix:
            return noted([&] { return cache.remove_prefix(call.group, named); });
        case Kind::remove_tag:
            return noted([&] { return cache.remove_tag(call.group, named); });
        case Kind::increment:
            return noted([&] {
                const auto& [counter, by] = call.increments.front();
                return cache.increment(counter, by, no_expiry, named);
            });
        case Kind::increment_many:
            return noted([&] { return cache.increment_many(call.increments, no_expiry, named); });
    }
    throw std::logic_error("a call of no kind");
}

void note(Call& call, const std::optional<Object>& value) {
    call.values.push_back(value ? std::optional(read_value(*value)) : std::nullopt);
    call.done.push_back(value.has_value());
}

void note(Call& call, const std::optional<std::string>& text) {
    call.values.push_back(text ? std::optional(read_text(*text)) : std::nullopt);
}

void note(Call& call, const std::optional<EntryView<Object>>& entry) {
    note(call, entry ? std::optional(entry->value) : std::nullopt);
    call.left.push_back(entry ? std::optional(entry->expires_in) : std::nullopt);
}

void note(Call& call, std::optional<Duration> left) {
    call.left.push_back(left);
}

template <class Value>
void note(Call& call, const std::vector<std::optional<Value>>& values) {
    for (const auto& value : values) {
        note(call, value);
    }
}

void note(Call& call, bool done) {
    call.done.push_back(done);
    call.number = done ? 1 : 0;
}

void note(Call& call, const std::vector<bool>& done) {
    call.done = done;
}

void note(Call& call, std::uint64_t number) {
    call.number = number;
}

void note(Call& call, std::int64_t count) {
    call.counts.push_back(count);
}

void note(Call& call, const std::vector<std::int64_t>& counts) {
    call.counts = counts;
}

template <class Answer>
asio::awaitable<void> note_down(asio::awaitable<Answer> operation, std::shared_ptr<Call> call) {
    if constexpr (std::is_void_v<Answer>) {
        co_await std::move(operation);
    } else {
        const Answer answer = co_await std::move(operation);
        note(*call, answer);
    }
}

}  // namespace

const Traits& traits_of(Kind kind) {
    return all_traits[static_cast<std::size_t>(kind)];
}

std::vector<std::string> Call::key_names() const {
    std::vector<std::string> names;
    for (const auto& key : keys) {
        names.push_back(key->key());
    }
    return names;
}

asio::awaitable<void> perform(AsyncPostgresCache cache, std::shared_ptr<Call> call) {
    auto operation = ask(cache, *call, [&](auto make) { return note_down(make(), call); });
    co_await std::move(operation);
}

void perform(PostgresCache& cache, Call& call) {
    ask(cache, call, [&](auto make) {
        if constexpr (std::is_void_v<decltype(make())>) {
            make();
        } else {
            note(call, make());
        }
    });
}

}  // namespace psycache::soak
