#include "calls/postgres.hpp"

#include <array>
#include <boost/json/serialize.hpp>
#include <cstdlib>
#include <stdexcept>

#include <psycache/table.hpp>

namespace bench {

std::string dsn_of_environment() {
    for (const char* name : {"PSYCACHE_TEST_DSN", "PSYCACHE_DSN"}) {
        if (const char* dsn = std::getenv(name)) {
            return dsn;
        }
    }
    throw std::runtime_error("PSYCACHE_TEST_DSN or PSYCACHE_DSN must name a server");
}

Connection::Connection() : connection_(PQconnectdb(dsn_of_environment().c_str())) {
    if (PQstatus(connection_) != CONNECTION_OK) {
        const std::string why = PQerrorMessage(connection_);
        PQfinish(connection_);
        throw std::runtime_error(why);
    }
    PQsetClientEncoding(connection_, "UTF8");
}

ResultPtr Connection::checked(PGresult* raw) const {
    ResultPtr result(raw);
    const ExecStatusType status = PQresultStatus(raw);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        throw std::runtime_error(PQerrorMessage(connection_));
    }
    return result;
}

ResultPtr Connection::execute(const std::string& sql) const {
    return checked(PQexec(connection_, sql.c_str()));
}

std::string get_sql(const std::string& schema) {
    return "SELECT value FROM " + schema +
           ".psycache WHERE key = $1 AND expires_at > statement_timestamp()";
}

std::string put_sql(const std::string& schema) {
    return "INSERT INTO " + schema +
           ".psycache (key, value, expires_at) SELECT $1::text, $2::jsonb,"
           " coalesce(statement_timestamp() + $3::bigint * interval '1 microsecond',"
           " 'infinity'::timestamptz) ON CONFLICT (key) DO UPDATE SET value = excluded.value,"
           " expires_at = excluded.expires_at";
}

void fill(const Job& job, const Data& data) {
    const Connection connection;
    connection.execute("CREATE SCHEMA " + job.schema);
    psycache::TableOptions options;
    options.schema = job.schema;
    psycache::init_db(connection.get(), options);

    const std::string insert = put_sql(job.schema);
    const std::string ttl = std::to_string(entry_ttl.count());
    connection.checked(PQprepare(connection.get(), "put", insert.c_str(), 0, nullptr));
    const auto store = [&](const std::string& key, const std::string& text) {
        const std::array<const char*, 3> values{key.c_str(), text.c_str(), ttl.c_str()};
        connection.checked(
            PQexecPrepared(connection.get(), "put", 3, values.data(), nullptr, nullptr, 0));
    };
    connection.execute("BEGIN");
    for (std::size_t id = 0; id < job.key_count; ++id) {
        store(data.hits()[id], json::serialize(value_of(job.value_size, id)));
        store(data.puts()[id], data.put_text());
    }
    connection.execute("COMMIT");
    connection.execute("VACUUM ANALYZE " + job.schema + ".psycache");
}

}  // namespace bench
