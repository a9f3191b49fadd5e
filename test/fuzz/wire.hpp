#pragma once

/// @file
/// PostgreSQL's protocol as a server speaks it: messages, and whole conversations made of a
/// fuzzer's bytes.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/fuzz.hpp"

namespace psycache::fuzz {

/// A big-endian integer of @p size bytes.
inline std::string big_endian(std::uint64_t value, std::size_t size) {
    std::string bytes;
    for (std::size_t i = size; i > 0; --i) {
        bytes += static_cast<char>(value >> (8 * (i - 1)) & 0xFF);
    }
    return bytes;
}

/// A message of type @p type; @p lie is added to its length.
inline std::string message(char type, std::string_view body, std::uint64_t lie = 0) {
    return type + big_endian(body.size() + 4 + lie, 4) + std::string(body);
}

/// Text that ends with a NUL, and holds none.
inline std::string terminated(std::string_view text) {
    return std::string(text.substr(0, text.find('\0'))) + '\0';
}

inline std::string ready(char status = 'I') {
    return message('Z', std::string(1, status));
}

inline std::string parameter(std::string_view name, std::string_view value) {
    return message('S', terminated(name) + terminated(value));
}

/// An error or a notice.
inline std::string report(char type, std::string_view severity, std::string_view sqlstate,
                          std::string_view text, std::string_view function = "f") {
    return message(type, 'V' + terminated(severity) + 'S' + terminated(severity) + 'C' +
                             terminated(sqlstate) + 'M' + terminated(text) + 'R' +
                             terminated(function) + '\0');
}

/// What a server says before the first statement.
inline std::string welcome() {
    return message('R', big_endian(0, 4)) + parameter("server_version", "15.0") +
           parameter("client_encoding", "UTF8") + parameter("standard_conforming_strings", "on") +
           message('K', big_endian(7, 4) + big_endian(7, 4)) + ready();
}

/// A description of columns, all in binary format.
inline std::string row_description(std::size_t columns) {
    std::string body = big_endian(columns, 2);
    for (std::size_t i = 0; i < columns; ++i) {
        body += terminated("column") + big_endian(0, 4) + big_endian(0, 2) + big_endian(3802, 4) +
                big_endian(0xFFFF, 2) + big_endian(0xFFFFFFFF, 4) + big_endian(1, 2);
    }
    return message('T', body);
}

// Each part of the input is named before the next is taken: compilers differ in which argument of a
// call they evaluate first.
namespace detail {

inline std::string column_of(Input& input) {
    std::string bytes;
    switch (input.below(6)) {
        case 0:
            return big_endian(0xFFFFFFFF, 4);
        case 1:
            bytes = big_endian(input.byte(), 8);
            break;
        case 2:
            bytes = big_endian(input.byte(), 4);
            break;
        case 3:
            bytes = "\x01{\"n\": 1}";
            break;
        case 4:
            bytes = '\x01' + std::string(input.text());
            break;
        default:
            bytes = input.text();
            break;
    }
    return big_endian(bytes.size(), 4) + bytes;
}

inline std::string data_row(Input& input, std::size_t columns) {
    std::string body = big_endian(columns, 2);
    for (std::size_t i = 0; i < columns; ++i) {
        body += column_of(input);
    }
    return message('D', body);
}

inline std::string report_of(Input& input, char type) {
    static constexpr const char* severities[] = {"ERROR", "FATAL", "PANIC", "NOTICE"};
    static constexpr const char* states[] = {"26000", "42P05", "0A000", "57P01", "57P03", "40001",
                                             "40P01", "42P01", "25006", "22P02", "53300", "57014",
                                             "XX000", "28P01", "57P05", "54000"};
    const auto* const severity = severities[input.below(4)];
    const std::size_t which = input.below(20);
    const std::string state = which < 16 ? states[which] : std::string(input.text());
    const std::string_view text = input.text();
    const auto* const function = input.flag() ? "RevalidateCachedQuery" : "f";
    return report(type, severity, state, text, function);
}

inline std::string command_complete(Input& input) {
    static constexpr const char* tags[] = {"SELECT 1",    "INSERT 0 1", "DELETE 1",
                                           "DELETE 1000", "BEGIN",      "CREATE TABLE"};
    const std::size_t which = input.below(8);
    return message('C', terminated(which < 6 ? tags[which] : input.text()));
}

/// What a server answers to a statement that goes well.
inline std::string good_answer(Input& input) {
    const std::size_t columns = input.below(4);
    std::string bytes = message('2', "") + row_description(columns);
    for (std::size_t rows = input.below(4); rows > 0; --rows) {
        bytes += data_row(input, columns);
    }
    return bytes + command_complete(input) + ready();
}

inline std::string one_message(Input& input, std::size_t kind) {
    switch (kind) {
        case 0:
            return message('1', "") + ready();
        case 1:
            return good_answer(input);
        case 2:
            return message("123nIsc"[input.below(7)], "");
        case 3:
            return row_description(input.below(5));
        case 4:
            return data_row(input, input.below(5));
        case 5:
            return command_complete(input);
        case 6:
            return report_of(input, 'E');
        case 7:
            return report_of(input, 'E') + ready();
        case 8:
            return report_of(input, 'N');
        case 9:
            return ready("ITEX"[input.below(4)]);
        case 10: {
            const auto* const name = input.flag() ? "client_encoding" : "TimeZone";
            return parameter(name, input.text());
        }
        case 11: {
            const char type = "GHW"[input.below(3)];
            return message(type, '\0' + big_endian(1, 2) + big_endian(input.below(2), 2));
        }
        case 12: {
            const std::string channel = terminated(input.text());
            return message('A', big_endian(1, 4) + channel + terminated(input.text()));
        }
        case 13:
            return message('d', input.text());
        case 14: {
            // libpq makes room for what the length says: megabytes, for this to be quick.
            const char type = static_cast<char>(input.byte());
            const auto lie = static_cast<std::uint64_t>(input.plain<std::int32_t>() / 256);
            return message(type, input.text(), lie);
        }
        default:
            return std::string(input.text());
    }
}

}  // namespace detail

/// One connection, as the server sees it.
struct Session {
    enum class End {
        close,       ///< closes as soon as it has said everything
        half_close,  ///< says that nothing more comes, and listens on
        silence      ///< says nothing, and listens on
    };

    bool welcomes = true;  ///< begins as a server does
    bool hasty = false;    ///< says everything without waiting to be asked
    End end = End::close;
    std::vector<std::string> answers;  ///< each is sent once something was received
};

/// A session made of the fuzzer's bytes.
inline Session session_of(Input& input) {
    static constexpr std::size_t kinds = 17;
    Session session;
    const std::uint8_t mode = input.byte();
    session.welcomes = (mode & 0x03) != 0x03;
    session.hasty = (mode & 0x04) != 0;
    const auto end = mode >> 3 & 0x0F;
    // Seldom silent: the other side waits until its time is up.
    session.end = end == 0  ? Session::End::silence
                  : end < 4 ? Session::End::half_close
                            : Session::End::close;
    if (session.welcomes) {
        session.answers.push_back(welcome());
    }
    std::string answer;
    for (std::size_t kind = 0; !input.empty() && (kind = input.below(kinds + 1)) != kinds;) {
        if (kind < kinds - 1) {
            answer += detail::one_message(input, kind);
        }
        // A good answer is one on its own; others end where the input says so.
        if (kind == kinds - 1 || kind == 0 || kind == 1 || kind == 7) {
            session.answers.push_back(std::move(answer));
            answer.clear();
        }
    }
    session.answers.push_back(std::move(answer));
    return session;
}

}  // namespace psycache::fuzz
