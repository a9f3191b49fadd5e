#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "async/watch.hpp"
#include "failure.hpp"
#include "pg/conninfo.hpp"
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

/// One libpq connection as coroutines, one statement at a time.
///
/// With its neighbours in this folder it is the only place that touches libpq. Coroutines run on a
/// strand (or an implicit one); several strands may use the connection one after the other.
class Connection {
  public:
    /// Opens a connection: names, TCP, TLS, authentication.
    /// @param prepare shared by all connections of a pool: whether statements are prepared by name;
    ///                set to false by a connection that finds that this does not work.
    static boost::asio::awaitable<Result<std::unique_ptr<Connection>>> open(
        std::string dsn, TimePoint deadline, std::shared_ptr<std::atomic<bool>> prepare);

    /// Takes a connection that belongs to somebody else; release() before it is given back.
    static Result<std::unique_ptr<Connection>> adopt(pg_conn* connection);

    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection();

    /// Runs one statement with binary parameters and results, in a transaction of its own.
    boost::asio::awaitable<Answer> execute(const Statement& statement, const Parameters& parameters,
                                           TimePoint deadline);

    /// Runs statements without parameters, all in one transaction; answers with the last one's.
    boost::asio::awaitable<Answer> execute_script(std::string sql, TimePoint deadline);

    /// @returns whether it is open, idle and outside of any transaction.
    bool reusable() const noexcept;

    /// @returns whether the server still holds the other end, as far as can be told at once.
    bool alive() noexcept;

    /// Puts an adopted connection back into the mode in which it was found; a connection whose
    /// answer is outstanding is closed instead.
    void release() noexcept;

    pg_conn* native() const noexcept { return connection_; }

  private:
    Connection() = default;

    boost::asio::awaitable<Answer> run(const Statement& statement, const Parameters& parameters);
    boost::asio::awaitable<Answer> prepare(const Statement& statement);
    boost::asio::awaitable<Answer> finish(bool sent);
    boost::asio::awaitable<bool> wait(boost::asio::posix::stream_descriptor::wait_type event);
    bool prepares() const noexcept;
    std::string prepared_name(const Statement& statement) const;
    bool watch_from(const boost::asio::any_io_executor& strand, TimePoint deadline);
    Answer lost(Effect effect);
    void break_off() noexcept;

    pg_conn* connection_ = nullptr;
    bool owned_ = false;
    bool was_nonblocking_ = false;
    bool broken_ = false;
    std::shared_ptr<std::atomic<bool>> prepare_;  // null: statements are unnamed
    std::unordered_set<std::string> prepared_;
    unsigned prepared_generation_ = 0;
    std::optional<boost::asio::posix::stream_descriptor> descriptor_;
    std::optional<Watch> watch_;
};

/// Runs statements without parameters on a connection that belongs to somebody else, blocking.
/// @returns nothing, or the server's error; connection_unusable if the connection is not idle.
Result<void> execute_blocking(pg_conn* connection, const std::string& sql);

}  // namespace psycache::pg
