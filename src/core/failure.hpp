#pragma once

#include <boost/asio/error.hpp>
#include <boost/system/result.hpp>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include <psycache/error.hpp>

namespace psycache::detail {

/// Why something failed, inside the library: what becomes an Error once the operation is known.
struct Failure {
    Failure() = default;
    Failure(boost::system::error_code why, std::string text) : code(why), cause(std::move(text)) {}
    explicit Failure(Errc errc) : Failure(errc, make_error_code(errc).message()) {}
    Failure(Errc errc, std::string text) : Failure(make_error_code(errc), std::move(text)) {}

    boost::system::error_code code;
    std::string cause;             // complete but for the operation; no data of the user
    std::string sqlstate;          // "" when not from the server
    std::string server_message;    // never shown unasked
    std::exception_ptr exception;  // what was thrown and is no Error, if that is why
};

/// A value or the reason why there is none.
template <class T>
using Result = boost::system::result<T, Failure>;

/// @returns the failure of a call that its caller cancelled, or whose context went away.
Failure cancelled_failure();

/// @returns the failure of a call in a process that was forked off from that of its cache.
Failure forked_failure();

/// @returns an error reported by the server, described without the server's own words.
Failure server_failure(std::string_view sqlstate, std::string server_message);

/// @returns the exception that @p failure is for the callers of @p operation.
Error to_error(std::string_view operation, const Failure& failure);

/// @returns the failure that an exception stands for; @p otherwise is the code of exceptions that
/// are no Error. Their texts are not shown, since they can hold anything.
Failure to_failure(const std::exception_ptr& exception, Errc otherwise);

/// @returns the failure that stands for what `connect()` of a pool threw. Where that is the
/// application's own exception its text is shown: only the application knows why its pool lends
/// nothing.
Failure lending_failure(const std::exception_ptr& exception);

}  // namespace psycache::detail
