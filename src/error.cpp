#include <psycache/error.hpp>

#include <boost/asio/error.hpp>
#include <utility>

#include "core/sqlstate.hpp"

namespace psycache {

using namespace detail;

namespace {

// The base class has a protected destructor on purpose; a category is never deleted.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"

class ErrcCategory final : public boost::system::error_category {
  public:
    const char* name() const noexcept override { return "psycache"; }

    std::string message(int value) const override {
        switch (static_cast<Errc>(value)) {
            case Errc::invalid_key:
                return "the key cannot be stored";
            case Errc::invalid_value:
                return "the value cannot be stored as JSONB";
            case Errc::invalid_ttl:
                return "the ttl is outside of PostgreSQL's range";
            case Errc::unreadable_value:
                return "the stored value cannot be read as what the caller takes it for";
            case Errc::table_missing:
                return "the cache's table does not exist";
            case Errc::permission_denied:
                return "permission denied";
            case Errc::connect_failed:
                return "cannot connect to the server";
            case Errc::authentication_failed:
                return "the server refused the role or its password";
            case Errc::connection_lost:
                return "the connection was lost";
            case Errc::outcome_unknown:
                return "the connection was lost before the write was answered";
            case Errc::timed_out:
                return "the call timed out";
            case Errc::acquire_timed_out:
                return "no connection became free in time";
            case Errc::pool_closed:
                return "the connection pool is closed";
            case Errc::queue_full:
                return "too many calls are waiting";
            case Errc::connection_unusable:
                return "the borrowed connection cannot be used";
            case Errc::reentrant_call:
                return "a blocking call was made from inside another one";
            case Errc::protocol_error:
                return "the server's answer was not understood";
            case Errc::counter_overflow:
                return "the counter would leave the range of 64 bits, and was not changed";
            case Errc::invalid_tag:
                return "the tag cannot be stored";
        }
        return "unknown error";
    }
};

bool errc_matches(Errc errc, Condition condition) noexcept {
    switch (condition) {
        case Condition::transient:
            return errc == Errc::connect_failed || errc == Errc::connection_lost ||
                   errc == Errc::timed_out || errc == Errc::acquire_timed_out ||
                   errc == Errc::queue_full;
        case Condition::timeout:
            return errc == Errc::timed_out || errc == Errc::acquire_timed_out;
        case Condition::unavailable:
            return errc == Errc::connect_failed || errc == Errc::authentication_failed ||
                   errc == Errc::connection_lost || errc == Errc::outcome_unknown ||
                   errc == Errc::timed_out || errc == Errc::acquire_timed_out;
        case Condition::caller_mistake:
            return errc == Errc::invalid_key || errc == Errc::invalid_value ||
                   errc == Errc::invalid_ttl || errc == Errc::invalid_tag ||
                   errc == Errc::table_missing || errc == Errc::permission_denied ||
                   errc == Errc::authentication_failed || errc == Errc::pool_closed ||
                   errc == Errc::connection_unusable || errc == Errc::reentrant_call;
        case Condition::outcome_unknown:
            return errc == Errc::outcome_unknown || errc == Errc::timed_out;
    }
    return false;
}

class SqlstateCategory final : public boost::system::error_category {
  public:
    const char* name() const noexcept override { return "psycache.sqlstate"; }

    std::string message(int value) const override {
        const auto text = unpack_sqlstate(value);
        const std::string sqlstate(text.data(), text.size());
        return describe_sqlstate(sqlstate) + " [" + sqlstate + "]";
    }
};

class ConditionCategory final : public boost::system::error_category {
  public:
    const char* name() const noexcept override { return "psycache.condition"; }

    std::string message(int value) const override {
        switch (static_cast<Condition>(value)) {
            case Condition::transient:
                return "trying again later is sensible";
            case Condition::timeout:
                return "a time limit passed";
            case Condition::unavailable:
                return "the cache cannot be reached";
            case Condition::caller_mistake:
                return "the arguments or the set-up are wrong";
            case Condition::outcome_unknown:
                return "a write may or may not have been stored";
        }
        return "unknown condition";
    }

    bool equivalent(const boost::system::error_code& code, int value) const noexcept override {
        const auto condition = static_cast<Condition>(value);
        if (code.category() == errc_category()) {
            return errc_matches(static_cast<Errc>(code.value()), condition);
        }
        if (code.category() == sqlstate_category()) {
            const auto text = unpack_sqlstate(code.value());
            return sqlstate_matches(std::string_view(text.data(), text.size()), condition);
        }
        return false;
    }
};

#pragma GCC diagnostic pop

}  // namespace

const boost::system::error_category& errc_category() noexcept {
    static const ErrcCategory category;
    return category;
}

const boost::system::error_category& sqlstate_category() noexcept {
    static const SqlstateCategory category;
    return category;
}

const boost::system::error_category& condition_category() noexcept {
    static const ConditionCategory category;
    return category;
}

boost::system::error_code make_error_code(Errc errc) noexcept {
    return {static_cast<int>(errc), errc_category()};
}

boost::system::error_condition make_error_condition(Condition condition) noexcept {
    return {static_cast<int>(condition), condition_category()};
}

boost::system::error_code sqlstate_code(std::string_view sqlstate) noexcept {
    const int packed = pack_sqlstate(sqlstate);
    if (packed < 0) {
        return make_error_code(Errc::protocol_error);
    }
    return {packed, sqlstate_category()};
}

std::string sqlstate_text(const boost::system::error_code& code) {
    if (code.category() != sqlstate_category()) {
        return {};
    }
    const auto text = unpack_sqlstate(code.value());
    return {text.data(), text.size()};
}

struct Error::Parts {
    std::string what;
    std::string operation;
    std::string cause;
    std::string sqlstate;
    std::string server_message;
    std::exception_ptr cause_exception;
};

namespace {

std::string text_of(std::string_view operation, std::string_view cause, std::string_view sqlstate) {
    std::string what = "psycache: ";
    what.append(operation).append(": ").append(cause);
    if (!sqlstate.empty()) {
        what.append(" [").append(sqlstate).append("]");
    }
    return what;
}

}  // namespace

Error::Error(boost::system::error_code code, std::string what, std::string sqlstate,
             std::string server_message)
    : system_error(code),
      parts_(std::make_shared<const Parts>(
          Parts{what, {}, what, std::move(sqlstate), std::move(server_message), nullptr})) {}

Error::Error(boost::system::error_code code, std::string operation, std::string cause,
             std::string sqlstate, std::string server_message, std::exception_ptr cause_exception)
    : system_error(code),
      parts_(std::make_shared<const Parts>(
          Parts{text_of(operation, cause, sqlstate), std::move(operation), std::move(cause),
                std::move(sqlstate), std::move(server_message), std::move(cause_exception)})) {}

Error::Error(const Error&) noexcept = default;
Error& Error::operator=(const Error&) noexcept = default;
Error::~Error() = default;

const char* Error::what() const noexcept {
    return parts_->what.c_str();
}
std::string_view Error::operation() const noexcept {
    return parts_->operation;
}
std::string_view Error::cause() const noexcept {
    return parts_->cause;
}
std::string_view Error::sqlstate() const noexcept {
    return parts_->sqlstate;
}
std::string_view Error::server_message() const noexcept {
    return parts_->server_message;
}
std::exception_ptr Error::cause_exception() const noexcept {
    return parts_->cause_exception;
}

}  // namespace psycache
