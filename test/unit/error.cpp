// Codes, conditions and the exception.

#include <boost/asio/error.hpp>
#include <catch2/catch.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <psycache/error.hpp>

#include "core/failure.hpp"

using namespace psycache;
using namespace psycache::detail;
namespace asio = boost::asio;

namespace {

const std::vector<Errc>& every_errc() {
    static const std::vector<Errc> all{
        Errc::invalid_key,         Errc::invalid_value,
        Errc::invalid_ttl,         Errc::unreadable_value,
        Errc::table_missing,       Errc::permission_denied,
        Errc::connect_failed,      Errc::authentication_failed,
        Errc::connection_lost,     Errc::outcome_unknown,
        Errc::timed_out,           Errc::acquire_timed_out,
        Errc::pool_closed,         Errc::queue_full,
        Errc::connection_unusable, Errc::reentrant_call,
        Errc::protocol_error,
    };
    return all;
}

using Codes = std::vector<boost::system::error_code>;

Codes codes_of(const std::vector<Errc>& errcs) {
    return Codes(errcs.begin(), errcs.end());
}

}  // namespace

TEST_CASE("Every Errc is a failure with a name and a text of its own") {
    std::set<int> values;
    std::set<std::string> texts;
    for (const auto errc : every_errc()) {
        const boost::system::error_code code = errc;
        CAPTURE(code);
        CHECK(code.failed());
        CHECK(code == errc);
        CHECK(code == make_error_code(errc));
        CHECK(&code.category() == &errc_category());
        CHECK(std::string(code.category().name()) == "psycache");
        CHECK(code.value() != 0);
        CHECK_FALSE(code.message().empty());
        CHECK(sqlstate_text(code).empty());
        values.insert(code.value());
        texts.insert(code.message());
    }
    CHECK(values.size() == every_errc().size());
    CHECK(texts.size() == every_errc().size());
}

TEST_CASE("An unknown value of the category has a text too") {
    const boost::system::error_code code(4711, errc_category());
    CHECK_FALSE(code.message().empty());
    const boost::system::error_condition condition(4711, condition_category());
    CHECK_FALSE(condition.message().empty());
}

TEST_CASE("A SQLSTATE is a code and comes back as its five characters") {
    for (const std::string text : {"00000", "42P01", "28P01", "57014", "ZZZZZ", "XX000", "0A000",
                                   "23505", "08006", "HV00R"}) {
        const auto code = sqlstate_code(text);
        CAPTURE(text, code);
        CHECK(&code.category() == &sqlstate_category());
        CHECK(sqlstate_text(code) == text);
        CHECK(code == sqlstate_code(text));
        CHECK_FALSE(code.message().empty());
    }
    CHECK(std::string(sqlstate_category().name()) == "psycache.sqlstate");
    CHECK(sqlstate_code("42P01") != sqlstate_code("42P02"));
    CHECK(sqlstate_code("42P01").failed());
}

TEST_CASE("What is no SQLSTATE is a protocol error") {
    for (const auto& text :
         {std::string(), std::string("42P0"), std::string("42P011"), std::string("42p01"),
          std::string("42 01"), std::string("42P0\xFF"), std::string("42P0\0", 5)}) {
        CAPTURE(text);
        CHECK(sqlstate_code(text) == Errc::protocol_error);
    }
    CHECK(sqlstate_text(boost::system::error_code()).empty());
    CHECK(sqlstate_text(asio::error::operation_aborted).empty());
}

