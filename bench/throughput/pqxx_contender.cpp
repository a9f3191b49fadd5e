// libpqxx, as its manual shows it: one connection for each thread, prepared statements.

#include "throughput/blocking.hpp"
#include "throughput/contenders.hpp"

#ifdef PSYCACHE_BENCH_PQXX
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstring>
#include <pqxx/pqxx>
#include <string_view>
#endif

namespace bench {

#ifdef PSYCACHE_BENCH_PQXX

namespace {

class PqxxSession : public Session {
  public:
    PqxxSession(const std::string& dsn, const std::string& table) : connection_(dsn) {
        connection_.prepare("get", get_sql(table, "$1"));
        connection_.prepare("put", put_sql(table, "$1", "$2", "$3"));
    }

    bool get(const std::string& key) override { return read(key).has_value(); }

    std::optional<json::object> read(const std::string& key) override {
        // Autocommit: no BEGIN and COMMIT around the statement.
        pqxx::nontransaction transaction(connection_);
        const pqxx::result result = transaction.exec_prepared("get", key);
        if (result.empty()) {
            return std::nullopt;
        }
        const pqxx::field field = result[0][0];
        json::value value = json::parse(std::string_view(field.c_str(), field.size()));
        return std::move(value.as_object());
    }

    void put(const std::string& key, const json::object& value) override {
        pqxx::nontransaction transaction(connection_);
        transaction.exec_prepared("put", key, json::serialize(value), entry_ttl.count());
    }

  private:
    pqxx::connection connection_;
};

}  // namespace

std::unique_ptr<Contender> libpqxx(const Arena& arena, const Data& data, const Workload& workload,
                                   std::size_t threads) {
    const Postgres& server = *arena.postgres;
    std::vector<std::unique_ptr<Session>> sessions;
    for (std::size_t i = 0; i < threads; ++i) {
        sessions.push_back(
            std::make_unique<PqxxSession>(server.dsn(), server.table(data.value_size())));
    }
    return blocking_contender(
        data, workload, [&server] { return server.cpu_seconds(); }, std::move(sessions));
}

#else

std::unique_ptr<Contender> libpqxx(const Arena& /*arena*/, const Data& /*data*/,
                                   const Workload& /*workload*/, std::size_t /*threads*/) {
    throw Unavailable("built without libpqxx (Debian: libpqxx-dev)");
}

#endif

}  // namespace bench
