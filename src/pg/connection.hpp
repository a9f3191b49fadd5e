#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "failure.hpp"
#include "pg/conninfo.hpp"
#include "pg/fork.hpp"
#include "pg/parameters.hpp"
#include "pg/rows.hpp"

struct pg_conn;

namespace psycache::pg {

using TimePoint = std::chrono::steady_clock::time_point;

/// A statement with parameters; its name is unique for its text.
struct Statement {
    Statement(std::string text, std::vector<Oid> parameter_types);

    std::string sql;
    std::vector<unsigned> types;
    std::string name;
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
    static boost::asio::awaitable<Result<std::unique_ptr<Connection>>> open(
        boost::asio::any_io_executor io, std::string dsn, TimePoint deadline,
        std::shared_ptr<std::atomic<bool>> prepare);

    /// Takes a connection that belongs to somebody else; release() before it is given back.
    static Result<std::unique_ptr<Connection>> adopt(pg_conn* connection);

    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection();

    /// Makes ready for statements that wait on @p executor; the first one counts.
    /// @returns whether there was a file descriptor left.
    bool attach(const boost::asio::any_io_executor& executor) noexcept;

    /// Runs one statement with binary parameters and results, in a transaction of its own. Where
    /// something else watches the time, an Exchange does it without a coroutine.
    boost::asio::awaitable<Answer> execute(const Statement& statement, const Parameters& parameters,
                                           TimePoint deadline);

    /// The same in the calling thread, without an event loop: where a loop serves one call only,
    /// going through it costs more than the statement.
    Answer execute_blocking(const Statement& statement, const Parameters& parameters,
                            TimePoint deadline);

    /// Runs statements without parameters, all in one transaction; answers with the last one's.
    boost::asio::awaitable<Answer> execute_script(std::string sql, TimePoint deadline);

    /// What waits, once it is awaited, for what an Exchange on this connection wants; attach()
    /// comes first.
    auto ready(Want want) {
        namespace asio = boost::asio;
        const auto event = want == Want::read ? asio::posix::stream_descriptor::wait_read
                                              : asio::posix::stream_descriptor::wait_write;
        return descriptor_->async_wait(event, asio::as_tuple(asio::deferred));
    }

    /// The running statement took too long: it ends with timed_out, and the connection with it.
    ///
    /// May be called from any thread once it is attached, by whoever sees to it that the connection
    /// stays alive meanwhile. If the answer has just come, only the connection ends.
    void overrun() noexcept;

    /// The connection cannot be used any more. @returns what its statement is told.
    Answer lost(Effect effect);

    /// @returns whether it is open, idle and outside of any transaction.
    bool reusable() const noexcept;

    /// @returns whether it has only just been opened.
    bool young() const noexcept;

    /// @returns the number of the server's process whose statement was overrun; nothing if none
    /// was.
    std::optional<int> forsaken_backend() const noexcept;

    /// @returns whether the server still holds the other end, as far as can be told at once.
    bool alive() noexcept;

    /// Puts an adopted connection back into the mode in which it was found; a connection whose
    /// answer is outstanding is closed instead.
    void release() noexcept;

    pg_conn* native() const noexcept { return connection_; }

  private:
    friend class Exchange;
    class Deadline;

    Connection() = default;

    boost::asio::awaitable<Answer> run(Exchange exchange);
    boost::asio::awaitable<Answer> run_until(Exchange exchange, TimePoint deadline);
    bool wait_for(Want want, TimePoint deadline) const noexcept;
    bool prepares() const noexcept;
    std::string prepared_name(const Statement& statement) const;
    void break_off() noexcept;

    pg_conn* connection_ = nullptr;
    bool owned_ = false;
    const unsigned forks_ = forks();
    bool was_nonblocking_ = false;
    bool broken_ = false;
    TimePoint opened_at_ = TimePoint::min();  // of one that was opened here
    int backend_ = 0;                         // libpq forgets it when the connection breaks
    std::atomic<bool> overran_{false};
    std::shared_ptr<std::atomic<bool>> prepare_;  // null: statements are unnamed
    std::unordered_set<std::string> prepared_;
    unsigned prepared_generation_ = 0;
    std::optional<boost::asio::posix::stream_descriptor> descriptor_;
};

/// Runs statements without parameters on a connection that belongs to somebody else, blocking.
/// @returns nothing, or the server's error; connection_unusable if the connection is not idle.
Result<void> execute_blocking(pg_conn* connection, const std::string& sql);

}  // namespace psycache::pg
