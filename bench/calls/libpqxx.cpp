#include "calls/contender.hpp"

#ifdef PSYCACHE_BENCH_PQXX
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstring>
#include <pqxx/pqxx>
#include <string_view>

#include "calls/postgres.hpp"
#endif

namespace bench {

#ifdef PSYCACHE_BENCH_PQXX

namespace {

class PqxxSession : public Session {
  public:
    explicit PqxxSession(const std::string& schema) : connection_(dsn_of_environment()) {
        connection_.prepare("get", get_sql(schema));
        connection_.prepare("put", put_sql(schema));
    }

    std::optional<json::object> get(const std::string& key) override {
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

std::unique_ptr<Contender> libpqxx(const Job& job, const Data& data) {
    return std::make_unique<ThreadsContender>(
        job, data, [&job] { return std::make_unique<PqxxSession>(job.schema); });
}

#else

std::unique_ptr<Contender> libpqxx(const Job& /*job*/, const Data& /*data*/) {
    throw Unavailable("built without libpqxx (Debian: libpqxx-dev)");
}

#endif

}  // namespace bench
