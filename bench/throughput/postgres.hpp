// The PostgreSQL server: plain connections, and tables filled for this run.
#pragma once

#include <libpq-fe.h>

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "throughput/contender.hpp"
#include "throughput/data.hpp"

namespace bench {

struct ClearResult {
    void operator()(PGresult* result) const { PQclear(result); }
};
using ResultPtr = std::unique_ptr<PGresult, ClearResult>;

/// One blocking connection; errors are thrown.
class PlainConnection {
  public:
    explicit PlainConnection(const std::string& dsn);
    PlainConnection(const PlainConnection&) = delete;
    PlainConnection& operator=(const PlainConnection&) = delete;
    ~PlainConnection();

    PGconn* get() const { return connection_; }
    ResultPtr checked(PGresult* raw) const;
    ResultPtr execute(const std::string& sql) const;
    std::string value(const std::string& sql) const;

  private:
    PGconn* connection_;
};

/// What the cache sends for a lone call, and what psycache for Python sends. The parameters are
/// given as text, since pgbench calls them otherwise than libpq does.
std::string get_sql(const std::string& table, const std::string& key);
std::string put_sql(const std::string& table, const std::string& key, const std::string& value,
                    const std::string& ttl);
std::string python_get_sql(const std::string& table, const std::string& key);
std::string python_put_sql(const std::string& table, const std::string& key,
                           const std::string& value, const std::string& expiry);

/// A server, with a schema of this run for every value size; they are dropped at the end.
class Postgres {
  public:
    explicit Postgres(const std::string& dsn);
    Postgres(const Postgres&) = delete;
    Postgres& operator=(const Postgres&) = delete;
    ~Postgres();

    /// Makes and fills the table of these entries.
    void load(const Data& data);
    /// What autovacuum would do some time, done now.
    void tidy() const;

    const std::string& dsn() const { return dsn_; }
    const PlainConnection& admin() const { return admin_; }
    std::string schema(std::size_t value_size) const;
    std::string table(std::size_t value_size) const { return schema(value_size) + ".psycache"; }
    std::size_t max_connections() const;
    /// The process that starts all others of the server; nullopt when it runs elsewhere.
    std::optional<pid_t> postmaster() const { return postmaster_; }

    /// Of the whole server: all its processes, dead ones included.
    std::optional<double> cpu_seconds() const;

  private:
    std::string prefix_;
    std::string dsn_;
    PlainConnection admin_;
    std::map<std::size_t, std::string> schemas_;
    std::optional<pid_t> postmaster_;
};

}  // namespace bench
