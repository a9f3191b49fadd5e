#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "core/clock.hpp"
#include "core/failure.hpp"
#include "pg/cancel.hpp"
#include "pg/conninfo.hpp"
#include "pg/fork.hpp"
#include "pg/parameters.hpp"
#include "pg/rows.hpp"
#include "pg/timelines.hpp"

struct pg_conn;

namespace psycache::detail::pg {

namespace asio = boost::asio;

/// When a statement is planned.
enum class Planned {
    once,      ///< it is prepared by name, where the pool allows it
    each_time  ///< with its parameters, on which its plan depends
};

/// A statement with parameters; its name is unique for its text.
struct Statement {
    Statement(std::string text, std::vector<Oid> parameter_types, Planned when = Planned::once);

    std::string sql;
    std::vector<unsigned> types;
    std::string name;
    Planned planned;
};

/// What a failed statement may have done.
enum class Effect {
    none,     ///< certainly nothing: it was not sent, or the server refused or rolled it back
    unknown,  ///< it was sent, and the answer never came
};

/// Why a statement failed.
struct StatementFailure {
    StatementFailure() = default;
    StatementFailure(Failure why, Effect what, bool lost)
        : failure(std::move(why)), effect(what), connection_lost(lost) {}

    Failure failure;
    Effect effect = Effect::none;
    bool connection_lost = false;  ///< the connection cannot be used again
    bool changed_plan = false;     ///< the table was altered under a prepared statement
};

using Answer = boost::system::result<Rows, StatementFailure>;

/// What a statement waits for.
enum class Want { nothing, read, write };

class Exchange;

/// What another session, or this one, has told those that listen.
struct Notification {
    std::string channel;
    std::string payload;
};

/// Where a connection is to lead.
struct Target {
    explicit Target(std::string where) : dsn(std::move(where)) {}

    std::string dsn;
    std::optional<std::string> password;  ///< instead of what the DSN and the environment say
    std::optional<Host> host;             ///< the same of its hosts
    /// Only a server with this system identifier will do; 0: any.
    std::int64_t system = 0;
    /// Of several hosts, one that is behind these is passed over; null: any host will do.
    std::shared_ptr<Timelines> timelines;
};

using Descriptor = asio::posix::stream_descriptor;

/// libpq closes its socket whenever it likes, and the next one often gets the same number. Asio
/// therefore watches a duplicate, which it cannot close.
Descriptor duplicate_of(const pg_conn* connection, const asio::any_io_executor& executor);

/// One libpq connection as coroutines, one statement at a time.
///
/// With its neighbours in this folder it is the only place that touches libpq. A statement waits
/// for one thing at a time, so that its coroutine needs no strand; several coroutines may use the
/// connection one after the other.
class Connection {
  public:
    /// Opens a connection: names, TCP, TLS, authentication. Runs on a strand, or an implicit one.
    /// @param io      where its statements wait for the server; no strand.
    /// @param prepare shared by all connections of a pool: whether statements are prepared by name;
    ///                set to false by a connection that finds that this does not work.
    static asio::awaitable<Result<std::unique_ptr<Connection>>> open(
        asio::any_io_executor io, Target target, TimePoint deadline,
        std::shared_ptr<std::atomic<bool>> prepare);

    /// Takes a connection that belongs to the application; release() before it is given back.
    static Result<std::unique_ptr<Connection>> adopt(pg_conn* connection);

    /// Takes one on which the application has a transaction open, for statements of that
    /// transaction: execute_within() and nothing else. What they do to the transaction stays;
    /// release() closes the connection only if a statement still runs on it.
    static Result<std::unique_ptr<Connection>> adopt_transaction(pg_conn* connection);

    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection();

    /// Makes ready for statements that wait on @p executor; the first one counts.
    /// @returns whether there was a file descriptor left.
    bool attach(const asio::any_io_executor& executor) noexcept;

    /// Runs one statement with binary parameters and results, in a transaction of its own. Where
    /// something else watches the time, an Exchange does it without a coroutine.
    asio::awaitable<Answer> execute(const Statement& statement, const Parameters& parameters,
                                    TimePoint deadline);

    /// The same in the calling thread, without an event loop: where a loop serves one call only,
    /// going through it costs more than the statement.
    Answer execute_blocking(const Statement& statement, const Parameters& parameters,
                            TimePoint deadline);

    /// How long an adopted transaction waits, beyond its deadline, for the end of a statement that
    /// is being cancelled.
    static constexpr std::chrono::seconds grace{2};

