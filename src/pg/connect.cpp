// How a connection is opened.

#include <libpq-fe.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>

#include "pg/connect_errors.hpp"
#include "pg/connection.hpp"
#include "pg/resolve.hpp"
#include "pg/watch.hpp"

namespace psycache::detail::pg {

namespace {

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

constexpr const char* silent = "it did not answer in time";

/// @returns which host it is, for people.
std::string host_of(const PGconn* connection) {
    return "host \"" + std::string(PQhost(connection)) + "\" port " + PQport(connection);
}

std::string behind_reason(const Origin& origin, const Timelines& timelines) {
    return "it is on timeline " + std::to_string(origin.timeline) +
           ", and another host was seen on timeline " +
           std::to_string(timelines.newest(origin.system)) +
           ": it is an old primary that was not shut off";
}

}  // namespace

/// Where that cannot be asked, nothing is known of it, and it is taken as it is. @returns why the
/// connection is lost, should it be.
asio::awaitable<Failure> Connection::ask_for_origin(TimePoint deadline) {
    auto asking = execute_script(std::string(origin_sql), deadline);
    const Answer answer = co_await std::move(asking);
    if (answer && answer->size() == 1) {
        origin_ = read_origin(answer->bytes(0, 0), answer->bytes(0, 1));
    }
    co_return answer ? Failure(Errc::connection_lost) : answer.error().failure;
}

asio::awaitable<Result<std::unique_ptr<Connection>>> Connection::open(
    asio::any_io_executor io, Target target, TimePoint deadline,
    std::shared_ptr<std::atomic<bool>> prepare) {
    const asio::any_io_executor strand = co_await asio::this_coro::executor;
    Conninfo conninfo = read_conninfo(target.dsn);
    if (target.host) {
        conninfo.hosts.assign(1, *target.host);
    }
    if (!std::all_of(conninfo.hosts.begin(), conninfo.hosts.end(), plausible)) {
        co_return Failure(Errc::connect_failed,
                          "cannot connect to the server: the DSN has a host with \"@\" or a port "
                          "that is no number (in a URI, special characters of a password must be "
                          "percent-encoded)");
    }
    Watch watch(strand);
    auto resolved = co_await resolve(conninfo.hosts, watch, deadline);
    if (!resolved) {
        co_return resolved.error();
    }
    // libpq goes on to the next host by itself when one refuses, but waits for ever for one that
    // says nothing. Each therefore has its share of the time, and the attempt begins anew behind
    // it.
    std::vector<Host> hosts = std::move(*resolved);
    const bool several = conninfo.hosts.size() > 1;
    ConnectErrors errors;
    while (!hosts.empty()) {
        const auto now = std::chrono::steady_clock::now();
        if (now >= deadline) {
            break;
        }
        auto parameters = connect_parameters(target.dsn, conninfo, hosts);
        if (target.password) {
            parameters.emplace_back("password", *target.password);
        }
        Handle handle(start_connecting(parameters));
        if (!handle) {
            co_return Failure(Errc::connect_failed, "cannot connect to the server: out of memory");
        }
        const auto share = (deadline - now) / static_cast<int>(hosts.size());
        const bool answered = co_await poll_connecting(handle.get(), watch, share);
        if (!answered) {
            errors.add(PQerrorMessage(handle.get()));
            if (several) {
                errors.add(host_of(handle.get()), silent);
            }
            hosts.erase(hosts.begin(), behind_current(hosts, handle.get()));
            continue;
        }
        if (PQstatus(handle.get()) != CONNECTION_OK) {
            errors.add(PQerrorMessage(handle.get()));
            co_return errors.failure();
        }
        PQsetErrorVerbosity(handle.get(), PQERRORS_DEFAULT);
        PQsetnonblocking(handle.get(), 1);
        std::unique_ptr<Connection> connection(new Connection(handle.get()));
        handle.release();
        connection->owned_ = true;
        connection->opened_at_ = std::chrono::steady_clock::now();
        PQsetNoticeReceiver(connection->connection_, receive_notice, &connection->broken_);
        connection->prepare_ = prepare;
        connection->attach(io);
        if (target.system != 0) {
            auto asking = connection->ask_for_origin(deadline);
            co_await std::move(asking);
            if (connection->origin_.system != target.system) {
                errors.add(host_of(connection->connection_),
                           connection->origin_.system == 0
                               ? "it did not say which server it is"
                               : "it is another server than the one that is meant");
                break;
            }
        }
        if (several && target.timelines) {
            auto asking = connection->ask_for_origin(now + share);
            const Failure failure = co_await std::move(asking);
            connection->timelines_ = target.timelines;
            const bool admitted = target.timelines->admit(connection->origin_);
            if (!admitted) {
                errors.add(host_of(connection->connection_),
                           behind_reason(connection->origin_, *target.timelines));
            } else if (!connection->reusable()) {
                errors.add(host_of(connection->connection_),
                           failure.code == Errc::timed_out ? silent : failure.cause);
            }
            if (!admitted || !connection->reusable()) {
                hosts.erase(hosts.begin(), behind_current(hosts, connection->connection_));
                continue;
            }
        }
        co_return connection;
    }
    co_return errors.failure();
}

}  // namespace psycache::detail::pg
