#include "pg/connection.hpp"

#include <libpq-fe.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>

#include "pg/resolve.hpp"
#include "sqlstate.hpp"

namespace psycache::pg {

namespace {

using Descriptor = asio::posix::stream_descriptor;

struct Finish {
    void operator()(PGconn* connection) const noexcept { PQfinish(connection); }
};
using Handle = std::unique_ptr<PGconn, Finish>;

struct Clear {
    void operator()(PGresult* result) const noexcept { PQclear(result); }
};
using ResultHandle = std::unique_ptr<PGresult, Clear>;

/// Keeps notices from the program's stderr, and learns from one when the server ends an idle
/// session: its last words come as a notice, a moment before the end of the stream.
void receive_notice(void* ended, const PGresult* notice) {
    const char* severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (ended != nullptr && severity != nullptr &&
        (std::strcmp(severity, "FATAL") == 0 || std::strcmp(severity, "PANIC") == 0)) {
        *static_cast<bool*>(ended) = true;
    }
}

/// libpq closes its socket whenever it likes, and the next one often gets the same number. Asio
/// therefore watches a duplicate, which nobody else can close.
Descriptor duplicate_of(const PGconn* connection, const asio::any_io_executor& executor) {
    return Descriptor(executor, ::dup(PQsocket(connection)));
}

std::string field(const PGresult* result, int code) {
    const char* text = PQresultErrorField(result, code);
    return text == nullptr ? std::string() : std::string(text);
}

bool is_error(const PGresult* result) noexcept {
    const ExecStatusType status = PQresultStatus(result);
    return status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK;
}

/// Where an error came from: told apart by the server function that raised it.
bool is_changed_plan(const PGresult* result) {
    return field(result, PG_DIAG_SQLSTATE) == "0A000" &&
           field(result, PG_DIAG_SOURCE_FUNCTION) == "RevalidateCachedQuery";
}

std::string first_line(const char* message) {
    std::string line(message, std::strcspn(message, "\n"));
    return line;
}

Failure connect_failure(PGconn* connection) {
    const char* message = PQerrorMessage(connection);
    const std::string_view sqlstate = find_sqlstate(message);
    if (sqlstate.empty()) {
        // libpq's own words: a host, a port, the reason; the server has said nothing.
        return {Errc::connect_failed, "cannot connect to the server: " + first_line(message)};
    }
    Failure failure = server_failure(sqlstate, message);
    failure.cause = "cannot connect to the server: " + failure.cause;
    if (failure.code != Errc::authentication_failed) {
        failure.code = make_error_code(Errc::connect_failed);
    }
    return failure;
}

/// Tells the hosts of a list apart while libpq works through it.
std::string current_host(const PGconn* connection) {
    const auto text = [](const char* part) { return part == nullptr ? "" : part; };
    return std::string(text(PQhost(connection))) + ' ' + text(PQhostaddr(connection)) + ' ' +
           text(PQport(connection));
}

PGconn* start_connecting(const ConnectParameters& parameters) {
    std::vector<const char*> keywords;
    std::vector<const char*> values;
    for (const auto& [keyword, value] : parameters) {
        keywords.push_back(keyword.c_str());
        values.push_back(value.c_str());
    }
    keywords.push_back(nullptr);
    values.push_back(nullptr);
    PGconn* const connection = PQconnectStartParams(keywords.data(), values.data(), 1);
    // Only the verbose text of a connect error holds its SQLSTATE.
    PQsetErrorVerbosity(connection, PQERRORS_VERBOSE);
    PQsetNoticeReceiver(connection, receive_notice, nullptr);
    return connection;
}

/// The place in a host list behind the host that libpq is trying.
std::vector<Host>::const_iterator behind_current(const std::vector<Host>& hosts,
                                                 const PGconn* connection) {
    const auto is = [](const std::string& ours, const char* theirs) {
        return theirs != nullptr && ours == theirs;
    };
    const auto current = std::find_if(hosts.begin(), hosts.end(), [&](const Host& host) {
        const bool same_port = host.port.empty() || is(host.port, PQport(connection));
        return same_port && (host.address.empty() ? is(host.name, PQhost(connection))
                                                  : is(host.address, PQhostaddr(connection)));
    });
    return current == hosts.end() ? current : current + 1;
}

/// Polls libpq until it has connected or given up, with so much time for each host.
/// @returns false when the host that it is trying has used up its time.
asio::awaitable<bool> poll_connecting(PGconn* connection, Watch& watch,
                                      std::chrono::steady_clock::duration share) {
    const asio::any_io_executor strand = co_await asio::this_coro::executor;
    std::string trying;
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;
    while (PQstatus(connection) != CONNECTION_BAD && next != PGRES_POLLING_OK &&
           next != PGRES_POLLING_FAILED) {
        if (std::string host = current_host(connection); host != trying) {
            trying = std::move(host);
            watch.arm(std::chrono::steady_clock::now() + share, strand);
        }
        {
            Descriptor descriptor = duplicate_of(connection, strand);
            const Watch::Guard<Descriptor> guard(watch, descriptor);
            const auto event =
                next == PGRES_POLLING_READING ? Descriptor::wait_read : Descriptor::wait_write;
            co_await descriptor.async_wait(event, asio::as_tuple(asio::use_awaitable));
        }
        if (watch.fired()) {
            co_return false;
        }
        next = PQconnectPoll(connection);
    }
    watch.disarm();
    co_return true;
}

/// What the wire said so far about the statement that is running.
struct Outcome {
    ResultHandle good;
    ResultHandle error;
};

}  // namespace

Statement::Statement(std::string text, std::vector<Oid> parameter_types) : sql(std::move(text)) {
    for (const Oid type : parameter_types) {
        types.push_back(static_cast<unsigned>(type));
    }
    // FNV-1a: the same text has the same name in every process, another text has another name, so
    // that caches with different schemas can share a pool.
    std::uint64_t hash = 14695981039346656037u;
    for (const char c : sql) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
    }
    name = "psycache_" + std::to_string(hash);
}

