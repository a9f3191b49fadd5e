#pragma once

/// @file
/// Connections that an "application" of a test owns and lends.

#include <catch2/catch.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <psycache/borrowing_pool.hpp>

#include "run_coro.hpp"
#include "server.hpp"

namespace psycache::test {

/// A small pool of plain libpq connections; opens them on demand and drops closed ones.
class AppConnections : public std::enable_shared_from_this<AppConnections> {
  public:
    explicit AppConnections(std::string connection = dsn(), std::size_t max_size = 4)
        : dsn_(std::move(connection)), max_size_(max_size) {}
    AppConnections(const AppConnections&) = delete;
    AppConnections& operator=(const AppConnections&) = delete;
    ~AppConnections() {
        for (PGconn* connection : idle_) {
            PQfinish(connection);
        }
    }

    /// How many are lent now, and how often one was lent.
    std::size_t lent() const {
        const std::lock_guard lock(mutex_);
        return lent_;
    }
    std::size_t borrows() const {
        const std::lock_guard lock(mutex_);
        return borrows_;
    }

    /// @returns a connection or null if all are lent.
    PGconn* try_take() {
        const std::lock_guard lock(mutex_);
        if (lent_ == max_size_) {
            return nullptr;
        }
        ++lent_;
        ++borrows_;
        if (!idle_.empty()) {
            PGconn* connection = idle_.back();
            idle_.pop_back();
            return connection;
        }
        PGconn* connection = PQconnectdb(dsn_.c_str());
        PQsetNoticeProcessor(
            connection, [](void*, const char*) {}, nullptr);
        return connection;
    }
    void give_back(PGconn* connection) {
        {
            const std::lock_guard lock(mutex_);
            --lent_;
            if (PQstatus(connection) == CONNECTION_OK) {
                idle_.push_back(connection);
                connection = nullptr;
            }
        }
        if (connection != nullptr) {
            PQfinish(connection);
        }
        changed_.notify_one();
    }

    BorrowedConnection lend(PGconn* connection) {
        return BorrowedConnection(
            connection, [self = shared_from_this()](PGconn* back) { self->give_back(back); });
    }

    /// The blocking pool of these connections.
    std::shared_ptr<CachePool> pool() {
        return std::make_shared<BorrowingPool>([self = shared_from_this()] {
            for (;;) {
                if (PGconn* connection = self->try_take()) {
                    return self->lend(connection);
                }
                std::unique_lock lock(self->mutex_);
                self->changed_.wait_for(lock, 5ms);
            }
        });
    }

    /// The asynchronous pool of these connections.
    std::shared_ptr<AsyncCachePool> pool(const asio::any_io_executor& executor) {
        return std::make_shared<AsyncBorrowingPool>(
            executor, [self = shared_from_this()] { return borrow(self); });
    }

  private:
    static asio::awaitable<BorrowedConnection> borrow(std::shared_ptr<AppConnections> self) {
        for (;;) {
            if (PGconn* connection = self->try_take()) {
                co_return self->lend(connection);
            }
            co_await pause(1ms);
        }
    }

    std::string dsn_;
    std::size_t max_size_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<PGconn*> idle_;
    std::size_t lent_ = 0;
    std::size_t borrows_ = 0;
};

}  // namespace psycache::test
