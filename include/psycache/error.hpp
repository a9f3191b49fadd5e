#pragma once

#include <boost/system/error_code.hpp>
#include <boost/system/error_condition.hpp>
#include <boost/system/system_error.hpp>
#include <exception>
#include <memory>
#include <string>
#include <string_view>

#include <psycache/export.hpp>

namespace psycache {

/// What went wrong, one value per thing that a caller can act on.
///
/// Anything else that the server reports keeps its own SQLSTATE, as a code of @ref
/// sqlstate_category. Group codes with @ref Condition.
enum class Errc {
    /// The key is not UTF-8 or contains a NUL byte, or is longer than a put may have it: @ref
    /// max_key_size bytes.
    invalid_key = 1,
    /// The value holds what JSONB cannot: NUL, invalid UTF-8, a non-finite number, too deep
    /// nesting.
    invalid_value,
    /// The ttl is neither @ref no_expiry nor within @ref min_ttl and @ref max_ttl.
    invalid_ttl,
    /// The stored value is valid JSONB, but not what the caller takes it for: no object that
    /// `boost::json::object` can hold with all digits of its numbers, no value of the caller's
    /// type,
    /// no counter.
    unreadable_value,
    /// The cache's table does not exist, or for tags its table of tags: run `init_db` or `psycache
    /// init-db`.
    table_missing,
    /// The role lacks a privilege on the table or its schema.
    permission_denied,
    /// No connection could be opened: refused, unreachable, unknown host, or refused by the server.
    connect_failed,
    /// The server refused the role or its password. The SQLSTATE is kept beside the code.
    authentication_failed,
    /// The connection broke, and it is certain that nothing was changed by the call.
    connection_lost,
    /// The connection broke after a write was sent and before it was answered: it may be stored.
    outcome_unknown,
    /// The call overran its deadline (`CacheOptions::timeout`). A write may still take effect.
    timed_out,
    /// No connection became free within `PoolOptions::acquire_timeout`.
    acquire_timed_out,
    /// `ConnectionPool::close()` was called.
    pool_closed,
    /// Too many calls are waiting already; this one was not queued.
    queue_full,
    /// A borrowed connection cannot be used: closed, busy, inside a transaction (for a
    /// TransactionCache: inside none, or an aborted one), in pipeline mode, or with a client
    /// encoding other than UTF-8. Or the process was forked after the cache or the pool was made,
    /// and its connections are the parent's.
    connection_unusable,
    /// A blocking call was made from inside a blocking call of the same object.
    reentrant_call,
    /// The server answered with something that the library did not ask for.
    protocol_error,
    /// A counter would leave the range of 64 bits; it was not changed.
    counter_overflow,
    /// A tag is empty, not UTF-8, contains a NUL byte, is longer than @ref max_tag_size bytes, or
    /// together with its entry's key longer than @ref max_tagged_size.
    invalid_tag,
};

/// The caller's question, across all codes: `if (error.code() == Condition::transient) ...`.
///
/// One code may match several conditions: a time-out is `timeout`, `transient` and `unavailable`.
enum class Condition {
    /// Trying again later is sensible, without any change.
    transient = 1,
    /// A time limit passed.
    timeout,
    /// The cache cannot be reached now; `OnOutage::miss` acts on these.
    unavailable,
    /// The arguments or the set-up are wrong; trying again cannot help.
    caller_mistake,
    /// A write may or may not have been stored.
    outcome_unknown,
};

/// The category of @ref Errc; its name is "psycache".
PSYCACHE_EXPORT const boost::system::error_category& errc_category() noexcept;

/// The category of codes that are SQLSTATEs of the server; its name is "psycache.sqlstate".
///
/// A value is the five characters read as a number in base 36; `sqlstate_code()` makes one.
PSYCACHE_EXPORT const boost::system::error_category& sqlstate_category() noexcept;

/// The category of @ref Condition; its name is "psycache.condition".
PSYCACHE_EXPORT const boost::system::error_category& condition_category() noexcept;

/// @returns the code of @p errc, in @ref errc_category.
PSYCACHE_EXPORT boost::system::error_code make_error_code(Errc errc) noexcept;

/// @returns the condition, for comparison with any code.
PSYCACHE_EXPORT boost::system::error_condition make_error_condition(Condition condition) noexcept;

/// @param sqlstate five characters, digits or upper-case letters.
/// @returns the code of a SQLSTATE, in @ref sqlstate_category; `Errc::protocol_error` if
/// @p sqlstate is not five such characters.
PSYCACHE_EXPORT boost::system::error_code sqlstate_code(std::string_view sqlstate) noexcept;

/// @returns the five characters of a code of @ref sqlstate_category; "" for any other code.
PSYCACHE_EXPORT std::string sqlstate_text(const boost::system::error_code& code);

/// The one exception of this library's operations.
///
/// `code()` is an @ref Errc, a SQLSTATE in @ref sqlstate_category, or
/// `boost::asio::error::operation_aborted` for a call that its caller cancelled. `what()` names the
/// operation, the cause and what to do; it never holds a key, a value, a password or text of the
/// server. It does hold what the application's own pool said when it lent no connection: see
/// cause_exception(). Wrong arguments to constructors and options are `std::invalid_argument`
/// instead.
///
/// @par Exception safety
/// Copying and what is asked of it do not throw.
class PSYCACHE_EXPORT Error : public boost::system::system_error {
  public:
    /// An error that is described by one text, as an application's own pool may throw it.
    ///
    /// @param code           what went wrong
    /// @param what           the whole text of `what()`, and the cause
    /// @param sqlstate       the server's five characters, "" when not from the server
    /// @param server_message the server's text, kept out of `what()`
    Error(boost::system::error_code code, std::string what, std::string sqlstate = {},
          std::string server_message = {});

