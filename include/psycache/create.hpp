#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/value.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <psycache/duration.hpp>
#include <psycache/export.hpp>
#include <psycache/typed.hpp>

namespace psycache {

/// Among whom one loader runs for a key.
enum class Scope {
    database,  ///< all processes that use the table
    process    ///< the callers of one cache
};

/// How get_or_create treats an entry, and how it loads what is missing. Checked by the call, which
/// throws `std::invalid_argument` naming the field.
struct PSYCACHE_EXPORT CreateOptions {
    /// A ttl must still be set.
    CreateOptions();
    /// @param how_long_fresh as @ref ttl.
    explicit CreateOptions(Duration how_long_fresh);
    CreateOptions(const CreateOptions&);
    CreateOptions(CreateOptions&&) noexcept;
    CreateOptions& operator=(const CreateOptions&);
    CreateOptions& operator=(CreateOptions&&) noexcept;
    ~CreateOptions();

    /// How long a value is fresh, from when it is stored; positive, or no_expiry.
    Duration ttl{0};

    /// How long it is *stale* after that: answered at once, while one caller has it loaded anew.
    /// Other readers, of other languages too, see an entry that lives for `ttl + stale_for`. Not
    /// negative, and finite.
    Duration stale_for{0};

    /// Whether a stale value is answered also when the last try to load it anew has failed. If not,
    /// its callers get what the loader threw, for @ref retry_after_error.
    bool stale_on_error = true;

    /// For how long no loader of the key is started after one has thrown: callers get the same
    /// exception, or the stale value. Not negative, and finite.
    Duration retry_after_error = std::chrono::seconds(1);

    /// Among whom one loader runs for a key.
    Scope scope = Scope::database;

    /// For how long other processes leave it to the one that loads; after that another one may.
    /// What a loader returns later is stored all the same if no other loader has started. Positive,
    /// at most a day.
    Duration load_lease = std::chrono::seconds(30);

    /// How eagerly a value is loaded anew before it is stale, so that no caller waits for a value
    /// that is often asked for: one caller, chosen by chance the likelier the less time is left and
    /// the longer loading took this process the last time (XFetch's beta; 1 is right on average). 0
    /// for never.
    double early = 1.0;

    /// What remove_tag() finds the entry by, see PutOptions::tags; also while the value is loaded.
    std::vector<std::string> tags;

    /// What instrumentation calls the call; "" for no name.
    std::string span_name;

