#include "throughput/postgres.hpp"

#include <unistd.h>

#include <array>
#include <boost/json/serialize.hpp>
#include <iostream>
#include <stdexcept>
#include <utility>

#include <psycache/table.hpp>

#include "throughput/cpu_time.hpp"

namespace bench {

namespace {

constexpr const char* live = " AND expires_at > statement_timestamp()";
constexpr const char* replace =
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at";

std::optional<pid_t> local_postmaster(const PlainConnection& connection) {
    const char* const name = PQhost(connection.get());
    const std::string host = name != nullptr ? name : "";
    if (!host.empty() && host.front() != '/' && host != "localhost" && host != "127.0.0.1") {
        return std::nullopt;
    }
    const auto backend = static_cast<pid_t>(PQbackendPID(connection.get()));
    // A container's server has process numbers of its own.
    return is_postgres(backend) ? parent_of(backend) : std::nullopt;
}

}  // namespace

PlainConnection::PlainConnection(const std::string& dsn) : connection_(PQconnectdb(dsn.c_str())) {
    if (PQstatus(connection_) != CONNECTION_OK) {
        const std::string why = PQerrorMessage(connection_);
        PQfinish(connection_);
        throw std::runtime_error(why);
    }
    PQsetClientEncoding(connection_, "UTF8");
}

PlainConnection::~PlainConnection() {
    PQfinish(connection_);
}

ResultPtr PlainConnection::checked(PGresult* raw) const {
    ResultPtr result(raw);
    const ExecStatusType status = PQresultStatus(raw);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        throw std::runtime_error(PQerrorMessage(connection_));
    }
    return result;
}

ResultPtr PlainConnection::execute(const std::string& sql) const {
    return checked(PQexec(connection_, sql.c_str()));
}

std::string PlainConnection::value(const std::string& sql) const {
    const ResultPtr result = execute(sql);
    return PQgetvalue(result.get(), 0, 0);
}

std::string get_sql(const std::string& table, const std::string& key) {
    return "SELECT value FROM " + table + " WHERE key = " + key + live;
}

std::string put_sql(const std::string& table, const std::string& key, const std::string& value,
                    const std::string& ttl) {
    return "INSERT INTO " + table + " (key, value, expires_at) SELECT " + key + "::text, " + value +
           "::jsonb, coalesce(statement_timestamp() + " + ttl +
           "::bigint * interval '1 microsecond', 'infinity'::timestamptz)" + replace;
}

std::string python_get_sql(const std::string& table, const std::string& key) {
    return "SELECT value, pg_column_size(value) FROM " + table + " WHERE key = " + key + live;
}

std::string python_put_sql(const std::string& table, const std::string& key,
                           const std::string& value, const std::string& expiry) {
    return "INSERT INTO " + table + " (key, value, expires_at) VALUES (" + key + ", " + value +
           ", " + expiry + ")" + replace + " RETURNING pg_column_size(value)";
}

Postgres::Postgres(const std::string& dsn)
    : prefix_("psycache_bench_" + std::to_string(getpid())),
      dsn_(dsn),
      admin_(dsn),
      postmaster_(local_postmaster(admin_)) {
    admin_.execute("SET client_min_messages = error");
}

Postgres::~Postgres() {
    for (const auto& [size, schema] : schemas_) {
        const ResultPtr dropped(
            PQexec(admin_.get(), ("DROP SCHEMA IF EXISTS " + schema + " CASCADE").c_str()));
        if (PQresultStatus(dropped.get()) != PGRES_COMMAND_OK) {
            std::cerr << "could not drop the schema " << schema << '\n';
        }
    }
}

void Postgres::load(const Data& data) {
    const std::string name = prefix_ + "_" + std::to_string(data.value_size());
    admin_.execute("CREATE SCHEMA " + name);
    schemas_[data.value_size()] = name;
    psycache::TableOptions options;
    options.schema = name;
    psycache::init_db(admin_.get(), options);

    const std::string insert =
        put_sql(table(data.value_size()), "$1", "$2", std::to_string(entry_ttl.count()));
    const std::string statement = "load_" + std::to_string(data.value_size());
    admin_.checked(PQprepare(admin_.get(), statement.c_str(), insert.c_str(), 0, nullptr));
    const auto store = [&](const std::string& key, const std::string& text) {
        const std::array<const char*, 2> values{key.c_str(), text.c_str()};
        admin_.checked(
            PQexecPrepared(admin_.get(), statement.c_str(), 2, values.data(), nullptr, nullptr, 0));
    };
    admin_.execute("BEGIN");
    for (std::size_t id = 0; id < data.key_count(); ++id) {
        store(data.hits()[id], json::serialize(value_of(data.value_size(), id)));
        store(data.puts()[id], data.put_text());
    }
    admin_.execute("COMMIT");
    admin_.execute("VACUUM ANALYZE " + table(data.value_size()));
}

void Postgres::tidy() const {
    for (const auto& [size, schema] : schemas_) {
        admin_.execute("VACUUM " + schema + ".psycache");
    }
}

std::string Postgres::schema(std::size_t value_size) const {
    return schemas_.at(value_size);
}

std::size_t Postgres::max_connections() const {
    return std::stoul(admin_.value("SHOW max_connections"));
}

std::optional<double> Postgres::cpu_seconds() const {
    return postmaster_ ? bench::cpu_seconds_of(*postmaster_, true) : std::nullopt;
}

}  // namespace bench