    /// An error of an operation: `what()` is "psycache: <operation>: <cause> [<sqlstate>]".
    ///
    /// @param code            what went wrong
    /// @param operation       the name of what failed, such as "get_raw"
    /// @param cause           why, and what to do; no data of the user
    /// @param sqlstate        as above
    /// @param server_message  as above
    /// @param cause_exception what was thrown, null if nothing was
    Error(boost::system::error_code code, std::string operation, std::string cause,
          std::string sqlstate, std::string server_message, std::exception_ptr cause_exception);

    Error(const Error&) noexcept;
    Error& operator=(const Error&) noexcept;
    ~Error() override;

    /// @returns operation, cause and remedy, in one line.
    const char* what() const noexcept override;

    /// @returns the name of what failed: a function of the cache, `init_db`, or "connect". "" when
    /// the error was made of one text.
    std::string_view operation() const noexcept;

    /// @returns why it failed and what to do, without operation and SQLSTATE; for an error that was
    /// made of one text, that text.
    std::string_view cause() const noexcept;

    /// @returns the SQLSTATE, five characters; "" when the error is not from the server. It is set
    /// as well where `code()` is an Errc that stands for a SQLSTATE, as `Errc::table_missing` does
    /// for 42P01.
    std::string_view sqlstate() const noexcept;

    /// @returns what the server wrote, "" if nothing. It can hold keys, values, role and host
    /// names: think before it goes into a log.
    std::string_view server_message() const noexcept;

    /// @returns the exception that made the operation fail, null if there was none: what
    /// `connect()` of the application's own pool threw, or what the library itself met, such as
    /// `std::bad_alloc`. An Error is none of them, since its code, cause, SQLSTATE and server's
    /// text are those of the error that comes of it. The calls that failed together share it:
    /// rethrow it to look at it, and change nothing.
    ///
    /// A field rather than a base class `std::nested_exception`, which cannot be empty:
    /// `std::rethrow_if_nested` ends the program when it is.
    std::exception_ptr cause_exception() const noexcept;

  private:
    struct Parts;
    std::shared_ptr<const Parts> parts_;
};

}  // namespace psycache

template <>
struct boost::system::is_error_code_enum<psycache::Errc> : std::true_type {};
template <>
struct boost::system::is_error_condition_enum<psycache::Condition> : std::true_type {};
