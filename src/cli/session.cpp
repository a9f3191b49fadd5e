#include "cli/session.hpp"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include <psycache/error.hpp>
#include <psycache/options.hpp>
#include <psycache/postgres_cache.hpp>

namespace psycache::cli {

namespace {

using Clock = std::chrono::steady_clock;

struct Close {
    void operator()(PGconn* connection) const { PQfinish(connection); }
};
struct Clear {
    void operator()(PGresult* result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, Clear>;

/// Longer than what the server is told, so that only a server that is silent is given up.
constexpr auto patience = std::chrono::seconds(8);

// SET LOCAL counts until the end of the statements that are sent together.
constexpr std::string_view limits =
    "SET LOCAL statement_timeout = 5000; SET LOCAL lock_timeout = 1000; "
    "SET LOCAL transaction_read_only = on; ";

std::string trimmed(const char* text) {
    std::string words = text == nullptr ? "" : text;
    words.erase(words.find_last_not_of(" \r\n") + 1);
    return words;
}

[[noreturn]] void fail(boost::system::error_code code, const char* operation, std::string cause,
                       std::string sqlstate = {}, std::string words = {}) {
    throw Error(code, operation, std::move(cause), std::move(sqlstate), std::move(words), nullptr);
}

/// Waits until the connection can be read. @returns whether it can in time.
bool readable(const PGconn* connection, Clock::time_point deadline) {
    for (;;) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        pollfd waited{PQsocket(connection), POLLIN, 0};
        const int ready = ::poll(&waited, 1, static_cast<int>(std::max<decltype(left)>(left, 0)));
        if (ready > 0) {
            return true;
        }
        if (ready == 0 || errno != EINTR) {
            return false;
        }
    }
}

/// A DSN that libpq cannot read is not repeated by the library, as libpq itself does.
void check(const Place& place) {
    PoolOptions pool;
    pool.dsn = place.dsn;
    CacheOptions options;
    options.schema = place.schema;
    const PostgresCache refuses(std::move(pool), std::move(options));
}

}  // namespace

struct Session::Native {
    std::unique_ptr<PGconn, Close> connection;
    bool given_up = false;
};

Session::Session(const Place& place, const std::string& name)
    : native_(std::make_unique<Native>()) {
    check(place);
    const char* const keywords[] = {"dbname", "connect_timeout", "client_encoding",
                                    "fallback_application_name", nullptr};
    const char* const values[] = {place.dsn.c_str(), "10", "UTF8", name.c_str(), nullptr};
    native_->connection.reset(PQconnectdbParams(keywords, values, 1));
    PGconn* const connection = native_->connection.get();
    if (PQstatus(connection) == CONNECTION_OK) {
        // The server's notices would go to standard error.
        PQsetNoticeProcessor(
            connection, [](void*, const char*) {}, nullptr);
        return;
    }
    if (PQconnectionNeedsPassword(connection) != 0 || PQconnectionUsedPassword(connection) != 0) {
        fail(Errc::authentication_failed, "connect", "the server did not let the role in", {},
             trimmed(PQerrorMessage(connection)));
    }
    fail(Errc::connect_failed, "connect", "no connection could be opened", {},
         trimmed(PQerrorMessage(connection)));
}

Session::~Session() = default;

std::vector<Session::Row> Session::query(const std::string& sql) {
    return run(std::string(limits) + sql);
}

void Session::begin() {
    run("BEGIN READ ONLY");
}

void Session::end() {
    run("ROLLBACK");
}

void Session::listen(const std::string& channel) {
    run("LISTEN " + channel);
}

std::optional<std::string> Session::next_notification(std::chrono::milliseconds time) {
    PGconn* const connection = native_->connection.get();
    const auto deadline = Clock::now() + time;
    for (;;) {
        // What a query has read is there already.
        if (PGnotify* const notification = PQnotifies(connection)) {
            std::string payload = notification->extra;
            PQfreemem(notification);
            return payload;
        }
        if (!readable(connection, deadline)) {
            return std::nullopt;
        }
        if (PQconsumeInput(connection) == 0) {
            fail(Errc::connection_lost, "query", "the connection to the server broke");
        }
    }
}

std::vector<Session::Row> Session::run(const std::string& sql) {
    PGconn* const connection = native_->connection.get();
    const auto deadline = Clock::now() + patience;
    if (!open() || PQsendQuery(connection, sql.c_str()) == 0) {
        fail(Errc::connection_lost, "query", "the connection to the server broke");
    }
    std::vector<Row> rows;
    Result failed;
    for (;;) {
        while (PQisBusy(connection) != 0) {
            if (!readable(connection, deadline)) {
                native_->given_up = true;
                fail(Errc::timed_out, "query", "the server did not answer in time");
            }
            if (PQconsumeInput(connection) == 0) {
                fail(Errc::connection_lost, "query", "the connection to the server broke");
            }
        }
        Result result(PQgetResult(connection));
        if (!result) {
            break;
        }
        switch (PQresultStatus(result.get())) {
            case PGRES_TUPLES_OK:
                for (int i = 0; i < PQntuples(result.get()); ++i) {
                    Row row;
                    for (int j = 0; j < PQnfields(result.get()); ++j) {
                        row.push_back(
                            PQgetisnull(result.get(), i, j) != 0
                                ? std::nullopt
                                : std::optional<std::string>(PQgetvalue(result.get(), i, j)));
                    }
                    rows.push_back(std::move(row));
                }
                break;
            case PGRES_COMMAND_OK:
            case PGRES_EMPTY_QUERY:
                break;
            default:
                failed = std::move(result);
        }
    }
    if (failed) {
        const char* const state = PQresultErrorField(failed.get(), PG_DIAG_SQLSTATE);
        if (state == nullptr) {
            fail(Errc::connection_lost, "query", "the connection to the server broke");
        }
        fail(sqlstate_code(state), "query", "the server refused a question", state,
             trimmed(PQresultErrorField(failed.get(), PG_DIAG_MESSAGE_PRIMARY)));
    }
    return rows;
}

std::string Session::literal(std::string_view text) const {
    PGconn* const connection = native_->connection.get();
    const std::unique_ptr<char, void (*)(void*)> quoted(
        PQescapeLiteral(connection, text.data(), text.size()), PQfreemem);
    if (!quoted) {
        fail(Errc::protocol_error, "query", "a name is not UTF-8");
    }
    return quoted.get();
}

int Session::told_process() const {
    return PQbackendPID(native_->connection.get());
}

bool Session::open() const {
    return !native_->given_up && PQstatus(native_->connection.get()) == CONNECTION_OK;
}

}  // namespace psycache::cli
