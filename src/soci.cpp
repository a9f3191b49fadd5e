#include <psycache/soci.hpp>

#include <soci/postgresql/soci-postgresql.h>
#include <soci/soci.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <limits>
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

Error unusable(const std::string& why) {
    return Error(make_error_code(Errc::connection_unusable),
                 "psycache: connect: " + why +
                     ": open every session of the pool with SOCI's PostgreSQL backend");
}

// SOCI's libraries keep the type information of their backends to themselves. So there is nothing
// for dynamic_cast to use, nor for a sanitizer that wants to check the cast.
__attribute__((no_sanitize("vptr"))) pg_conn* connection_of(soci::session& session) {
    soci::details::session_backend* backend = session.get_backend();
    if (backend == nullptr) {
        throw unusable("the SOCI session is not open");
    }
    const std::string name = backend->get_backend_name();
    if (name != "postgresql") {
        throw unusable("the SOCI session uses the backend \"" + name + "\"");
    }
    const auto* postgresql = static_cast<soci::postgresql_session_backend*>(backend);
    if (postgresql->conn_ == nullptr) {
        throw unusable("the SOCI session has lost its connection");
    }
    return postgresql->conn_;
}

}  // namespace

SociCachePool::SociCachePool(soci::connection_pool& pool, Duration acquire_timeout)
    : pool_(pool), acquire_timeout_(acquire_timeout) {
    if (acquire_timeout <= Duration::zero() || acquire_timeout == no_expiry) {
        throw std::invalid_argument("acquire_timeout must be positive and finite");
    }
}

SociCachePool::~SociCachePool() = default;

BorrowedConnection SociCachePool::connect() {
    const int timeout = milliseconds_rounded_up(acquire_timeout_);
    std::size_t index = 0;
    if (!pool_.try_lease(index, timeout)) {
        throw Error(make_error_code(Errc::acquire_timed_out),
                    "psycache: connect: no SOCI session became free within " +
                        std::to_string(timeout) +
                        " ms: make the pool larger, or hold its sessions for a shorter time");
    }
    Position position(pool_, index);
    pg_conn* connection = connection_of(position.session());
    return std::move(position).lend(connection);
}

}  // namespace psycache
