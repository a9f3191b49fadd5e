#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <memory>
#include <utility>

#include <psycache/options.hpp>

#include "core/clock.hpp"
#include "core/failure.hpp"
#include "core/observers.hpp"
#include "operations/in_transaction.hpp"
#include "pg/connection.hpp"

namespace psycache::detail {

/// What TransactionCache and AsyncTransactionCache have in common: a connection of the application,
/// and the statements that may go into its transaction.
class TransactionCore {
  public:
    /// @param its_connection not null; outlives the core.
    /// @param its_io         where calls of coroutines wait for the server; empty for blocking
    /// ones.
    /// @throws std::invalid_argument for the options.
    TransactionCore(pg_conn* its_connection, const CacheOptions& options,
                    asio::any_io_executor its_io);

    /// @throws std::invalid_argument for the options.
    TimePoint deadline(const CallOptions& options) const;

    /// The connection during one call; comes back as it was found, but for what the statement has
    /// made of its transaction.
    class Entered {
      public:
        explicit Entered(TransactionCore& core) noexcept : core_(&core) {}
        Entered(Entered&& other) noexcept
            : core_(std::exchange(other.core_, nullptr)),
              connection_(std::move(other.connection_)) {}
        Entered& operator=(Entered&&) = delete;
        ~Entered() {
            connection_.reset();
            if (core_ != nullptr) {
                core_->in_use_ = false;
            }
        }

        pg::Connection& connection() const noexcept { return *connection_; }

      private:
        friend class TransactionCore;

        TransactionCore* core_;
        std::unique_ptr<pg::Connection> connection_;
    };

    /// Takes the connection for one statement. @returns why it cannot be used, before anything is
    /// sent.
    Result<Entered> enter();

    const Observers observers;
    const TransactionStatements statements;
    const asio::any_io_executor io;

  private:
    pg_conn* const connection_;
    const Duration timeout_;
    const unsigned forks_;
    std::atomic<bool> in_use_{false};
};

}  // namespace psycache::detail
