// An invalidation that commits or rolls back with the data it belongs to: the application updates a
// row and removes the entry made of it in one transaction, on its own connection. A cache outside
// of the database cannot do that: there, one of the two can happen without the other.
//
// The database is that of PSYCACHE_DSN.

#include <libpq-fe.h>

#include <boost/json/object.hpp>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>

#include <psycache/psycache.hpp>

namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

// ---- what the application has: a connection, and a table ----------------------------------------

struct Finish {
    void operator()(PGconn* connection) const { PQfinish(connection); }
};
using Connection = std::unique_ptr<PGconn, Finish>;

Connection open(const std::string& dsn) {
    // The cache speaks UTF-8, whatever the database's own encoding is.
    const char* const keywords[] = {"dbname", "client_encoding", nullptr};
    const char* const values[] = {dsn.c_str(), "UTF8", nullptr};
    Connection connection(PQconnectdbParams(keywords, values, 1));
    if (PQstatus(connection.get()) != CONNECTION_OK) {
        throw std::runtime_error(PQerrorMessage(connection.get()));
    }
    return connection;
}

/// A statement of the application: the first value of its answer, "" if it has none.
std::string run(PGconn* connection, const std::string& sql) {
    const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQexec(connection, sql.c_str()),
                                                               &PQclear);
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        throw std::runtime_error(PQresultErrorMessage(result.get()));
    }
    return PQntuples(result.get()) > 0 ? PQgetvalue(result.get(), 0, 0) : "";
}

/// A transaction that is rolled back unless it is committed.
class Transaction {
  public:
    explicit Transaction(PGconn* connection) : connection_(connection) { run(connection, "BEGIN"); }
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    ~Transaction() {
        if (!ended_) {
            PQclear(PQexec(connection_, "ROLLBACK"));
        }
    }
    void commit() {
        run(connection_, "COMMIT");
        ended_ = true;
    }

  private:
    PGconn* connection_;
    bool ended_ = false;
};

// ---- data and cache -----------------------------------------------------------------------------

class Accounts {
  public:
    explicit Accounts(const std::string& dsn)
        : connection_(open(dsn)),
          table_("example_account_" + std::to_string(std::random_device{}())),
          cache_(pool_of(dsn)) {
        run(connection_.get(),
            "CREATE TABLE " + table_ + " (id int PRIMARY KEY, name text CHECK (name <> ''))");
        run(connection_.get(), "INSERT INTO " + table_ + " VALUES (7, 'Ada')");
    }
    ~Accounts() { PQclear(PQexec(connection_.get(), ("DROP TABLE " + table_).c_str())); }
    Accounts(const Accounts&) = delete;
    Accounts& operator=(const Accounts&) = delete;

    /// From the cache, or else from the table.
    std::string name() {
        if (const std::optional<json::object> hit = cache_.get_raw(key())) {
            return "cached " + std::string(hit->at("name").as_string());
        }
        const std::string name =
            run(connection_.get(), "SELECT name FROM " + table_ + " WHERE id = 7");
        cache_.put_raw(key(), json::object{{"name", name}}, 1min);
        return "stored " + name;
    }

    /// Both change when this returns, and neither if it throws.
    void rename(const std::string& name) {
        Transaction transaction(connection_.get());
        // In the same transaction, so that there is no moment at which only one of the two is done.
        psycache::TransactionCache(connection_.get()).remove(key());
        run(connection_.get(), "UPDATE " + table_ + " SET name = '" + name + "' WHERE id = 7");
        transaction.commit();
    }

  private:
    static psycache::PoolOptions pool_of(const std::string& dsn) {
        psycache::PoolOptions options;
        options.dsn = dsn;
        return options;
    }
    std::string key() const { return table_ + ":7"; }

    Connection connection_;
    std::string table_;
    psycache::PostgresCache cache_;
};

void show(const std::string& dsn) {
    psycache::init_db(dsn);
    Accounts accounts(dsn);
    expect(accounts.name() == "stored Ada", "a miss at first");
    expect(accounts.name() == "cached Ada", "then a hit");

    accounts.rename("Grace");
    expect(accounts.name() == "stored Grace", "the entry went with the old name");
    std::cout << "committed: the row is updated, and its entry is removed\n";

    expect(accounts.name() == "cached Grace", "a hit");
    try {
        accounts.rename("");  // which the table refuses, after the entry was removed
        expect(false, "an error");
    } catch (const std::runtime_error& error) {
        expect(accounts.name() == "cached Grace", "the entry is still there");
        std::cout << "rolled back: the row and its entry are as they were\n";
    }

    // Without a transaction there is nothing that it could be a part of.
    const Connection connection = open(dsn);
    try {
        psycache::TransactionCache(connection.get()).remove("key");
        expect(false, "an error");
    } catch (const psycache::Error& error) {
        std::cout << "refused, as it must be: " << error.what() << '\n';
        expect(error.code() == psycache::Errc::connection_unusable, "Errc::connection_unusable");
    }
}

}  // namespace

int main() {
    try {
        const char* const dsn = std::getenv("PSYCACHE_DSN");
        show(dsn != nullptr ? dsn : "");
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "transactional_invalidation: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