    /// How long this caller waits in all. It leaves with Errc::timed_out then; the load goes on for
    /// the others. Positive; none: as long as the loader takes. A statement by itself has
    /// `CacheOptions::timeout`.
    std::optional<Duration> timeout;
};

namespace detail {

/// What was loaded for each key; none where there is nothing to store.
using LoadedValues = std::vector<std::optional<json::value>>;
/// A loader as the library sees it: it is given the keys that are to be loaded.
using AsyncLoader = std::function<asio::awaitable<LoadedValues>(std::vector<std::string>)>;
using Loader = std::function<LoadedValues(std::vector<std::string>)>;

/// @returns what a loader has returned, as JSON. An empty optional is nothing to store.
template <class T>
std::optional<json::value> loaded_value(T&& loaded) {
    if constexpr (is_a<std::remove_cvref_t<T>, std::optional>) {
        return loaded ? std::optional<json::value>(as_json(*loaded)) : std::nullopt;
    } else {
        return std::optional<json::value>(as_json(loaded));
    }
}

/// A type that get_or_create returns: a value, or an optional one.
template <class T>
struct Created {
    using Value = T;
    static constexpr bool must_have = true;
};
template <class T>
struct Created<std::optional<T>> {
    using Value = T;
    static constexpr bool must_have = false;
};

template <class T>
LoadedValues loaded_values(T&& one) {
    LoadedValues values;
    values.push_back(loaded_value(std::forward<T>(one)));
    return values;
}
template <class T>
LoadedValues loaded_values(std::vector<T>&& many, std::size_t wanted) {
    if (many.size() != wanted) {
        throw std::length_error("get_or_create_many: the loader was asked for " +
                                std::to_string(wanted) + " values and has returned " +
                                std::to_string(many.size()));
    }
    LoadedValues values;
    values.reserve(wanted);
    for (std::size_t i = 0; i < wanted; ++i) {
        T one = std::move(many[i]);  // also out of a vector<bool>
        values.push_back(loaded_value(std::move(one)));
    }
    return values;
}

// A loader is shared by the copies of what calls it: it may hold what cannot be copied.

template <class T, class Function>
asio::awaitable<LoadedValues> run_loader(std::shared_ptr<Function> loader) {
    auto loading = (*loader)();
    T loaded = co_await std::move(loading);
    co_return loaded_values(std::move(loaded));
}
template <class T, class Function>
asio::awaitable<LoadedValues> run_loader_of_many(std::shared_ptr<Function> loader,
                                                 std::vector<std::string> keys) {
    const std::size_t wanted = keys.size();
    auto loading = (*loader)(std::move(keys));
    std::vector<T> loaded = co_await std::move(loading);
    co_return loaded_values(std::move(loaded), wanted);
}

template <class T, class Function>
AsyncLoader async_loader(Function&& loader) {
    using Own = std::decay_t<Function>;
    return [own = std::make_shared<Own>(std::forward<Function>(loader))](
               const std::vector<std::string>& /*key*/) { return run_loader<T, Own>(own); };
}
template <class T, class Function>
AsyncLoader async_loader_of_many(Function&& loader) {
    using Own = std::decay_t<Function>;
    return [own = std::make_shared<Own>(std::forward<Function>(loader))](
               std::vector<std::string> keys) {
        return run_loader_of_many<T, Own>(own, std::move(keys));
    };
}
template <class T, class Function>
Loader blocking_loader(Function&& loader) {
    using Own = std::decay_t<Function>;
    return [own = std::make_shared<Own>(std::forward<Function>(loader))](
               const std::vector<std::string>& /*key*/) {
        T loaded = (*own)();
        return loaded_values(std::move(loaded));
    };
}
template <class T, class Function>
Loader blocking_loader_of_many(Function&& loader) {
    using Own = std::decay_t<Function>;
    return [own = std::make_shared<Own>(std::forward<Function>(loader))](
               std::vector<std::string> keys) {
        const std::size_t wanted = keys.size();
        std::vector<T> loaded = (*own)(std::move(keys));
        return loaded_values(std::move(loaded), wanted);
    };
}

/// @returns what get_or_create does, of what was read.
template <class T>
T created(std::optional<typename Created<T>::Value>&& value, bool there) {
    if constexpr (Created<T>::must_have) {
        static_cast<void>(there);
        return std::move(*value);
    } else {
        return there ? std::move(value) : std::nullopt;
    }
}

/// @param start makes the call; it gets the reader.
template <class T, class Start>
asio::awaitable<T> read_created(Start start) {
    std::optional<typename Created<T>::Value> value;
    auto call = start(reader_of(value));
    const bool there = co_await std::move(call);
    co_return created<T>(std::move(value), there);
}

/// The same for many keys. @param there whether each has a value.
template <class T>
std::vector<T> created_many(std::vector<std::optional<typename Created<T>::Value>>&& values,
                            const std::vector<bool>& there) {
    std::vector<T> all;
    all.reserve(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
        all.push_back(created<T>(std::move(values[i]), there[i]));
    }
    return all;
}
template <class T, class Start>
asio::awaitable<std::vector<T>> read_created_many(std::size_t count, Start start) {
    std::vector<std::optional<typename Created<T>::Value>> values(count);
    auto call = start(reader_of(values));
    const std::vector<bool> there = co_await std::move(call);
    co_return created_many<T>(std::move(values), there);
}

}  // namespace detail
}  // namespace psycache
