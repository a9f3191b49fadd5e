// The PostgreSQL server: plain connections, and the table of a run.
#pragma once

#include <libpq-fe.h>

#include <memory>
#include <string>

#include "calls/job.hpp"

namespace bench {

/// The server of PSYCACHE_TEST_DSN or PSYCACHE_DSN.
std::string dsn_of_environment();

struct ClearResult {
    void operator()(PGresult* result) const { PQclear(result); }
};
using ResultPtr = std::unique_ptr<PGresult, ClearResult>;

/// One blocking connection; errors are thrown.
class Connection {
  public:
    Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection() { PQfinish(connection_); }

    PGconn* get() const { return connection_; }
    ResultPtr checked(PGresult* raw) const;
    ResultPtr execute(const std::string& sql) const;

  private:
    PGconn* connection_;
};

/// What the cache sends for a lone call; the parameters are $1, $2 and $3.
std::string get_sql(const std::string& schema);
std::string put_sql(const std::string& schema);

/// Makes the job's schema and table, and fills it.
void fill(const Job& job, const Data& data);

}  // namespace bench
