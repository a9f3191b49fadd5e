// Any connection string: refused without being repeated, or split into hosts without a connection.

#include "pg/conninfo.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "fuzz/fuzz.hpp"

using namespace psycache;
using namespace psycache::detail;
using psycache::fuzz::require;

namespace {

/// Nothing of this machine may decide what a DSN means.
const bool isolated = [] {
    for (const char* name : {"HOME", "PGPASSFILE", "PGSERVICEFILE", "PGSYSCONFDIR"}) {
        ::setenv(name, "/nonexistent", 1);
    }
    return true;
}();

bool accepted(const std::string& dsn) {
    try {
        pg::check_dsn(dsn, "dsn");
        return true;
    } catch (const std::invalid_argument& error) {
        static const std::string texts[] = {
            "dsn must not contain a NUL byte",
            "dsn is no connection string that libpq can read: neither a URI (postgresql://...) nor "
            "\"keyword=value\" pairs with known keywords"};
        require(error.what() == texts[0] || error.what() == texts[1],
                "a DSN is refused without being repeated");
        return false;
    }
}

std::string value_of(const pg::ConnectParameters& parameters, std::string_view keyword) {
    for (const auto& [name, value] : parameters) {
        if (name == keyword) {
            return value;
        }
    }
    return "(none)";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string dsn(reinterpret_cast<const char*>(data), size);
    if (!accepted(dsn)) {
        return 0;
    }
    const pg::Conninfo conninfo = pg::read_conninfo(dsn);
    require(isolated && !conninfo.hosts.empty(), "there is a host");
    std::string names;
    std::string addresses;
    for (const pg::Host& host : conninfo.hosts) {
        pg::needs_resolving(host);
        const char* const comma = &host == &conninfo.hosts.front() ? "" : ",";
        names += comma + host.name;
        addresses += comma + host.address;
    }
    const auto parameters = pg::connect_parameters(dsn, conninfo, conninfo.hosts);
    require(parameters.front().first == "dbname" && parameters.front().second == dsn,
            "the DSN itself comes first");
    require(value_of(parameters, "host") == names, "libpq gets the hosts as they were read");
    require(value_of(parameters, "hostaddr") == addresses, "and their addresses");
    require(value_of(parameters, "client_encoding") == "UTF8", "and the encoding");
    return 0;
}
