#include <psycache/transaction_cache.hpp>

#include <stdexcept>
#include <utility>

#include "transaction/perform.hpp"

namespace psycache {

using namespace detail;

namespace {

pg_conn* checked(pg_conn* connection, const char* whose) {
    if (connection == nullptr) {
        throw std::invalid_argument(std::string(whose) + ": connection must not be null");
    }
    return connection;
}

asio::any_io_executor checked(asio::any_io_executor executor) {
    if (!executor) {
        throw std::invalid_argument("AsyncTransactionCache: executor must not be empty");
    }
    return executor;
}

PutRawInside put_of(std::string key, const json::object& value, Duration ttl,
                    const PutOptions& options) {
    return PutRawInside(std::move(key), encode_jsonb(value), ttl, options.tags);
}

PutTypedInside put_of(std::string key, const json::value& value, Duration ttl,
                      const PutOptions& options) {
    return PutTypedInside(std::move(key), encode_jsonb(value), ttl, options.tags);
}

PutTextInside put_of(std::string key, std::string_view json_text, Duration ttl,
                     const PutOptions& options) {
    return PutTextInside(std::move(key), jsonb_of_text(json_text), ttl, options.tags);
}

}  // namespace

TransactionCache::TransactionCache(pg_conn* connection, CacheOptions options)
    : core_(std::make_unique<TransactionCore>(checked(connection, "TransactionCache"), options,
                                              asio::any_io_executor())) {}

TransactionCache::~TransactionCache() = default;

std::optional<json::object> TransactionCache::get_raw(std::string_view key,
                                                      const CallOptions& options) {
    return perform_within(*core_, GetRawInside(std::string(key)), options);
}

std::optional<std::string> TransactionCache::get_text(std::string_view key,
                                                      const CallOptions& options) {
    return perform_within(*core_, GetTextInside(std::string(key)), options);
}

void TransactionCache::put_raw(std::string_view key, const json::object& value, Duration ttl,
                               const PutOptions& options) {
    perform_within(*core_, put_of(std::string(key), value, ttl, options), options);
}

void TransactionCache::put_text(std::string_view key, std::string_view json_text, Duration ttl,
                                const PutOptions& options) {
    perform_within(*core_, put_of(std::string(key), json_text, ttl, options), options);
}

void TransactionCache::get_into(std::string_view key, ValueReader reader,
                                const CallOptions& options) {
    perform_within(*core_, GetTypedInside(std::string(key), reader), options);
}

void TransactionCache::put_value(std::string_view key, const json::value& value, Duration ttl,
                                 const PutOptions& options) {
    perform_within(*core_, put_of(std::string(key), value, ttl, options), options);
}

bool TransactionCache::remove(std::string_view key, const CallOptions& options) {
    return perform_within(*core_, RemoveOneInside(std::string(key)), options);
}

std::uint64_t TransactionCache::remove_prefix(std::string_view prefix, const CallOptions& options) {
    return perform_within(*core_, RemovePrefixInside(std::string(prefix)), options);
}

std::uint64_t TransactionCache::remove_tag(std::string_view tag, const CallOptions& options) {
    return perform_within(*core_, RemoveTagInside(std::string(tag)), options);
}

AsyncTransactionCache::AsyncTransactionCache(asio::any_io_executor executor, pg_conn* connection,
                                             CacheOptions options)
    : core_(std::make_shared<TransactionCore>(checked(connection, "AsyncTransactionCache"), options,
                                              checked(std::move(executor)))) {}

AsyncTransactionCache::AsyncTransactionCache(const AsyncTransactionCache&) noexcept = default;
AsyncTransactionCache::AsyncTransactionCache(AsyncTransactionCache&&) noexcept = default;
AsyncTransactionCache& AsyncTransactionCache::operator=(const AsyncTransactionCache&) noexcept =
    default;
AsyncTransactionCache& AsyncTransactionCache::operator=(AsyncTransactionCache&&) noexcept = default;
AsyncTransactionCache::~AsyncTransactionCache() = default;

// None of these is a coroutine itself: a coroutine would hold on to the handle, which may be gone
// before it starts.

asio::awaitable<std::optional<json::object>> AsyncTransactionCache::get_raw(std::string key,
                                                                            CallOptions options) {
    return perform_within(core_, GetRawInside(std::move(key)), std::move(options));
}

asio::awaitable<std::optional<std::string>> AsyncTransactionCache::get_text(std::string key,
                                                                            CallOptions options) {
    return perform_within(core_, GetTextInside(std::move(key)), std::move(options));
}

asio::awaitable<void> AsyncTransactionCache::put_raw(std::string key, json::object value,
                                                     Duration ttl, PutOptions options) {
    PutRawInside put = put_of(std::move(key), value, ttl, options);
    return perform_within(core_, std::move(put), std::move(options));
}

asio::awaitable<void> AsyncTransactionCache::put_text(std::string key, std::string json_text,
                                                      Duration ttl, PutOptions options) {
    PutTextInside put = put_of(std::move(key), std::string_view(json_text), ttl, options);
    return perform_within(core_, std::move(put), std::move(options));
}

asio::awaitable<bool> AsyncTransactionCache::get_into(std::string key, ValueReader reader,
                                                      CallOptions options) {
    return perform_within(core_, GetTypedInside(std::move(key), reader), std::move(options));
}

asio::awaitable<void> AsyncTransactionCache::put_value(std::string key, const json::value& value,
                                                       Duration ttl, PutOptions options) {
    PutTypedInside put = put_of(std::move(key), value, ttl, options);
    return perform_within(core_, std::move(put), std::move(options));
}

asio::awaitable<bool> AsyncTransactionCache::remove(std::string key, CallOptions options) {
    return perform_within(core_, RemoveOneInside(std::move(key)), std::move(options));
}

asio::awaitable<std::uint64_t> AsyncTransactionCache::remove_prefix(std::string prefix,
                                                                    CallOptions options) {
    return perform_within(core_, RemovePrefixInside(std::move(prefix)), std::move(options));
}

asio::awaitable<std::uint64_t> AsyncTransactionCache::remove_tag(std::string tag,
                                                                 CallOptions options) {
    return perform_within(core_, RemoveTagInside(std::move(tag)), std::move(options));
}

}  // namespace psycache
