#include <psycache/cache_pool.hpp>

#include <psycache/error.hpp>
#include <stdexcept>
#include <utility>

#include "core/failure.hpp"
#include "pool/lease_state.hpp"

namespace psycache {

using namespace detail;

BorrowedConnection::BorrowedConnection() noexcept = default;

BorrowedConnection::BorrowedConnection(pg_conn* connection, std::function<void(pg_conn*)> give_back)
    : connection_(connection), give_back_(std::move(give_back)) {
    if (connection == nullptr) {
        throw std::invalid_argument("BorrowedConnection: connection must not be null");
    }
}

BorrowedConnection::BorrowedConnection(BorrowedConnection&& other) noexcept
    : connection_(std::exchange(other.connection_, nullptr)),
      give_back_(std::exchange(other.give_back_, nullptr)) {}

BorrowedConnection& BorrowedConnection::operator=(BorrowedConnection&& other) noexcept {
    if (this != &other) {
        give_back();
        connection_ = std::exchange(other.connection_, nullptr);
        give_back_ = std::exchange(other.give_back_, nullptr);
    }
    return *this;
}

BorrowedConnection::~BorrowedConnection() {
    give_back();
}

void BorrowedConnection::give_back() noexcept {
    pg_conn* const connection = std::exchange(connection_, nullptr);
    if (connection == nullptr || !give_back_) {
        return;
    }
    try {
        give_back_(connection);
    } catch (...) {
        // Documented: nothing here could act on it.
    }
}

namespace {

class BorrowedLease final : public detail::LeaseState {
  public:
    BorrowedLease(std::unique_ptr<pg::Connection> connection, BorrowedConnection origin)
        : LeaseState(std::move(connection)), origin_(std::move(origin)) {}
    // The connection's mode is put back before its owner gets it.
    ~BorrowedLease() override { connection_.reset(); }

  private:
    BorrowedConnection origin_;
};

std::unique_ptr<detail::LeaseState> lease_of(BorrowedConnection borrowed) {
    if (!borrowed) {
        throw to_error("connect", Failure(Errc::connection_unusable,
                                          "the borrowed connection cannot be used: there is none"));
    }
    auto adopted = pg::Connection::adopt(borrowed.get());
    if (!adopted) {
        throw to_error("connect", adopted.error());
    }
    return std::make_unique<BorrowedLease>(std::move(*adopted), std::move(borrowed));
}

}  // namespace

ConnectionLease::ConnectionLease() noexcept = default;
ConnectionLease::ConnectionLease(BorrowedConnection borrowed)
    : state_(lease_of(std::move(borrowed))) {}
ConnectionLease::ConnectionLease(std::unique_ptr<detail::LeaseState> state) noexcept
    : state_(std::move(state)) {}
ConnectionLease::ConnectionLease(ConnectionLease&&) noexcept = default;
ConnectionLease& ConnectionLease::operator=(ConnectionLease&&) noexcept = default;
ConnectionLease::~ConnectionLease() = default;

pg_conn* ConnectionLease::native_handle() const noexcept {
    return state_ ? state_->connection().native() : nullptr;
}

AsyncCachePool::~AsyncCachePool() = default;

ConnectionLease AsyncCachePool::try_connect() {
    return ConnectionLease();
}
asio::any_io_executor AsyncCachePool::get_executor() const noexcept {
    return {};
}

std::optional<PoolStatistics> AsyncCachePool::pool_statistics() const {
    return std::nullopt;
}

CachePool::~CachePool() = default;

}  // namespace psycache
