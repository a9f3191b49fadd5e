#pragma once

/// @file
/// Counts what libpq hands out and gets back, for a program that is linked with --wrap (see
/// CMakeLists.txt).
///
/// libpq itself loses a result when a server begins a COPY inside of an answer, so that what it
/// allocates is no measure of what its user loses.

#include <libpq-fe.h>

#include "fuzz/fuzz.hpp"

namespace psycache::fuzz {

inline int results_out = 0;
inline int connections_out = 0;

/// Complains if something was handed out and not given back, or given back twice.
inline void require_all_given_back() {
    require(results_out == 0, "each result of libpq is cleared once");
    require(connections_out == 0, "each connection of libpq is finished once");
}

}  // namespace psycache::fuzz

extern "C" {

// LeakSanitizer asks for this: what is allocated inside of libpq.
const char* __lsan_default_suppressions();
const char* __lsan_default_suppressions() {
    return "leak:libpq.so\n";
}

PGresult* __real_PQgetResult(PGconn* connection);
void __real_PQclear(PGresult* result);
PGconn* __real_PQconnectStartParams(const char* const* keywords, const char* const* values,
                                    int expand);
void __real_PQfinish(PGconn* connection);

PGresult* __wrap_PQgetResult(PGconn* connection);
PGresult* __wrap_PQgetResult(PGconn* connection) {
    PGresult* const result = __real_PQgetResult(connection);
    psycache::fuzz::results_out += result == nullptr ? 0 : 1;
    return result;
}

void __wrap_PQclear(PGresult* result);
void __wrap_PQclear(PGresult* result) {
    psycache::fuzz::results_out -= result == nullptr ? 0 : 1;
    __real_PQclear(result);
}

PGconn* __wrap_PQconnectStartParams(const char* const* keywords, const char* const* values,
                                    int expand);
PGconn* __wrap_PQconnectStartParams(const char* const* keywords, const char* const* values,
                                    int expand) {
    PGconn* const connection = __real_PQconnectStartParams(keywords, values, expand);
    psycache::fuzz::connections_out += connection == nullptr ? 0 : 1;
    return connection;
}

void __wrap_PQfinish(PGconn* connection);
void __wrap_PQfinish(PGconn* connection) {
    psycache::fuzz::connections_out -= connection == nullptr ? 0 : 1;
    __real_PQfinish(connection);
}
}
