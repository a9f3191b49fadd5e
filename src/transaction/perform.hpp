#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "transaction/transaction_core.hpp"

namespace psycache::detail {

/// One call inside of the application's transaction, from its beginning to its end: spans, checks,
/// its statement, errors. No breaker, no queue and no retry: what fails has failed in a transaction
/// that only the application can repeat.
///
/// A request (operations/in_transaction.hpp) says what is particular:
///   Span, Value, name          of the public call
///   operation                  what instrumentations call its statement
///   open_spans(observers, n)   its spans
///   mistake()                  what is wrong with its arguments, if anything
///   bind(statements, p)        its statement, with parameters; the request stays where it is
///   read(rows)                 the result, or why it cannot be read
///   tell(spans, rows, sizes)   what the spans are told of a result
///   explain(failure, s)        a failure in the terms of the call
template <class Request>
class TransactionCall {
  public:
    using Value = typename Request::Value;

    /// @throws std::invalid_argument for the options.
    TransactionCall(TransactionCore& core, Request request, const CallOptions& options)
        : core_(core),
          until_(core.deadline(options)),
          request_(std::move(request)),
          spans_(request_.open_spans(core.observers, SpanName{options.span_name, Request::name})) {}
    TransactionCall(const TransactionCall&) = delete;
    TransactionCall& operator=(const TransactionCall&) = delete;

    /// Checks arguments and transaction. @returns whether the statement is to be run.
    bool begin() {
        if (auto mistake = request_.mistake()) {
            failure_ = std::move(*mistake);
            return false;
        }
        auto entered = core_.enter();
        if (!entered) {
            failure_ = entered.error();
            return false;
        }
        entered_.emplace(std::move(*entered));
        statement_ = &request_.bind(core_.statements, parameters_);
        watch_.emplace(core_.observers, Request::operation, 1, false);
        return true;
    }

    pg::Connection& connection() const noexcept { return entered_->connection(); }
    const pg::Statement& statement() const noexcept { return *statement_; }
    const pg::Parameters& parameters() const noexcept { return parameters_; }
    TimePoint until() const noexcept { return until_; }

    /// The statement has ended.
    void answered(pg::Answer answer) {
        entered_.reset();
        watch_->ended(answer ? boost::system::error_code() : answer.error().failure.code);
        if (answer) {
            rows_ = std::move(*answer);
            return;
        }
        failure_ = answer.error().failure;
        if (failure_.code == Errc::connection_lost) {
            // No doubt about what it did: that transaction can no longer be committed.
            failure_.cause =
                "the connection broke, and its transaction with it: nothing of that is stored";
        }
    }

    /// @returns the call's result. @throws Error.
    Value finish() {
        if (!failure_.code) {
            Result<Value> value = request_.read(rows_);
            if (value) {
                request_.tell(spans_, rows_, core_.statements.table.sizes);
                if constexpr (std::is_void_v<Value>) {
                    return;
                } else {
                    return std::move(*value);
                }
            }
            failure_ = value.error();
        }
        failure_ = request_.explain(std::move(failure_), core_.statements);
        spans_.record_error(failure_.code);
        throw to_error(Request::name, failure_);
    }

  private:
    TransactionCore& core_;
    const TimePoint until_;
    const Request request_;
    Spans<typename Request::Span> spans_;
    std::optional<TransactionCore::Entered> entered_;
    pg::Parameters parameters_;
    const pg::Statement* statement_ = nullptr;
    std::optional<StatementWatch> watch_;
    pg::Rows rows_;
    Failure failure_;
};

/// Runs a call in the calling thread.
template <class Request>
typename Request::Value perform_within(TransactionCore& core, Request request,
                                       const CallOptions& options) {
    TransactionCall<Request> call(core, std::move(request), options);
    if (call.begin()) {
        call.answered(call.connection().execute_within_blocking(call.statement(), call.parameters(),
                                                                call.until()));
    }
    return call.finish();
}

/// Runs a call in a coroutine, which keeps the core alive.
template <class Request>
asio::awaitable<typename Request::Value> perform_within(std::shared_ptr<TransactionCore> core,
                                                        Request request, CallOptions options) {
    TransactionCall<Request> call(*core, std::move(request), options);
    if (call.begin()) {
        auto running = call.connection().execute_within(call.statement(), call.parameters(),
                                                        call.until(), core->io);
        pg::Answer answer = co_await std::move(running);
        call.answered(std::move(answer));
    }
    co_return call.finish();
}

}  // namespace psycache::detail
