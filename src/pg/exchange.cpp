#include "pg/exchange.hpp"

#include <libpq-fe.h>

#include <array>

#include "core/sqlstate.hpp"

namespace psycache::detail::pg {

namespace {

std::string field(const PGresult* result, int code) {
    const char* text = PQresultErrorField(result, code);
    return text == nullptr ? std::string() : std::string(text);
}

/// The SQLSTATE of an error; "" when it has none, or something else in its place.
std::string sqlstate_of(const PGresult* result) {
    std::string sqlstate = field(result, PG_DIAG_SQLSTATE);
    return pack_sqlstate(sqlstate) > 0 ? sqlstate : std::string();
}

bool is_error(const PGresult* result) noexcept {
    const ExecStatusType status = PQresultStatus(result);
    return status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK;
}

/// Nothing here asks for a COPY. libpq would hand out such a result again and again.
bool is_copy(const PGresult* result) noexcept {
    const ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
}

// Where these come from is told apart by the server function that raised them.

/// A standby has no rows of an UNLOGGED table.
bool is_standby(const PGresult* result) {
    return field(result, PG_DIAG_SQLSTATE) == "0A000" &&
           field(result, PG_DIAG_SOURCE_FUNCTION) == "get_relation_info";
}

bool is_changed_plan(const PGresult* result) {
    return field(result, PG_DIAG_SQLSTATE) == "0A000" &&
           field(result, PG_DIAG_SOURCE_FUNCTION) == "RevalidateCachedQuery";
}

}  // namespace

Want Exchange::begin() {
    if (statement_ == nullptr) {
        return sent(PQsendQuery(connection(), script_.c_str()) == 1);
    }
    return send();
}

Want Exchange::go_on() {
    if (self_.overran_.load()) {
        return overran();
    }
    return flushing_ ? flush() : receive();
}

Want Exchange::run_blocking(Want next, TimePoint until) {
    while (next != Want::nothing && self_.wait_for(next, until)) {
        next = go_on();
    }
    return next;
}

void Exchange::run_to_the_end(Want next, TimePoint until) {
    if (run_blocking(next, until) != Want::nothing) {
        self_.give_up();
        overran();
    }
}

Want Exchange::overran() {
    self_.overran_ = true;
    self_.break_off();
    return end(StatementFailure(Failure(Errc::timed_out), Effect::unknown, true));
}

Want Exchange::end(Answer answer) {
    answer_ = std::move(answer);
    return Want::nothing;
}

Want Exchange::send() {
    const int count = static_cast<int>(parameters_->size());
    preparing_ = false;
    named_ = self_.prepares() && statement_->planned == Planned::once;
    if (!named_) {
        return sent(PQsendQueryParams(connection(), statement_->sql.c_str(), count,
                                      statement_->types.data(), parameters_->values(),
                                      parameters_->lengths(), parameters_->formats(), 1) == 1);
    }
    const std::string renamed =
        self_.prepared_generation_ == 0 ? std::string() : self_.prepared_name(*statement_);
    const std::string& name = self_.prepared_generation_ == 0 ? statement_->name : renamed;
    preparing_ = !self_.prepared_.contains(name);
    if (preparing_) {
        return sent(PQsendPrepare(connection(), name.c_str(), statement_->sql.c_str(),
                                  static_cast<int>(statement_->types.size()),
                                  statement_->types.data()) == 1);
    }
    return sent(PQsendQueryPrepared(connection(), name.c_str(), count, parameters_->values(),
                                    parameters_->lengths(), parameters_->formats(), 1) == 1);
}

Want Exchange::sent(bool good) {
    return good ? flush() : end(self_.lost(Effect::none));
}

/// One statement at a time: the server reads all of it before it answers, so that waiting for room
/// to write alone cannot end in both sides writing.
Want Exchange::flush() {
    const int left = PQflush(connection());
    if (left < 0) {
        return end(self_.lost(preparing_ ? Effect::none : Effect::unknown));
    }
    flushing_ = left > 0;
    self_.writing_ = flushing_;
    if (flushing_ && self_.overran_.load()) {
        return overran();  // by one who may not have seen that this waits for room
    }
    return flushing_ ? Want::write : Want::read;
}

Want Exchange::receive() {
    // Where this fails, the reason comes from PQgetResult: the server's last words.
    if (PQconsumeInput(connection()) != 0 && PQsslInUse(connection()) != 0) {
        // What OpenSSL has already decrypted no descriptor tells of: a record holds 16 KiB at most,
        // and each call has room for 8.
        PQconsumeInput(connection());
        PQconsumeInput(connection());
    }
    return read();
}

Want Exchange::read() {
    for (;;) {
        if (PQstatus(connection()) == CONNECTION_OK && PQisBusy(connection()) != 0) {
            return Want::read;
        }
        ResultHandle result(PQgetResult(connection()));
        if (!result) {
            break;
        }
        if (is_copy(result.get())) {
            self_.break_off();
            return end(StatementFailure(Failure(Errc::protocol_error), Effect::unknown, true));
        }
        if (!is_error(result.get())) {
            good_ = std::move(result);
        } else if (!error_ || field(error_.get(), PG_DIAG_SQLSTATE).empty()) {
            error_ = std::move(result);
        }
        if (PQstatus(connection()) == CONNECTION_BAD && error_) {
            break;
        }
    }
    return answered();
}

/// One message has been answered: decides whether another follows. A statement that the server has
/// forgotten, or whose plan no longer fits, is prepared once more; the second time the reason must
/// lie between us and the server: a pooler.
Want Exchange::answered() {
    Answer answer = outcome();
    good_.reset();
    error_.reset();
    if (preparing_) {
        if (answer) {
            self_.prepared_.insert(self_.prepared_name(*statement_));
            return send();
        }
        StatementFailure failed = answer.error();
        if (failed.failure.sqlstate == "42P05" && !failed.connection_lost) {
            self_.prepare_->store(false);
            return send();
        }
        failed.effect = Effect::none;  // preparing changes no row
        return end(std::move(failed));
    }
    if (!named_ || answer || answer.error().connection_lost) {
        return end(std::move(answer));
    }
    const StatementFailure failed = answer.error();
    const bool first = attempts_++ == 0;
    if (failed.failure.sqlstate == "26000") {
        self_.prepared_.clear();
        if (!first) {
            self_.prepare_->store(false);
        }
        return send();
    }
    if (failed.changed_plan && first) {
        ++self_.prepared_generation_;
        return send();
    }
    return end(std::move(answer));
}

/// @returns what the answer to one message says.
Answer Exchange::outcome() {
    const std::string sqlstate = error_ ? sqlstate_of(error_.get()) : std::string();
    if (PQstatus(connection()) != CONNECTION_OK) {
        if (self_.overran_.load()) {
            overran();
            return std::move(answer_);
        }
        // A good result that no ReadyForQuery followed may have been rolled back, or not.
        const bool unexecuted = !good_ && ends_session_unexecuted(sqlstate);
        return self_.lost(unexecuted ? Effect::none : Effect::unknown);
    }
    if (!error_) {
        if (self_.behind()) {
            // What it has read is old, and what it has written will be gone.
            self_.break_off();
            return StatementFailure(
                Failure(Errc::connection_lost,
                        "the connection led to an old primary: another host has been promoted"),
                Effect::unknown, true);
        }
        return Rows(std::move(good_));
    }
    if (ends_session_unexecuted(sqlstate) && !good_) {
        self_.break_off();
        return self_.lost(Effect::none);
    }
    Failure failure = sqlstate.empty()
                          ? Failure(Errc::protocol_error)
                          : server_failure(sqlstate, field(error_.get(), PG_DIAG_MESSAGE_PRIMARY));
    // Another connection may lead to the server that can write: but no connection leads there
    // if this one has only just been opened, or has a transaction of the application.
    const bool elsewhere =
        (spoils_session(sqlstate) || is_standby(error_.get())) && !self_.young() && !self_.within_;
    const bool spoiled = sqlstate.empty() || elsewhere || !self_.stays_usable();
    if (spoiled) {
        self_.break_off();
    }
    StatementFailure refused(std::move(failure), Effect::none, spoiled);
    refused.changed_plan = is_changed_plan(error_.get());
    return refused;
}

Result<void> outcome_of(const ResultHandle& result) {
    if (result && !is_error(result.get())) {
        return {};
    }
    return server_failure(field(result.get(), PG_DIAG_SQLSTATE),
                          field(result.get(), PG_DIAG_MESSAGE_PRIMARY));
}

}  // namespace psycache::detail::pg
