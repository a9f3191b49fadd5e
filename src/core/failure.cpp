#include "core/failure.hpp"

#include "core/sqlstate.hpp"

namespace psycache::detail {

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
    return {failure.code,     std::string(operation), failure.cause,
            failure.sqlstate, failure.server_message, failure.exception};
}

namespace {

/// The text of a stranger's exception, as a part of one line.
std::string one_line(std::string_view text) {
    std::string line;
    for (const char c : text) {
        if (static_cast<unsigned char>(c) > ' ') {
            line += c;
        } else if (!line.empty() && line.back() != ' ') {
            line += ' ';
        }
    }
    if (line.ends_with(' ')) {
        line.pop_back();
    }
    return line;
}

enum class Texts { hidden, shown };

Failure to_failure(const std::exception_ptr& exception, Errc otherwise, Texts texts) {
    Failure failure(otherwise);
    failure.exception = exception;
    try {
        std::rethrow_exception(exception);
    } catch (const Error& error) {
        failure.code = error.code();
        failure.cause = error.cause();
        failure.sqlstate = error.sqlstate();
        failure.server_message = error.server_message();
        failure.exception = error.cause_exception();
    } catch (const std::exception& error) {
        const auto* system = dynamic_cast<const boost::system::system_error*>(&error);
        if (system != nullptr && system->code() == boost::asio::error::operation_aborted) {
            return cancelled_failure();
        }
        if (texts == Texts::shown) {
            failure.cause += ": the pool says: " + one_line(error.what());
        }
    } catch (...) {
        // No text that could be shown.
    }
    return failure;
}

}  // namespace

Failure to_failure(const std::exception_ptr& exception, Errc otherwise) {
    return to_failure(exception, otherwise, Texts::hidden);
}

Failure lending_failure(const std::exception_ptr& exception) {
    return to_failure(exception, Errc::connect_failed, Texts::shown);
}

}  // namespace psycache::detail
