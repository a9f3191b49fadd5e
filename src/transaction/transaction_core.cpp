#include "transaction/transaction_core.hpp"

#include "core/option_checks.hpp"
#include "pg/fork.hpp"

namespace psycache::detail {

namespace {

const CacheOptions& checked(const CacheOptions& options) {
    check_cache_options(options);
    return options;
}

}  // namespace

TransactionCore::TransactionCore(pg_conn* its_connection, const CacheOptions& options,
                                 asio::any_io_executor its_io)
    : observers(checked(options).instrumentations, options.log),
      statements(options.schema, !observers.empty()),
      io(std::move(its_io)),
      connection_(its_connection),
      timeout_(options.timeout),
      forks_(pg::forks()) {}

TimePoint TransactionCore::deadline(const CallOptions& options) const {
    check_call_options(options);
    return Clock::now() + options.timeout.value_or(timeout_);
}

Result<TransactionCore::Entered> TransactionCore::enter() {
    if (forks_ != pg::forks()) {
        return forked_failure();
    }
    if (in_use_.exchange(true)) {
        return Failure(Errc::connection_unusable,
                       "the connection of the transaction cannot be used: another call of this "
                       "object is running on it; make one call after the other");
    }
    Entered entered(*this);
    auto adopted = pg::Connection::adopt_transaction(connection_);
    if (!adopted) {
        return adopted.error();
    }
    entered.connection_ = std::move(*adopted);
    return entered;
}

}  // namespace psycache::detail
