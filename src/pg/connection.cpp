#include "pg/connection.hpp"

#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "async/watch.hpp"
#include "pg/exchange.hpp"
#include "pg/fork.hpp"
#include "pg/resolve.hpp"
#include "sqlstate.hpp"

namespace psycache::pg {

namespace {

using Descriptor = asio::posix::stream_descriptor;

struct Finish {
    void operator()(PGconn* connection) const noexcept { PQfinish(connection); }
};
using Handle = std::unique_ptr<PGconn, Finish>;

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
    return Descriptor(executor, ::fcntl(PQsocket(connection), F_DUPFD_CLOEXEC, 0));
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
    asio::any_io_executor io, std::string dsn, TimePoint deadline,
    std::shared_ptr<std::atomic<bool>> prepare) {
    const asio::any_io_executor strand = co_await asio::this_coro::executor;
    const Conninfo conninfo = read_conninfo(dsn);
    if (!std::all_of(conninfo.hosts.begin(), conninfo.hosts.end(), plausible)) {
        co_return Failure(Errc::connect_failed,
                          "cannot connect to the server: the DSN has a host with \"@\" or a port "
                          "that is no number (in a URI, special characters of a password must be "
                          "percent-encoded)");
    }
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
        connection->opened_at_ = std::chrono::steady_clock::now();
        connection->backend_ = PQbackendPID(connection->connection_);
        PQsetNoticeReceiver(connection->connection_, receive_notice, &connection->broken_);
        connection->prepare_ = std::move(prepare);
        connection->attach(io);
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
    if (owned_ && forks_ != forks()) {
        // The parent's: saying good-bye to its server, or to the event loop that both share, would
        // be noticed there. What it holds is left to the end of this process.
        static_cast<void>(descriptor_ ? new Descriptor(std::move(*descriptor_)) : nullptr);
        return;
    }
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
    descriptor_.reset();
    if (!reusable()) {
        break_off();
    }
    PQsetnonblocking(connection_, was_nonblocking_ ? 1 : 0);
    connection_ = nullptr;
}

bool Connection::reusable() const noexcept {
    return !broken_ && !overran_.load() && connection_ != nullptr && forks_ == forks() &&
           PQstatus(connection_) == CONNECTION_OK &&
           PQtransactionStatus(connection_) == PQTRANS_IDLE;
}

bool Connection::young() const noexcept {
    constexpr std::chrono::seconds youth{1};
    return opened_at_ != TimePoint::min() && std::chrono::steady_clock::now() - opened_at_ < youth;
}

std::optional<int> Connection::forsaken_backend() const noexcept {
    const bool running = overran_.load() || (connection_ != nullptr &&
                                             PQtransactionStatus(connection_) == PQTRANS_ACTIVE);
    return running && backend_ > 0 ? std::optional(backend_) : std::nullopt;
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

bool Connection::attach(const asio::any_io_executor& executor) noexcept {
    if (descriptor_) {
        return true;
    }
    try {
        descriptor_.emplace(duplicate_of(connection_, executor));
        return true;
    } catch (...) {
        return false;  // the process has no file descriptor left
    }
}

void Connection::overrun() noexcept {
    overran_ = true;
    // By the duplicate: the number of libpq's own may belong to somebody else by now.
    ::shutdown(descriptor_->native_handle(), SHUT_RDWR);
}

/// Overruns a statement at its deadline, by a timer that may fire on any thread.
class Connection::Deadline {
  public:
    Deadline(const asio::any_io_executor& executor, TimePoint when, Connection& connection)
        : timer_(executor, when), running_(std::make_shared<Running>(connection)) {
        timer_.async_wait([running = running_](const boost::system::error_code& error) {
            const std::lock_guard lock(running->mutex);
            if (!error && running->connection != nullptr) {
                running->connection->overrun();
            }
        });
    }
    Deadline(const Deadline&) = delete;
    Deadline& operator=(const Deadline&) = delete;
    ~Deadline() {
        const std::lock_guard lock(running_->mutex);
        running_->connection = nullptr;
    }

  private:
    struct Running {
        explicit Running(Connection& its) : connection(&its) {}
        std::mutex mutex;
        Connection* connection;
    };

    asio::steady_timer timer_;
    std::shared_ptr<Running> running_;
};

asio::awaitable<Answer> Connection::execute(const Statement& statement,
                                            const Parameters& parameters, TimePoint deadline) {
    return run_until(Exchange(*this, statement, parameters), deadline);
}

Answer Connection::execute_blocking(const Statement& statement, const Parameters& parameters,
                                    TimePoint deadline) {
    if (!reusable()) {
        return lost(Effect::none);
    }
    Exchange exchange(*this, statement, parameters);
    for (Want want = exchange.begin(); want != Want::nothing; want = exchange.go_on()) {
        if (!wait_for(want, deadline)) {
            overran_ = true;
        }
    }
    return exchange.take();
}

/// Waits in the calling thread. @returns whether what was wanted came in time.
bool Connection::wait_for(Want want, TimePoint deadline) const noexcept {
    pollfd watched{};
    watched.fd = PQsocket(connection_);
    watched.events = want == Want::read ? POLLIN : POLLOUT;
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        if (left <= std::chrono::milliseconds::zero()) {
            return false;
        }
        constexpr std::chrono::milliseconds at_most{std::chrono::hours(1)};
        const int came = ::poll(&watched, 1, static_cast<int>(std::min(left, at_most).count()));
        if (came > 0 || (came < 0 && errno != EINTR)) {
            return true;  // libpq finds out what is wrong with the socket
        }
    }
}

asio::awaitable<Answer> Connection::execute_script(std::string sql, TimePoint deadline) {
    return run_until(Exchange(*this, std::move(sql)), deadline);
}

asio::awaitable<Answer> Connection::run_until(Exchange exchange, TimePoint deadline) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    if (!attach(executor)) {
        co_return lost(Effect::none);
    }
    const Deadline in_time(executor, deadline, *this);
    co_return co_await run(std::move(exchange));
}

asio::awaitable<Answer> Connection::run(Exchange exchange) {
    const bool attached = attach(co_await asio::this_coro::executor);
    if (!reusable() || !attached) {
        co_return lost(Effect::none);
    }
    for (Want want = exchange.begin(); want != Want::nothing; want = exchange.go_on()) {
        auto came = ready(want);
        co_await std::move(came);
    }
    co_return exchange.take();
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
    const Result<void> result = outcome_of(PQexec(connection, sql.c_str()));
    if (!result && result.error().sqlstate.empty()) {
        return Failure(Errc::connection_lost);
    }
    return result;
}

}  // namespace psycache::pg
