#include <psycache/soci.hpp>

#include <soci/postgresql/soci-postgresql.h>
#include <soci/soci.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <limits>
#include <list>
#include <stdexcept>
#include <string>
#include <utility>

#include <psycache/error.hpp>

namespace psycache {

namespace {

/// A leased position of a SOCI pool, given back unless it is handed on.
class Position {
  public:
    Position(soci::connection_pool& pool, std::size_t index) noexcept
        : pool_(&pool), index_(index) {}
    Position(const Position&) = delete;
    Position& operator=(const Position&) = delete;
    ~Position() {
        if (pool_ != nullptr) {
            give_back(*pool_, index_);
        }
    }

    soci::session& session() const { return pool_->at(index_); }

    /// The session's connection, lent together with the position.
    BorrowedConnection lend(pg_conn* connection) && {
        BorrowedConnection borrowed(
            connection, [pool = pool_, index = index_](pg_conn*) { give_back(*pool, index); });
        pool_ = nullptr;
        return borrowed;
    }

  private:
    static void give_back(soci::connection_pool& pool, std::size_t index) noexcept {
        try {
            pool.give_back(index);
        } catch (const std::exception&) {  // the position is free already: nothing to give back
        }
    }

    soci::connection_pool* pool_;
    std::size_t index_;
};

/// SOCI counts milliseconds in an int, and takes a negative number for "for ever".
int milliseconds_rounded_up(Duration duration) {
    const auto count = std::chrono::ceil<std::chrono::milliseconds>(duration).count();
    constexpr auto most = std::chrono::milliseconds::rep{std::numeric_limits<int>::max()};
    return static_cast<int>(std::min(count, most));
}

Error refused(Errc code, std::string why, std::string operation = "connect") {
    return {code, std::move(operation), std::move(why), "", "", nullptr};
}

/// The connection of a session, or why it has none.
struct Found {
    pg_conn* connection = nullptr;
    std::string why_not;
};

// SOCI's libraries keep the type information of their backends to themselves. So there is nothing
// for dynamic_cast to use, nor for a sanitizer that wants to check the cast.
__attribute__((no_sanitize("vptr"))) Found connection_of(soci::session& session) {
    soci::details::session_backend* backend = session.get_backend();
    if (backend == nullptr) {
        return {nullptr, "the SOCI session is not open"};
    }
    const std::string name = backend->get_backend_name();
    if (name != "postgresql") {
        return {nullptr, "the SOCI session uses the backend \"" + name + "\""};
    }
    const auto* postgresql = static_cast<soci::postgresql_session_backend*>(backend);
    return {postgresql->conn_, "the SOCI session has lost its connection"};
}

pg_conn* open_connection_of(soci::session& session) {
    Found found = connection_of(session);
    if (found.connection == nullptr) {
        throw refused(Errc::connection_unusable,
                      found.why_not + ": open it with SOCI's PostgreSQL backend", "transaction");
    }
    return found.connection;
}

}  // namespace

SociTransactionCache::SociTransactionCache(soci::session& session, CacheOptions options)
    : TransactionCache(open_connection_of(session), std::move(options)) {}

SociCachePool::SociCachePool(soci::connection_pool& pool, Duration acquire_timeout)
    : pool_(pool), acquire_timeout_(acquire_timeout) {
    if (acquire_timeout <= Duration::zero() || acquire_timeout == no_expiry) {
        throw std::invalid_argument("acquire_timeout must be positive and finite");
    }
}

SociCachePool::~SociCachePool() = default;

BorrowedConnection SociCachePool::connect() {
    const int timeout = milliseconds_rounded_up(acquire_timeout_);
    // SOCI's pool lends the first free session. One that is of no use is held back meanwhile, so
    // that others have their turn.
    std::list<Position> held_back;
    Position* lost = nullptr;
    std::string why_not;
    std::size_t index = 0;
    for (int patience = timeout; pool_.try_lease(index, patience); patience = 0) {
        Position& position = held_back.emplace_back(pool_, index);
        Found found = connection_of(position.session());
        if (found.connection == nullptr) {
            why_not = std::move(found.why_not);
        } else if (PQstatus(found.connection) == CONNECTION_OK) {
            return std::move(position).lend(found.connection);
        } else {
            lost = &position;
        }
    }
    if (lost != nullptr) {
        pg_conn* connection = connection_of(lost->session()).connection;
        PQreset(connection);
        if (PQstatus(connection) == CONNECTION_OK) {
            return std::move(*lost).lend(connection);
        }
        throw refused(Errc::connect_failed,
                      "the SOCI sessions that are free have lost their connections, and the server "
                      "cannot be reached");
    }
    if (!held_back.empty()) {
        throw refused(Errc::connection_unusable,
                      why_not + ": open every session of the pool with SOCI's PostgreSQL backend");
    }
    throw refused(Errc::acquire_timed_out,
                  "no SOCI session became free within " + std::to_string(timeout) +
                      " ms: make the pool larger, or hold its sessions for a shorter time");
}

}  // namespace psycache