asio::awaitable<Result<std::unique_ptr<Connection>>> Connection::open(
    std::string dsn, TimePoint deadline, std::shared_ptr<std::atomic<bool>> prepare) {
    const asio::any_io_executor strand = co_await asio::this_coro::executor;
    const Conninfo conninfo = read_conninfo(dsn);
    Watch watch(strand);
    watch.arm(deadline, strand);
    auto resolved = co_await resolve(conninfo.hosts, watch);
    if (!resolved) {
        co_return resolved.error();
    }
    // libpq goes on to the next host by itself when one refuses, but waits for ever for one that
    // says nothing. Each therefore has its share of the time, and the attempt begins anew behind
    // it.
    std::vector<Host> hosts = std::move(*resolved);
    while (!hosts.empty()) {
        const auto now = std::chrono::steady_clock::now();
        if (now >= deadline) {
            break;
        }
        Handle handle(start_connecting(connect_parameters(dsn, conninfo, hosts)));
        if (!handle) {
            co_return Failure(Errc::connect_failed, "cannot connect to the server: out of memory");
        }
        const auto share = (deadline - now) / static_cast<int>(hosts.size());
        const bool answered = co_await poll_connecting(handle.get(), watch, share);
        if (!answered) {
            hosts.erase(hosts.begin(), behind_current(hosts, handle.get()));
            continue;
        }
        if (PQstatus(handle.get()) != CONNECTION_OK) {
            co_return connect_failure(handle.get());
        }
        PQsetErrorVerbosity(handle.get(), PQERRORS_DEFAULT);
        PQsetnonblocking(handle.get(), 1);
        std::unique_ptr<Connection> connection(new Connection);
        connection->connection_ = handle.release();
        connection->owned_ = true;
        PQsetNoticeReceiver(connection->connection_, receive_notice, &connection->broken_);
        connection->prepare_ = std::move(prepare);
        co_return connection;
    }
    co_return Failure(Errc::connect_failed,
                      "cannot connect to the server: it did not answer in time (connect_timeout)");
}

Result<std::unique_ptr<Connection>> Connection::adopt(pg_conn* connection) {
    const auto unusable = [](const char* why) {
        return Failure(Errc::connection_unusable,
                       std::string("the borrowed connection cannot be used: ") + why);
    };
    if (PQstatus(connection) != CONNECTION_OK) {
        return unusable("it is not open");
    }
    if (PQpipelineStatus(connection) != PQ_PIPELINE_OFF) {
        return unusable("it is in pipeline mode");
    }
    switch (PQtransactionStatus(connection)) {
        case PQTRANS_IDLE:
            break;
        case PQTRANS_ACTIVE:
            return unusable("a statement is running on it");
        case PQTRANS_INTRANS:
        case PQTRANS_INERROR:
            return unusable("it is inside a transaction; the cache commits on its own");
        default:
            return unusable("it is not open");
    }
    if (std::strcmp(pg_encoding_to_char(PQclientEncoding(connection)), "UTF8") != 0) {
        return unusable("its client_encoding is not UTF8");
    }
    std::unique_ptr<Connection> adopted(new Connection);
    adopted->connection_ = connection;
    adopted->was_nonblocking_ = PQisnonblocking(connection) != 0;
    PQsetnonblocking(connection, 1);
    return adopted;
}

