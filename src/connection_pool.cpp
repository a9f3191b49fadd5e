#include <psycache/connection_pool.hpp>

#include <stdexcept>
#include <utility>

#include "core/failure.hpp"
#include "core/option_checks.hpp"
#include "pg/conninfo.hpp"
#include "pool/pool_core.hpp"

namespace psycache {

using namespace detail;

namespace {

std::shared_ptr<detail::PoolCore> make_core(asio::any_io_executor executor, PoolOptions options) {
    if (!executor) {
        throw std::invalid_argument("ConnectionPool: executor must not be empty");
    }
    check_pool_options(options);
    pg::check_dsn(options.dsn, "PoolOptions::dsn");
    return std::make_shared<detail::PoolCore>(std::move(executor), std::move(options));
}

asio::awaitable<ConnectionLease> connect_with(std::shared_ptr<detail::PoolCore> core) {
    auto result = co_await detail::PoolCore::acquire(std::move(core));
    if (!result) {
        throw to_error("connect", result.error());
    }
    co_return std::move(*result);
}

asio::awaitable<void> warm_up_with(std::shared_ptr<detail::PoolCore> core) {
    const std::size_t wanted = core->warm();
    auto warming = detail::PoolCore::warm_up(std::move(core), wanted);
    const std::optional<Failure> failure = co_await std::move(warming);
    if (failure) {
        throw to_error("warm_up", *failure);
    }
}

}  // namespace

ConnectionPool::ConnectionPool(asio::any_io_executor executor, PoolOptions options)
    : core_(make_core(std::move(executor), std::move(options))) {}

ConnectionPool::ConnectionPool(std::shared_ptr<detail::PoolCore> core) : core_(std::move(core)) {}

ConnectionPool::~ConnectionPool() {
    close();
}

asio::awaitable<ConnectionLease> ConnectionPool::connect() {
    return connect_with(core_);
}

ConnectionLease ConnectionPool::try_connect() {
    return core_->try_acquire();
}

asio::awaitable<void> ConnectionPool::warm_up() {
    return warm_up_with(core_);
}

asio::any_io_executor ConnectionPool::get_executor() const noexcept {
    return core_->executor();
}

PoolStatistics ConnectionPool::statistics() const {
    return core_->statistics();
}

std::optional<PoolStatistics> ConnectionPool::pool_statistics() const {
    return statistics();
}

void ConnectionPool::close() noexcept {
    core_->close();
}

}  // namespace psycache
