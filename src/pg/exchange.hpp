#pragma once

#include <boost/asio/associated_allocator.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <string>
#include <utility>

#include "pg/connection.hpp"
#include "pg/result.hpp"

namespace psycache::detail::pg {

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

    /// The exchange from its beginning, or from where it is, to its end, once this is awaited.
    ///
    /// An operation and no awaitable: it takes no coroutine frame of its own. It cannot be
    /// cancelled but by Connection::overrun(). The connection is attached, the exchange stays where
    /// it is meanwhile.
    class Running {
      public:
        Running(Exchange& exchange, Want next) : exchange_(&exchange), next_(next) {}

        template <boost::asio::completion_token_for<void()> Token>
        auto operator()(Token&& token) {
            return boost::asio::async_initiate<Token, void()>(
                [](auto handler, Exchange* exchange, Want next) {
                    Step<decltype(handler)>{exchange, std::move(handler)}.begin(next);
                },
                token, exchange_, next_);
        }

      private:
        template <class Handler>
        struct Step {
            void begin(Want want) && {
                if (want == Want::nothing) {
                    const auto executor = boost::asio::get_associated_executor(handler);
                    boost::asio::post(executor, std::move(handler));
                } else {
                    std::move(*this).wait(want);
                }
            }
            void operator()(const boost::system::error_code& /*error*/) {
                const Want want = exchange->go_on();
                if (want == Want::nothing) {
                    std::move(handler)();
                } else {
                    std::move(*this).wait(want);
                }
            }
            void wait(Want want) && {
                Descriptor& descriptor = *exchange->self_.descriptor_;
                descriptor.async_wait(
                    want == Want::read ? Descriptor::wait_read : Descriptor::wait_write,
                    std::move(*this));
            }

            using executor_type = boost::asio::associated_executor_t<Handler>;
            executor_type get_executor() const noexcept {
                return boost::asio::get_associated_executor(handler);
            }
            using allocator_type = boost::asio::associated_allocator_t<Handler>;
            allocator_type get_allocator() const noexcept {
                return boost::asio::get_associated_allocator(handler);
            }

            Exchange* exchange;
            Handler handler;
        };

        Exchange* exchange_;
        Want next_;
    };

    /// @param next what begin() or go_on() said.
    Running run(Want next) { return Running(*this, next); }
    /// Runs in the calling thread, without an event loop.
    /// @returns nothing once the exchange has ended; what it waits for when @p until has come.
    Want run_blocking(Want next, TimePoint until);
    /// The same; where @p until comes first the statement has overrun, and the connection ends.
    void run_to_the_end(Want next, TimePoint until);

  private:
    pg_conn* connection() const noexcept { return self_.connection_; }
    Want send();
    Want sent(bool good);
    Want flush();
    Want receive();
    Want read();
    Want answered();
    Want overran();
    Want end(Answer answer);
    Answer outcome();

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

/// @returns nothing, or what the server said; without SQLSTATE when it said nothing.
Result<void> outcome_of(const ResultHandle& result);

}  // namespace psycache::detail::pg
