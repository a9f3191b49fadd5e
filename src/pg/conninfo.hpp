#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace psycache::detail::pg {

/// One place where a server may listen, as the DSN, the environment and the service file name it.
struct Host {
    std::string name;     // host name, IP literal, or directory of a Unix socket; may be ""
    std::string address;  // "hostaddr", "" if not given
    std::string port;     // "" for the default
};

/// libpq's parameters for one connection attempt.
using ConnectParameters = std::vector<std::pair<std::string, std::string>>;

/// What a DSN means once libpq has read the environment and the service file.
struct Conninfo {
    std::vector<Host> hosts;  // at least one
    bool own_gssencmode;      // set by the user, so not to be overridden
    ConnectParameters tcp;    // how soon a peer that vanished is missed, as far as it was not set
};

/// @param name how the message calls the DSN.
/// @throws std::invalid_argument when libpq cannot read the DSN; the text does not repeat it.
void check_dsn(const std::string& dsn, const std::string& name);

/// Reads a DSN with all its defaults; no network, no blocking but for small local files.
Conninfo read_conninfo(const std::string& dsn);

/// @returns whether the host needs a name server (or /etc/hosts) before libpq may see it.
bool needs_resolving(const Host& host);

/// Whether host and port can be meant as such. What is left of a password that was not escaped in
/// its URI is taken for one of them, and must not be repeated.
bool plausible(const Host& host);

/// @returns the parameters that connect to @p hosts, all other settings as in @p dsn.
ConnectParameters connect_parameters(const std::string& dsn, const Conninfo& conninfo,
                                     const std::vector<Host>& hosts);

}  // namespace psycache::detail::pg
