// A cache on connections that the application has already: AsyncBorrowingPool over an asynchronous
// pool of PGconn, and BorrowingPool over a blocking one.
//
// What is borrowed comes back as it was found; a connection inside a transaction is refused.
//
// The database is that of PSYCACHE_DSN.

#include <libpq-fe.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/object.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <iostream>
#include <list>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <psycache/psycache.hpp>

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

// ---- what the application has: connections, and two ways to wait for one ------------------------

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
std::string first_value(PGconn* connection, const char* sql) {
    const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQexec(connection, sql), &PQclear);
    const ExecStatusType status = PQresultStatus(result.get());
    expect(status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK, sql);
    return status == PGRES_TUPLES_OK ? PQgetvalue(result.get(), 0, 0) : "";
}

/// Connections for the coroutines of one thread: a coroutine that finds none free waits for one.
class AsyncConnections {
  public:
    AsyncConnections(asio::any_io_executor executor, const std::string& dsn, int size)
        : executor_(std::move(executor)) {
        for (int i = 0; i < size; ++i) {
            all_.push_back(open(dsn));
            idle_.push_back(all_.back().get());
        }
    }

    asio::awaitable<PGconn*> acquire() {
        if (idle_.empty()) {
            // Waiters are served in order, and not for ever.
            Waiter self{asio::steady_timer(executor_, 4s), nullptr};
            const auto place = waiting_.insert(waiting_.end(), &self);
            boost::system::error_code ignored;
            co_await self.timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
            waiting_.erase(place);
            if (self.connection == nullptr) {
                throw psycache::Error(make_error_code(psycache::Errc::acquire_timed_out),
                                      "psycache: connect: all connections are in use");
            }
            co_return self.connection;
        }
        PGconn* const connection = idle_.front();
        idle_.pop_front();
        co_return connection;
    }

    void release(PGconn* connection) {
        if (PQstatus(connection) != CONNECTION_OK) {
            PQreset(connection);  // blocks; a real pool would rather open a new one meanwhile
        }
        for (Waiter* waiter : waiting_) {
            if (waiter->connection == nullptr) {
                waiter->connection = connection;
                waiter->timer.cancel();
                return;
            }
        }
        idle_.push_back(connection);
    }

    const asio::any_io_executor& executor() const { return executor_; }

  private:
    struct Waiter {
        asio::steady_timer timer;
        PGconn* connection;
    };

    asio::any_io_executor executor_;
    std::vector<Connection> all_;
    std::deque<PGconn*> idle_;
    std::list<Waiter*> waiting_;
};

/// Connections for threads: a thread that finds none free blocks.
class BlockingConnections {
  public:
    explicit BlockingConnections(std::vector<Connection> connections)
        : idle_(std::move(connections)) {}

    PGconn* acquire() {
        std::unique_lock lock(mutex_);
        if (!available_.wait_for(lock, 4s, [this] { return !idle_.empty(); })) {
            throw psycache::Error(make_error_code(psycache::Errc::acquire_timed_out),
                                  "psycache: connect: all connections are in use");
        }
        PGconn* const connection = idle_.back().release();
        idle_.pop_back();
        return connection;
    }

    void release(PGconn* connection) {
        const std::lock_guard lock(mutex_);
        idle_.emplace_back(connection);
        available_.notify_one();
    }

  private:
    std::mutex mutex_;
    std::condition_variable available_;
    std::vector<Connection> idle_;
};

void expect_untouched(PGconn* connection) {
    expect(PQtransactionStatus(connection) == PQTRANS_IDLE, "no transaction is left open");
    expect(PQisnonblocking(connection) == 0, "it blocks as before");
    expect(PQpipelineStatus(connection) == PQ_PIPELINE_OFF, "it is in no pipeline");
    expect(first_value(connection, "SELECT count(*) FROM pg_prepared_statements") == "0",
           "no prepared statement is left behind");
}

// ---- coroutines ---------------------------------------------------------------------------------

/// The whole adapter: acquire, and say how to give back.
std::shared_ptr<psycache::AsyncCachePool> adapt(std::shared_ptr<AsyncConnections> connections) {
    auto borrow = [connections]() -> asio::awaitable<psycache::BorrowedConnection> {
        PGconn* const connection = co_await connections->acquire();
        // Given back on whatever thread ends the use: the application's own pool wants its own one.
        auto give_back = [connections](PGconn* returned) {
            asio::post(connections->executor(),
                       [connections, returned] { connections->release(returned); });
        };
        co_return psycache::BorrowedConnection(connection, std::move(give_back));
    };
    return std::make_shared<psycache::AsyncBorrowingPool>(connections->executor(),
                                                          std::move(borrow));
}

asio::awaitable<void> borrow_in_coroutines(std::shared_ptr<AsyncConnections> connections,
                                           std::string key) {
    psycache::AsyncPostgresCache cache(adapt(connections));
    json::object value = {{"on", "a borrowed connection"}};
    co_await cache.put_raw(key, value, 1min);
    auto got = co_await cache.get_raw(key);
    expect(got == value, "the value that was put");

    // The cache holds a connection for the time of a statement only.
    PGconn* const connection = co_await connections->acquire();
    expect_untouched(connection);
    std::cout << "coroutines: a hit, and the connection is as it was\n";

    // There is one connection in this pool. Lent inside a transaction it is refused, and stays as
    // it is: the cache must not write as part of somebody else's work.
    first_value(connection, "BEGIN");
    connections->release(connection);
    boost::system::error_code code;
    try {
        co_await cache.remove(key);
    } catch (const psycache::Error& error) {
        code = error.code();
        std::cout << "refused, as it must be: " << error.what() << '\n';
    }
    expect(code == psycache::Errc::connection_unusable, "Errc::connection_unusable");

    PGconn* const again = co_await connections->acquire();
    expect(PQtransactionStatus(again) == PQTRANS_INTRANS, "the transaction goes on");
    first_value(again, "ROLLBACK");
    connections->release(again);
    const bool removed = co_await cache.remove(key);
    expect(removed, "the next call works");
}

// ---- threads ------------------------------------------------------------------------------------

void borrow_in_threads(const std::string& dsn, const std::string& key) {
    std::vector<Connection> opened;
    opened.push_back(open(dsn));
    BlockingConnections connections(std::move(opened));

    psycache::PostgresCache cache(std::make_shared<psycache::BorrowingPool>([&connections] {
        return psycache::BorrowedConnection(
            connections.acquire(), [&connections](PGconn* back) { connections.release(back); });
    }));
    const json::object value = {{"on", "a borrowed connection"}};
    cache.put_raw(key, value, 1min);
    expect(cache.get_raw(key) == value, "the value that was put");
    expect(cache.remove(key), "it was there");

    PGconn* const connection = connections.acquire();
    expect_untouched(connection);
    connections.release(connection);
    std::cout << "threads: a hit, and the connection is as it was\n";
}

}  // namespace

int main() {
    try {
        const char* const variable = std::getenv("PSYCACHE_DSN");
        const std::string dsn = variable != nullptr ? variable : "";
        const std::string key = "borrowed_connections:" + std::to_string(std::random_device{}());

        // init_db takes a connection of the application, too.
        psycache::init_db(open(dsn).get());

        asio::io_context context(1);
        auto connections = std::make_shared<AsyncConnections>(context.get_executor(), dsn, 1);
        std::exception_ptr failure;
        asio::co_spawn(context, borrow_in_coroutines(connections, key),
                       [&](std::exception_ptr e) { failure = e; });
        context.run();
        if (failure) {
            std::rethrow_exception(failure);
        }

        borrow_in_threads(dsn, key);
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "borrowed_connections: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
