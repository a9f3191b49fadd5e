#include "core/sqlstate.hpp"

#include <algorithm>

namespace psycache::detail {

namespace {

struct Meaning {
    std::string_view prefix;
    std::string_view text;
};

// The longest prefix is listed first, so that the first match is the best one.
constexpr Meaning meanings[] = {
    {"0A000", "the server does not support this here (an UNLOGGED table on a standby, perhaps)"},
    {"25006", "the server is read-only"},
    {"25P02", "the transaction was aborted earlier"},
    {"28000", "the server refused the role (see pg_hba.conf)"},
    {"28P01", "password authentication failed"},
    {"3D000", "the database does not exist"},
    {"3F000", "the schema does not exist"},
    {"40001", "serialization failure"},
    {"40P01", "deadlock detected"},
    {"42501", "permission denied"},
    {"42P01", "the table does not exist"},
    {"42P05", "a prepared statement of that name exists"},
    {"26000", "a prepared statement is gone"},
    {"53100", "the server's disk is full"},
    {"53200", "the server is out of memory"},
    {"53300", "the server has too many connections"},
    {"55P03", "a lock was not available in time (lock_timeout)"},
    {"54000",
     "a limit of the server was exceeded (its queue of notifications is full, perhaps: see "
     "pg_notification_queue_usage())"},
    {"57014", "the server cancelled the statement (statement_timeout, perhaps)"},
    {"57P01", "the server ended the session on an administrator's command"},
    {"57P02", "the server ended the session because of a crash"},
    {"57P03", "the server does not accept connections now (starting up or shutting down)"},
    {"57P05", "the server ended the session because it was idle"},
    {"08", "connection failure"},
    {"21", "cardinality violation"},
    {"22", "the data was refused"},
    {"23", "a constraint of the table was violated"},
    {"25", "invalid transaction state"},
    {"28", "the server refused the role"},
    {"40", "the transaction was rolled back"},
    {"42", "the statement does not fit the table (has it been changed?)"},
    {"53", "the server lacks resources"},
    {"54", "a limit of the server was exceeded"},
    {"55", "the object is not in the state that the statement needs"},
    {"57", "an operator intervened"},
    {"58", "system error of the server"},
    {"XX", "internal error of the server"},
};

bool is_sqlstate_character(char c) noexcept {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z');
}

}  // namespace

int pack_sqlstate(std::string_view sqlstate) noexcept {
    if (sqlstate.size() != 5 ||
        !std::all_of(sqlstate.begin(), sqlstate.end(), is_sqlstate_character)) {
        return -1;
    }
    int packed = 0;
    for (const char c : sqlstate) {
        packed = packed * 36 + (c <= '9' ? c - '0' : c - 'A' + 10);
    }
    return packed;
}

std::array<char, 5> unpack_sqlstate(int packed) noexcept {
    std::array<char, 5> text{};
    for (auto digit = text.rbegin(); digit != text.rend(); ++digit) {
        const int value = packed % 36;
        *digit = static_cast<char>(value < 10 ? '0' + value : 'A' + value - 10);
        packed /= 36;
    }
    return text;
}

std::string describe_sqlstate(std::string_view sqlstate) {
    for (const Meaning& meaning : meanings) {
        if (sqlstate.starts_with(meaning.prefix)) {
            return std::string(meaning.text);
        }
    }
    return "the server reported an error";
}

bool sqlstate_matches(std::string_view sqlstate, Condition condition) noexcept {
    const auto in_class = [&](std::string_view prefix) { return sqlstate.starts_with(prefix); };
    const bool away = in_class("08") || sqlstate == "57P01" || sqlstate == "57P02" ||
                      sqlstate == "57P03" || sqlstate == "57P05" || sqlstate == "53300" ||
                      sqlstate == "25006";
    switch (condition) {
        case Condition::transient:
            return away || in_class("40") || in_class("53") || in_class("55") ||
                   sqlstate == "57014" || sqlstate == "26000";
        case Condition::timeout:
            return sqlstate == "57014" || sqlstate == "55P03";
        case Condition::unavailable:
            return away;
        case Condition::caller_mistake:
            return in_class("22") || in_class("3D") || in_class("3F") || in_class("42") ||
                   in_class("28") || in_class("54") || in_class("0A");
        case Condition::outcome_unknown:
            return false;
    }
    return false;
}

boost::system::error_code code_of_sqlstate(std::string_view sqlstate) noexcept {
    if (sqlstate == "42P01") {
        return make_error_code(Errc::table_missing);
    }
    if (sqlstate == "42501") {
        return make_error_code(Errc::permission_denied);
    }
    if (sqlstate.starts_with("28")) {
        return make_error_code(Errc::authentication_failed);
    }
    return sqlstate_code(sqlstate);
}

bool ends_session_unexecuted(std::string_view sqlstate) noexcept {
    // 57P02 (crash) is not among them: its session may have died after the commit.
    return sqlstate == "57P01" || sqlstate == "57P05";
}

bool refuses_writes(std::string_view sqlstate) noexcept {
    return sqlstate == "25006";
}

bool spoils_session(std::string_view sqlstate) noexcept {
    // After a failover an old session can stay read-only for ever.
    return refuses_writes(sqlstate);
}

std::string_view find_sqlstate(std::string_view message) noexcept {
    // "FATAL:  28P01: text": the severity is translated, the code and its colons are not.
    for (std::size_t at = message.find(":  "); at != std::string_view::npos;
         at = message.find(":  ", at + 1)) {
        const std::string_view rest = message.substr(at + 3);
        if (rest.size() > 5 && rest[5] == ':' && pack_sqlstate(rest.substr(0, 5)) >= 0) {
            return rest.substr(0, 5);
        }
    }
    return {};
}

}  // namespace psycache::detail