Connection::~Connection() {
    watch_.reset();
    descriptor_.reset();
    if (!owned_) {
        release();
    } else if (connection_ != nullptr) {
        if (broken_ && PQsocket(connection_) >= 0) {
            // So that PQfinish has nobody to wait for.
            ::shutdown(PQsocket(connection_), SHUT_RDWR);
        }
        PQfinish(connection_);
    }
}

void Connection::release() noexcept {
    if (owned_ || connection_ == nullptr) {
        return;
    }
    watch_.reset();
    descriptor_.reset();
    if (!reusable()) {
        break_off();
    }
    PQsetnonblocking(connection_, was_nonblocking_ ? 1 : 0);
    connection_ = nullptr;
}

bool Connection::reusable() const noexcept {
    return !broken_ && connection_ != nullptr && PQstatus(connection_) == CONNECTION_OK &&
           PQtransactionStatus(connection_) == PQTRANS_IDLE;
}

bool Connection::alive() noexcept {
    // What arrives on an idle connection is a notice, or the server's last words and then the end.
    for (int look = 0; look < 8 && reusable(); ++look) {
        char byte = 0;
        const auto got = ::recv(PQsocket(connection_), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (got < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
        }
        if (got == 0 || PQconsumeInput(connection_) == 0) {
            return false;
        }
        PQisBusy(connection_);  // makes libpq read the messages
    }
    return reusable();
}

void Connection::break_off() noexcept {
    broken_ = true;
    if (connection_ == nullptr || PQstatus(connection_) != CONNECTION_OK) {
        return;
    }
    ::shutdown(PQsocket(connection_), SHUT_RDWR);
    // libpq finds the end of its stream and says CONNECTION_BAD to whoever asks.
    for (int part = 0; part < 1000 && PQstatus(connection_) == CONNECTION_OK; ++part) {
        if (PQconsumeInput(connection_) == 0) {
            break;
        }
    }
}

bool Connection::prepares() const noexcept {
    return prepare_ != nullptr && prepare_->load();
}

std::string Connection::prepared_name(const Statement& statement) const {
    return prepared_generation_ == 0 ? statement.name
                                     : statement.name + "_" + std::to_string(prepared_generation_);
}

bool Connection::watch_from(const asio::any_io_executor& strand, TimePoint deadline) {
    if (!descriptor_) {
        try {
            descriptor_.emplace(duplicate_of(connection_, strand));
        } catch (const boost::system::system_error&) {
            return false;  // the process has no file descriptor left
        }
        watch_.emplace(strand);
    }
    watch_->arm(deadline, strand);
    return true;
}

asio::awaitable<Answer> Connection::execute(const Statement& statement,
                                            const Parameters& parameters, TimePoint deadline) {
    const asio::any_io_executor strand = co_await asio::this_coro::executor;
    if (!reusable() || !watch_from(strand, deadline)) {
        co_return lost(Effect::none);
    }
    Answer answer = co_await run(statement, parameters);
    watch_->disarm();
    co_return answer;
}

asio::awaitable<Answer> Connection::execute_script(std::string sql, TimePoint deadline) {
    const asio::any_io_executor strand = co_await asio::this_coro::executor;
    if (!reusable() || !watch_from(strand, deadline)) {
        co_return lost(Effect::none);
    }
    Answer answer = co_await finish(PQsendQuery(connection_, sql.c_str()) == 1);
    watch_->disarm();
    co_return answer;
}

asio::awaitable<Answer> Connection::run(const Statement& statement, const Parameters& parameters) {
    static constexpr int binary[Parameters::capacity] = {1, 1, 1};
    const int count = static_cast<int>(parameters.size());
    // A statement that the server has forgotten, or whose plan no longer fits, is prepared once
    // more; the second time the reason must lie between us and the server: a pooler.
    for (int attempt = 0; prepares(); ++attempt) {
        const std::string name = prepared_name(statement);
        if (!prepared_.contains(name)) {
            Answer prepared = co_await prepare(statement);
            if (!prepared) {
                if (prepared.error().failure.sqlstate == "42P05") {
                    prepare_->store(false);
                    break;
                }
                co_return prepared;
            }
            prepared_.insert(name);
        }
        const bool sent =
            PQsendQueryPrepared(connection_, name.c_str(), count, parameters.values(),
                                parameters.lengths(), static_cast<const int*>(binary), 1) == 1;
        Answer answer = co_await finish(sent);
        if (answer || answer.error().connection_lost) {
            co_return answer;
        }
        if (answer.error().failure.sqlstate == "26000") {
            prepared_.clear();
            if (attempt > 0) {
                prepare_->store(false);
            }
        } else if (answer.error().changed_plan && attempt == 0) {
            ++prepared_generation_;
        } else {
            co_return answer;
        }
    }
    const bool sent =
        PQsendQueryParams(connection_, statement.sql.c_str(), count, statement.types.data(),
                          parameters.values(), parameters.lengths(),
                          static_cast<const int*>(binary), 1) == 1;
    co_return co_await finish(sent);
}

asio::awaitable<Answer> Connection::prepare(const Statement& statement) {
    const bool sent =
        PQsendPrepare(connection_, prepared_name(statement).c_str(), statement.sql.c_str(),
                      static_cast<int>(statement.types.size()), statement.types.data()) == 1;
    Answer answer = co_await finish(sent);
    if (answer) {
        co_return answer;
    }
    StatementFailure failed = answer.error();
    failed.effect = Effect::none;  // preparing changes no row
    co_return Answer(std::move(failed));
}

asio::awaitable<bool> Connection::wait(Descriptor::wait_type event) {
    if (!watch_->fired()) {
        const Watch::Guard<Descriptor> guard(*watch_, *descriptor_);
        co_await descriptor_->async_wait(event, asio::as_tuple(asio::use_awaitable));
    }
    co_return !watch_->fired();
}

asio::awaitable<Answer> Connection::finish(bool sent) {
    if (!sent) {
        co_return lost(Effect::none);
    }
    // One statement at a time: the server reads all of it before it answers, so that waiting for
    // room to write alone cannot end in both sides writing.
    for (int flush = PQflush(connection_); flush != 0; flush = PQflush(connection_)) {
        if (flush < 0) {
            co_return lost(Effect::unknown);
        }
        if (!co_await wait(Descriptor::wait_write)) {
            break_off();
            co_return Answer(StatementFailure(Failure(Errc::timed_out), Effect::unknown, true));
        }
    }

    Outcome outcome;
    for (;;) {
        while (PQisBusy(connection_) != 0) {
            if (!co_await wait(Descriptor::wait_read)) {
                break_off();
                co_return Answer(StatementFailure(Failure(Errc::timed_out), Effect::unknown, true));
            }
            if (PQconsumeInput(connection_) == 0) {
                break;  // the rest comes from PQgetResult: the server's last words
            }
            if (PQsslInUse(connection_) != 0) {
                // What OpenSSL has already decrypted no descriptor tells of: a record holds 16 KiB
                // at most, and each call has room for 8.
                PQconsumeInput(connection_);
                PQconsumeInput(connection_);
            }
        }
        ResultHandle result(PQgetResult(connection_));
        if (!result) {
            break;
        }
        if (!is_error(result.get())) {
            outcome.good = std::move(result);
        } else if (!outcome.error || field(outcome.error.get(), PG_DIAG_SQLSTATE).empty()) {
            outcome.error = std::move(result);
        }
        if (PQstatus(connection_) == CONNECTION_BAD && outcome.error) {
            break;
        }
    }

    const std::string sqlstate =
        outcome.error ? field(outcome.error.get(), PG_DIAG_SQLSTATE) : std::string();
    if (PQstatus(connection_) != CONNECTION_OK) {
        // A good result that no ReadyForQuery followed may have been rolled back, or not.
        const bool unexecuted = !outcome.good && ends_session_unexecuted(sqlstate);
        co_return lost(unexecuted ? Effect::none : Effect::unknown);
    }
    if (outcome.error) {
        if (ends_session_unexecuted(sqlstate) && !outcome.good) {
            break_off();
            co_return lost(Effect::none);
        }
        Failure failure =
            sqlstate.empty()
                ? Failure(Errc::protocol_error)
                : server_failure(sqlstate, field(outcome.error.get(), PG_DIAG_MESSAGE_PRIMARY));
        const bool spoiled = sqlstate.empty() || spoils_session(sqlstate) || !reusable();
        if (spoiled) {
            break_off();
        }
        StatementFailure refused(std::move(failure), Effect::none, spoiled);
        refused.changed_plan = is_changed_plan(outcome.error.get());
        co_return Answer(std::move(refused));
    }
    co_return Answer(Rows(outcome.good.release()));
}

Answer Connection::lost(Effect effect) {
    broken_ = true;
    return StatementFailure(Failure(Errc::connection_lost), effect, true);
}

Result<void> execute_blocking(pg_conn* connection, const std::string& sql) {
    {
        // Its checks, and its care for the connection's mode.
        auto adopted = Connection::adopt(connection);
        if (!adopted) {
            return adopted.error();
        }
    }
    const ResultHandle result(PQexec(connection, sql.c_str()));
    if (result && !is_error(result.get())) {
        return {};
    }
    const std::string sqlstate = field(result.get(), PG_DIAG_SQLSTATE);
    if (sqlstate.empty()) {
        return Failure(Errc::connection_lost);
    }
    return server_failure(sqlstate, field(result.get(), PG_DIAG_MESSAGE_PRIMARY));
}

}  // namespace psycache::pg
