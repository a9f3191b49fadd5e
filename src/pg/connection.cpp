#include "pg/connection.hpp"

#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "pg/exchange.hpp"
#include "pg/fork.hpp"

namespace psycache::detail::pg {

Statement::Statement(std::string text, std::vector<Oid> parameter_types, Planned when)
    : sql(std::move(text)), planned(when) {
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

Connection::Connection(pg_conn* connection)
    : connection_(connection), cancel_(std::make_shared<Cancel>(connection)) {}

Descriptor duplicate_of(const PGconn* connection, const asio::any_io_executor& executor) {
    return Descriptor(executor, ::fcntl(PQsocket(connection), F_DUPFD_CLOEXEC, 0));
}

namespace {

Failure unusable(std::string_view whose, std::string_view why) {
    std::string cause = "the ";
    return {make_error_code(Errc::connection_unusable),
            cause.append(whose).append(" cannot be used: ").append(why)};
}

/// @returns why an application's connection is of no use, whatever its transaction is; "" if it is.
std::string_view mistake_in(const pg_conn* connection) {
    if (PQstatus(connection) != CONNECTION_OK) {
        return "it is not open";
    }
    if (PQpipelineStatus(connection) != PQ_PIPELINE_OFF) {
        return "it is in pipeline mode";
    }
    switch (PQtransactionStatus(connection)) {
        case PQTRANS_ACTIVE:
            return "a statement is running on it";
        case PQTRANS_UNKNOWN:
            return "it is not open";
        default:
            break;
    }
    return std::strcmp(pg_encoding_to_char(PQclientEncoding(connection)), "UTF8") == 0
               ? ""
               : "its client_encoding is not UTF8";
}

}  // namespace

Result<std::unique_ptr<Connection>> Connection::adopt(pg_conn* connection) {
    constexpr std::string_view whose = "borrowed connection";
    const std::string_view mistake = mistake_in(connection);
    if (!mistake.empty()) {
        return unusable(whose, mistake);
    }
    if (PQtransactionStatus(connection) != PQTRANS_IDLE) {
        return unusable(whose, "it is inside a transaction; the cache commits on its own");
    }
    std::unique_ptr<Connection> adopted(new Connection(connection));
    adopted->was_nonblocking_ = PQisnonblocking(connection) != 0;
    PQsetnonblocking(connection, 1);
    return adopted;
}

Result<std::unique_ptr<Connection>> Connection::adopt_transaction(pg_conn* connection) {
    constexpr std::string_view whose = "connection of the transaction";
    const std::string_view mistake = mistake_in(connection);
    if (!mistake.empty()) {
        return unusable(whose, mistake);
    }
    switch (PQtransactionStatus(connection)) {
        case PQTRANS_INTRANS:
            break;
        case PQTRANS_INERROR:
            return unusable(whose,
                            "an earlier error has aborted its transaction; roll that back, or to a "
                            "savepoint, first");
        default:
            return unusable(whose, "it is in no transaction; begin a transaction first");
    }
    std::unique_ptr<Connection> adopted(new Connection(connection));
    adopted->within_ = true;
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
    if (!owned_) {
        release();
    } else {
        give_up();
        descriptor_.reset();
        if (broken_ && PQsocket(connection_) >= 0) {
            // So that PQfinish waits for no server.
            ::shutdown(PQsocket(connection_), SHUT_RDWR);
        }
        PQfinish(connection_);
    }
}

void Connection::release() noexcept {
    if (owned_ || connection_ == nullptr) {
        return;
    }
    give_up();
    descriptor_.reset();
    if (!stays_usable()) {
        break_off();
    }
    PQsetnonblocking(connection_, was_nonblocking_ ? 1 : 0);
    connection_ = nullptr;
}

bool Connection::reusable() const noexcept {
    return !broken_ && !overran_.load() && connection_ != nullptr && forks_ == forks() &&
           !cancel_->under_way() && PQstatus(connection_) == CONNECTION_OK &&
           PQtransactionStatus(connection_) == PQTRANS_IDLE;
}

/// @returns whether the next one may go on with it. An application's transaction decides for
/// itself, whatever a statement has made of it.
bool Connection::stays_usable() const noexcept {
    if (!within_) {
        return reusable();
    }
    return !broken_ && !overran_.load() && connection_ != nullptr &&
           PQtransactionStatus(connection_) != PQTRANS_ACTIVE;
}

bool Connection::young() const noexcept {
    constexpr std::chrono::seconds youth{1};
    return opened_at_ != TimePoint::min() && std::chrono::steady_clock::now() - opened_at_ < youth;
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
    if (!cancel_->under_way() || !leave_socket()) {
        ::shutdown(PQsocket(connection_), SHUT_RDWR);
    }
    // libpq finds the end of its stream and says CONNECTION_BAD from now on.
    for (int part = 0; part < 1000 && PQstatus(connection_) == CONNECTION_OK; ++part) {
        if (PQconsumeInput(connection_) == 0) {
            break;
        }
    }
}

/// Gives libpq a socket that has come to its end, for the one it has: the other end must not learn
/// that this one has left, not by TLS either, before the statement has been cancelled.
/// @returns whether there was a socket left.
bool Connection::leave_socket() const noexcept {
    int ended[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ended) != 0) {
        return false;
    }
    const int ours = PQsocket(connection_);
    const bool left = ::dup2(ended[0], ours) == ours;
    ::fcntl(ours, F_SETFD, FD_CLOEXEC);
    ::close(ended[0]);
    ::close(ended[1]);
    return left;
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

void Connection::cancel(Cancel::Ask how) noexcept {
    if (forks_ == forks()) {
        // By the duplicate: the number of libpq's own may be another file's by now.
        cancel_->send(descriptor_ ? descriptor_->native_handle() : PQsocket(connection_), how);
    }
}

void Connection::cancel_running() noexcept {
    cancel(Cancel::Ask::once);
}

void Connection::overrun() noexcept {
    overran_ = true;
    cancel(Cancel::Ask::until_ended);
    // This wakes the statement. One that waits for its answer stays connected until it has been
    // cancelled: it only hears nothing more. One that is still being sent does not run yet.
    ::shutdown(descriptor_->native_handle(), writing_.load() ? SHUT_RDWR : SHUT_RD);
}

bool Connection::give_up() noexcept {
    if (connection_ != nullptr && PQtransactionStatus(connection_) == PQTRANS_ACTIVE &&
        forks_ == forks()) {
        overran_ = true;
        cancel(Cancel::Ask::until_ended);
        break_off();
    }
    return overran_.load();
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
    exchange.run_to_the_end(exchange.begin(), deadline);
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
    if (!attach(executor) || !reusable()) {
        co_return lost(Effect::none);
    }
    const Deadline in_time(executor, deadline, *this);
    auto running = exchange.run(exchange.begin());
    co_await std::move(running);
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
    const Result<void> result = outcome_of(ResultHandle(PQexec(connection, sql.c_str())));
    if (!result && result.error().sqlstate.empty()) {
        return Failure(Errc::connection_lost);
    }
    return result;
}

}  // namespace psycache::detail::pg
