#include "pg/connect_errors.hpp"

#include <algorithm>
#include <utility>

#include "core/sqlstate.hpp"

namespace psycache::detail::pg {

namespace {

constexpr std::string_view begins_host = "connection to server ";
constexpr std::string_view ends_host = " failed: ";

}  // namespace

void ConnectErrors::add(std::string_view message) {
    const std::string_view whole = message;
    bool first = true;
    while (!message.empty()) {
        const std::string_view line = message.substr(0, message.find('\n'));
        message.remove_prefix(std::min(line.size() + 1, message.size()));
        // What follows a host's line explains it further, in words that may be the server's.
        if (!std::exchange(first, false) && !line.starts_with(begins_host)) {
            continue;
        }
        const std::size_t end = line.find(ends_host);
        const bool names_host = line.starts_with(begins_host) && end != std::string_view::npos;
        const std::string_view host = line.substr(0, names_host ? end + ends_host.size() : 0);
        if (names_host && host == line) {
            continue;  // of this one nothing is known yet
        }
        const std::string_view sqlstate = find_sqlstate(line);
        if (sqlstate.empty()) {
            last_ = Failure(Errc::connect_failed);
            add(Reason{std::string(host), std::string(line.substr(host.size())), false});
            continue;
        }
        last_ = server_failure(sqlstate, std::string(whole));
        if (last_.code != Errc::authentication_failed) {
            last_.code = make_error_code(Errc::connect_failed);
        }
        add(Reason{std::string(host), last_.cause, true});
    }
}

void ConnectErrors::add(const std::string& host, std::string reason) {
    last_ = Failure(Errc::connect_failed);
    add(Reason{host + ": ", std::move(reason), false});
}

void ConnectErrors::add(Reason reason) {
    // A host is tried with TLS and without.
    if (std::find(reasons_.begin(), reasons_.end(), reason) == reasons_.end()) {
        reasons_.push_back(std::move(reason));
    }
}

Failure ConnectErrors::failure() const {
    Failure failure = last_;
    failure.cause = "cannot connect to the server: ";
    if (reasons_.empty()) {
        failure.code = make_error_code(Errc::connect_failed);
        failure.cause += "it did not answer in time (connect_timeout)";
    } else if (reasons_.size() == 1) {
        const Reason& only = reasons_.front();
        failure.cause += (only.of_server ? "" : only.host) + only.reason;
    } else {
        for (const Reason& one : reasons_) {
            failure.cause += (&one == &reasons_.front() ? "" : "; ") + one.host + one.reason;
        }
    }
    return failure;
}

}  // namespace psycache::detail::pg
