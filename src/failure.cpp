#include "failure.hpp"

#include "sqlstate.hpp"

namespace psycache {

Failure cancelled_failure() {
    return {boost::system::error_code(boost::asio::error::operation_aborted),
            "cancelled by the caller"};
}

Failure forked_failure() {
    return {
        make_error_code(Errc::connection_unusable),
        "it was made before this process was forked, and its connections are the parent's: make "
        "a new one after the fork"};
}

Failure server_failure(std::string_view sqlstate, std::string server_message) {
    if (pack_sqlstate(sqlstate) <= 0) {
        // No state of an error: the server's text, for all that is known.
        Failure failure(Errc::protocol_error);
        failure.server_message = std::move(server_message);
        return failure;
    }
    Failure failure;
    failure.code = code_of_sqlstate(sqlstate);
    failure.cause = describe_sqlstate(sqlstate);
    failure.sqlstate = std::string(sqlstate);
    failure.server_message = std::move(server_message);
    return failure;
}

Error to_error(std::string_view operation, const Failure& failure) {
    std::string what = "psycache: ";
    what += operation;
    what += ": ";
    what += failure.cause;
    if (!failure.sqlstate.empty()) {
        what += " [" + failure.sqlstate + "]";
    }
    return {failure.code, std::move(what), failure.sqlstate, failure.server_message};
}

Failure to_failure(const std::exception_ptr& exception, Errc otherwise) {
    try {
        std::rethrow_exception(exception);
    } catch (const Error& error) {
        // An Error's text begins with "psycache: <operation>: ", which the outer operation
        // replaces.
        std::string_view cause = error.what();
        for (int part = 0; part < 2; ++part) {
            if (const auto colon = cause.find(": "); colon != std::string_view::npos) {
                cause.remove_prefix(colon + 2);
            }
        }
        Failure failure(error.code(), std::string(cause));
        failure.sqlstate = error.sqlstate();
        failure.server_message = error.server_message();
        if (const std::string tail = " [" + failure.sqlstate + "]";
            !failure.sqlstate.empty() && failure.cause.ends_with(tail)) {
            failure.cause.resize(failure.cause.size() - tail.size());
        }
        return failure;
    } catch (const boost::system::system_error& error) {
        if (error.code() == boost::asio::error::operation_aborted) {
            return cancelled_failure();
        }
        return {otherwise, make_error_code(otherwise).message()};
    } catch (...) {
        // The text of a stranger's exception can hold anything, a password among it.
        return {otherwise, make_error_code(otherwise).message()};
    }
}

}  // namespace psycache