TEST_CASE("Conditions group the codes of the library") {
    const auto matches = [](Condition condition) {
        std::vector<Errc> all;
        for (const auto errc : every_errc()) {
            if (make_error_code(errc) == condition) {
                all.push_back(errc);
            }
        }
        return codes_of(all);
    };
    CHECK(std::string(condition_category().name()) == "psycache.condition");
    CHECK(matches(Condition::timeout) == codes_of({Errc::timed_out, Errc::acquire_timed_out}));
    CHECK(matches(Condition::outcome_unknown) ==
          codes_of({Errc::outcome_unknown, Errc::timed_out}));
    CHECK(matches(Condition::caller_mistake) ==
          codes_of({Errc::invalid_key, Errc::invalid_value, Errc::invalid_ttl, Errc::table_missing,
                    Errc::permission_denied, Errc::authentication_failed, Errc::pool_closed,
                    Errc::connection_unusable, Errc::reentrant_call}));
    for (const auto errc : {Errc::connect_failed, Errc::connection_lost, Errc::timed_out,
                            Errc::acquire_timed_out, Errc::queue_full}) {
        CAPTURE(make_error_code(errc));
        CHECK(make_error_code(errc) == Condition::transient);
    }
    for (const auto errc :
         {Errc::connect_failed, Errc::connection_lost, Errc::timed_out, Errc::acquire_timed_out}) {
        CAPTURE(make_error_code(errc));
        CHECK(make_error_code(errc) == Condition::unavailable);
    }
    for (const auto errc : {Errc::invalid_key, Errc::invalid_value, Errc::invalid_ttl,
                            Errc::table_missing, Errc::permission_denied, Errc::unreadable_value}) {
        CAPTURE(make_error_code(errc));
        CHECK(make_error_code(errc) != Condition::transient);
        CHECK(make_error_code(errc) != Condition::unavailable);
        CHECK(make_error_code(errc) != Condition::timeout);
    }
}

TEST_CASE("Conditions group SQLSTATEs") {
    struct Row {
        const char* sqlstate;
        bool transient;
        bool unavailable;
        bool mistake;
    };
    for (const auto& row : std::vector<Row>{
             {"40001", true, false, false},   // serialization failure
             {"40P01", true, false, false},   // deadlock
             {"53300", true, true, false},    // too many connections
             {"57P03", true, true, false},    // starting up
             {"57P01", true, true, false},    // terminated by an administrator
             {"08006", true, true, false},    // connection failure
             {"42P01", false, false, true},   // no such table
             {"42501", false, false, true},   // no privilege
             {"3F000", false, false, true},   // no such schema
             {"23514", false, false, false},  // a check constraint
             {"22P05", false, false, true},   // a character that cannot be translated
         }) {
        const auto code = sqlstate_code(row.sqlstate);
        CAPTURE(row.sqlstate);
        CHECK((code == Condition::transient) == row.transient);
        CHECK((code == Condition::unavailable) == row.unavailable);
        CHECK((code == Condition::caller_mistake) == row.mistake);
        CHECK_FALSE((code == Condition::outcome_unknown));
    }
}

TEST_CASE("Codes of others match no condition, and success matches none") {
    for (const auto condition : {Condition::transient, Condition::timeout, Condition::unavailable,
                                 Condition::caller_mistake, Condition::outcome_unknown}) {
        CHECK_FALSE(boost::system::error_code() == condition);
        CHECK_FALSE(boost::system::error_code(asio::error::operation_aborted) == condition);
        CHECK_FALSE(make_error_condition(condition).message().empty());
    }
}

TEST_CASE("An error carries its code, its text, the SQLSTATE and the server's text apart") {
    const Error error(Errc::table_missing, "get failed: no table", "42P01",
                      "relation \"x\" is secret");
    CHECK(error.code() == Errc::table_missing);
    CHECK(std::string(error.what()) == "get failed: no table");
    CHECK(error.sqlstate() == "42P01");
    CHECK(error.server_message() == "relation \"x\" is secret");

    const Error plain(Errc::timed_out, "get timed out");
    CHECK(plain.sqlstate().empty());
    CHECK(plain.server_message().empty());
    CHECK(std::string(plain.what()) == "get timed out");
}

