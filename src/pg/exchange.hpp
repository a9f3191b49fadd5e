#pragma once

#include <memory>
#include <string>

#include "pg/connection.hpp"

struct pg_result;

namespace psycache::pg {

/// The messages of one statement on one connection: sent, answered, and sent again where that
/// helps. No waiting and no coroutine: it says what it waits for.
class Exchange {
  public:
    /// @param connection reusable, and left alone by everybody else until the exchange has ended.
    Exchange(Connection& connection, const Statement& statement, const Parameters& parameters)
        : self_(connection), statement_(&statement), parameters_(&parameters) {}
    /// @param script statements without parameters.
    Exchange(Connection& connection, std::string script)
        : self_(connection), script_(std::move(script)) {}

    /// Sends the first message. @returns what has to come before go_on() is called.
    Want begin();
    /// What was wanted has come, or the statement was overrun. @returns what has to come next.
    Want go_on();
    /// @returns the answer, once nothing more is wanted.
    Answer take() { return std::move(answer_); }

  private:
    struct Clear {
        void operator()(pg_result* result) const noexcept;
    };
    using ResultHandle = std::unique_ptr<pg_result, Clear>;

    pg_conn* connection() const noexcept { return self_.connection_; }
    Want send();
    Want sent(bool good);
    Want flush();
    Want receive();
    Want read();
    Want answered();
    Want end(Answer answer);
    Answer verdict();

    Connection& self_;
    const Statement* const statement_ = nullptr;
    const Parameters* const parameters_ = nullptr;
    const std::string script_;
    bool named_ = false;  // the message uses a prepared statement, or prepares one
    bool preparing_ = false;
    bool flushing_ = false;
    int attempts_ = 0;
    ResultHandle good_;
    ResultHandle error_;
    Answer answer_{Rows()};
};

/// @returns nothing, or what the server said; without SQLSTATE when it said nothing. Frees the
/// result.
Result<void> outcome_of(pg_result* result);

}  // namespace psycache::pg
