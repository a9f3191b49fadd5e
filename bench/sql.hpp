#pragma once

/// @file
/// A plain connection to the server of a benchmark.

#include <libpq-fe.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

namespace bench {

/// @returns where the server is: PSYCACHE_TEST_DSN, PSYCACHE_DSN, or libpq's own settings.
inline std::string dsn() {
    for (const char* name : {"PSYCACHE_TEST_DSN", "PSYCACHE_DSN"}) {
        if (const char* value = std::getenv(name)) {
            return value;
        }
    }
    return "";
}

class Sql {
  public:
    explicit Sql(const std::string& where = dsn()) : connection_(PQconnectdb(where.c_str())) {
        if (PQstatus(native()) != CONNECTION_OK) {
            throw std::runtime_error(PQerrorMessage(native()));
        }
        exec("SET client_min_messages = warning");
    }

    PGconn* native() const noexcept { return connection_.get(); }
    /// @returns the first value of the answer, if there is one.
    std::string exec(const std::string& sql) {
        const std::unique_ptr<PGresult, Clear> result(PQexec(native(), sql.c_str()));
        const auto status = PQresultStatus(result.get());
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
            throw std::runtime_error(PQresultErrorMessage(result.get()));
        }
        return PQntuples(result.get()) > 0 ? PQgetvalue(result.get(), 0, 0) : "";
    }

  private:
    struct Finish {
        void operator()(PGconn* connection) const noexcept { PQfinish(connection); }
    };
    struct Clear {
        void operator()(PGresult* result) const noexcept { PQclear(result); }
    };
    std::unique_ptr<PGconn, Finish> connection_;
};

}  // namespace bench