TEST_CASE(
    "An error of an operation carries operation and cause apart, and makes its text of them") {
    const auto thrown = std::make_exception_ptr(std::runtime_error("why"));
    const Error error(Errc::table_missing, "get_raw", "no table: make it", "42P01", "secret",
                      thrown);
    CHECK(std::string(error.what()) == "psycache: get_raw: no table: make it [42P01]");
    CHECK(error.operation() == "get_raw");
    CHECK(error.cause() == "no table: make it");
    CHECK(error.sqlstate() == "42P01");
    CHECK(error.server_message() == "secret");
    CHECK(error.cause_exception() == thrown);

    const Error plain(Errc::timed_out, "put_raw", "too late", "", "", nullptr);
    CHECK(std::string(plain.what()) == "psycache: put_raw: too late");
    CHECK(plain.cause_exception() == nullptr);

    const Error text(Errc::queue_full, "psycache: connect: the queue: is full", "53000");
    CHECK(text.operation().empty());
    CHECK(text.cause() == text.what());
    CHECK(text.cause_exception() == nullptr);
}

TEST_CASE("An error of ours that another operation meets keeps all but the operation's name") {
    const auto thrown = std::make_exception_ptr(std::runtime_error("why"));
    // Colons and brackets in it are text as any other.
    for (const std::string cause :
         {"a: b: c", "psycache: connect: x", "no colon", "", "x [53300]"}) {
        const Error first(sqlstate_code("53300"), "connect", cause, "53300", "server", thrown);
        CAPTURE(cause);
        for (const auto& failure :
             {to_failure(std::make_exception_ptr(first), Errc::protocol_error),
              lending_failure(std::make_exception_ptr(first))}) {
            const Error second = to_error("get_raw", failure);
            CHECK(second.code() == first.code());
            CHECK(second.operation() == "get_raw");
            CHECK(second.cause() == cause);
            CHECK(second.sqlstate() == "53300");
            CHECK(second.server_message() == "server");
            CHECK(second.cause_exception() == thrown);
            CHECK(std::string(second.what()) == "psycache: get_raw: " + cause + " [53300]");
        }
    }
    const Error own(Errc::acquire_timed_out, "psycache: the source: is dry");
    CHECK(lending_failure(std::make_exception_ptr(own)).cause == own.what());
}

TEST_CASE("What an application's pool throws is quoted, and what anything else throws is not") {
    const auto thrown =
        std::make_exception_ptr(std::runtime_error("  vault:\n\tsealed \x01 now\n"));
    const auto lent = lending_failure(thrown);
    CHECK(lent.code == Errc::connect_failed);
    CHECK(lent.cause == "cannot connect to the server: the pool says: vault: sealed now");
    CHECK(lent.exception == thrown);

    const auto inner = to_failure(thrown, Errc::protocol_error);
    CHECK(inner.code == Errc::protocol_error);
    CHECK(inner.cause == make_error_code(Errc::protocol_error).message());
    CHECK(inner.exception == thrown);

    const auto number = std::make_exception_ptr(42);
    CHECK(lending_failure(number).cause == make_error_code(Errc::connect_failed).message());
    CHECK(lending_failure(number).exception == number);

    const boost::system::system_error left{asio::error::operation_aborted};
    const auto cancelled = lending_failure(std::make_exception_ptr(left));
    CHECK(cancelled.code == asio::error::operation_aborted);
    CHECK(cancelled.exception == nullptr);
}

TEST_CASE("An error is copied without throwing and caught as a system_error") {
    static_assert(std::is_nothrow_copy_constructible_v<Error>);
    static_assert(std::is_nothrow_copy_assignable_v<Error>);
    static_assert(std::is_base_of_v<boost::system::system_error, Error>);
    Error copy(Errc::timed_out, "other");
    {
        const Error error(Errc::queue_full, std::string(1000, 'x'), "53000", "server");
        copy = error;
    }
    CHECK(copy.code() == Errc::queue_full);
    CHECK(std::string(copy.what()) == std::string(1000, 'x'));
    CHECK(copy.sqlstate() == "53000");
    try {
        throw copy;
    } catch (const std::exception& caught) {
        CHECK(std::string(caught.what()) == std::string(1000, 'x'));
    }
    CHECK_THROWS_AS(throw copy, boost::system::system_error);
}