    /// Runs one statement of an adopted transaction. At its deadline, or when the coroutine is
    /// cancelled (all types), the server is asked to cancel it, and its answer is waited for, so
    /// that the connection can be used further. It is answered as if nothing had been if it was
    /// quicker; else it has failed with timed_out or operation_aborted, and the transaction with
    /// it. Only without an answer within @ref grace is the connection closed.
    /// @param io where it waits for the server; no strand.
    asio::awaitable<Answer> execute_within(const Statement& statement, const Parameters& parameters,
                                           TimePoint deadline, asio::any_io_executor io);
    /// The same in the calling thread, which nothing but the deadline ends.
    Answer execute_within_blocking(const Statement& statement, const Parameters& parameters,
                                   TimePoint deadline);

    /// Runs statements without parameters, all in one transaction; answers with the last one's.
    asio::awaitable<Answer> execute_script(std::string sql, TimePoint deadline);

    /// Waits until the server has sent something while no statement runs, or @p until has come.
    /// Ends early when the coroutine is cancelled.
    /// @returns whether the connection is still usable.
    asio::awaitable<bool> wait_for_input(TimePoint until);
    /// @returns the notifications that have arrived, in the order in which the server sent them.
    std::vector<Notification> take_notifications();

    /// Has the server asked to cancel the running statement, on this connection's own backend and
    /// without waiting for anything. The statement ends as the server lets it end: with SQLSTATE
    /// 57014, or with its answer if that was quicker. While the request is on its way the
    /// connection is not reusable, so that nothing else is hit. Does nothing in a forked child.
    ///
    /// May be called from any thread once it is attached, if the caller sees to it that the
    /// connection stays alive meanwhile.
    void cancel_running() noexcept;

    /// The running statement took too long: it ends with timed_out at once, the connection with it,
    /// and the server is asked to cancel it. Threads as for cancel_running(). If the answer has
    /// just come, only the connection ends.
    void overrun() noexcept;

    /// No caller waits for what is running any longer: cancels it, and ends the connection.
    /// @returns whether a statement has been given up, now or by overrun().
    bool give_up() noexcept;

    /// The connection cannot be used any more. @returns what its statement is told.
    Answer lost(Effect effect);

    /// @returns whether it is open, idle and outside of any transaction.
    bool reusable() const noexcept;

    /// @returns the number of the session that was told when the connection was opened: by the
    /// server or by a pooler, which tells another one.
    int session() const noexcept;

    /// @returns where it leads, if that was asked for when it was opened.
    const Origin& origin() const noexcept { return origin_; }
    /// @returns whether another host was promoted after it was opened, as far as its pool knows: it
    /// leads to an old primary, whose answers count no more.
    bool behind() const noexcept { return timelines_ && timelines_->is_behind(origin_); }

    /// @returns whether it has only just been opened.
    bool young() const noexcept;

    /// @returns whether the server still holds the other end, as far as can be told at once.
    bool alive() noexcept;

    /// Puts an adopted connection back into the mode in which it was found; a connection whose
    /// answer is outstanding is closed instead.
    void release() noexcept;

    pg_conn* native() const noexcept { return connection_; }

  private:
    friend class Exchange;
    class Deadline;
    class Patience;
    enum class CutShort { no, by_deadline, by_caller };

    explicit Connection(pg_conn* connection);

    asio::awaitable<Failure> ask_for_origin(TimePoint deadline);
    asio::awaitable<Answer> run_until(Exchange exchange, TimePoint deadline);
    bool wait_for(Want want, TimePoint deadline) const noexcept;
    bool stays_usable() const noexcept;
    bool settle_cancelling(TimePoint until) noexcept;
    Answer end_within(Answer answer, CutShort cut);
    bool prepares() const noexcept;
    std::string prepared_name(const Statement& statement) const;
    void cancel(Cancel::Ask how) noexcept;
    void break_off() noexcept;
    bool leave_socket() const noexcept;

    pg_conn* connection_;
    const std::shared_ptr<Cancel> cancel_;
    bool owned_ = false;
    bool within_ = false;  // the application's transaction is open on it
    const unsigned forks_ = forks();
    Origin origin_;
    std::shared_ptr<const Timelines> timelines_;  // null where the DSN names one host
    bool was_nonblocking_ = false;
    bool broken_ = false;
    TimePoint opened_at_ = TimePoint::min();  // of one that was opened here
    std::atomic<bool> overran_{false};
    std::atomic<bool> writing_{false};            // the statement waits for room to be sent
    std::shared_ptr<std::atomic<bool>> prepare_;  // null: statements are unnamed
    std::unordered_set<std::string> prepared_;
    unsigned prepared_generation_ = 0;
    std::optional<Descriptor> descriptor_;
};

/// Runs statements without parameters on a connection that belongs to the application, blocking.
/// @returns nothing, or the server's error; connection_unusable if the connection is not idle.
Result<void> execute_blocking(pg_conn* connection, const std::string& sql);

}  // namespace psycache::detail::pg
