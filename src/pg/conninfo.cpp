#include "pg/conninfo.hpp"

#include <libpq-fe.h>

#include <boost/asio/ip/address.hpp>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>

namespace psycache::detail::pg {

namespace {

using Options = std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)>;

std::vector<std::string> split(const char* list) {
    std::vector<std::string> parts(1);
    for (const char* c = list == nullptr ? "" : list; *c != '\0'; ++c) {
        if (*c == ',') {
            parts.emplace_back();
        } else {
            parts.back() += *c;
        }
    }
    return parts;
}

Options parse(const std::string& dsn) {
    char* message = nullptr;
    Options options(PQconninfoParse(dsn.c_str(), &message), &PQconninfoFree);
    PQfreemem(message);  // unread: it can quote a password
    return options;
}

std::string join(const std::vector<Host>& hosts, std::string Host::*part) {
    std::string list;
    for (const Host& host : hosts) {
        if (&host != &hosts.front()) {
            list += ',';
        }
        list += host.*part;
    }
    return list;
}

/// A peer that has vanished is found out within 20 seconds, instead of the system's two hours while
/// idle and fifteen minutes while something is on its way.
constexpr std::pair<const char*, const char*> tcp_defaults[] = {{"keepalives_idle", "10"},
                                                                {"keepalives_interval", "3"},
                                                                {"keepalives_count", "3"},
                                                                {"tcp_user_timeout", "10000"}};

}  // namespace

void check_dsn(const std::string& dsn, const std::string& name) {
    if (dsn.find('\0') != std::string::npos) {
        throw std::invalid_argument(name + " must not contain a NUL byte");
    }
    if (!parse(dsn)) {
        throw std::invalid_argument(
            name +
            " is no connection string that libpq can read: neither a URI "
            "(postgresql://...) nor \"keyword=value\" pairs with known keywords");
    }
}

Conninfo read_conninfo(const std::string& dsn) {
    // libpq merges environment and service file only while it starts to connect. A start with an
    // impossible sslmode fails right after that, before it resolves a name or opens a socket.
    const char* const keywords[] = {"dbname", "sslmode", nullptr};
    const char* const values[] = {dsn.c_str(), "psycache-only-reads", nullptr};
    const std::unique_ptr<PGconn, decltype(&PQfinish)> probe(
        PQconnectStartParams(keywords, values, 1), &PQfinish);
    const Options merged(probe ? PQconninfo(probe.get()) : nullptr, &PQconninfoFree);

    std::vector<std::string> names(1);
    std::vector<std::string> addresses(1);
    std::vector<std::string> ports(1);
    bool default_gssencmode = true;
    ConnectParameters tcp;
    for (const PQconninfoOption* option = merged.get();
         option != nullptr && option->keyword != nullptr; ++option) {
        if (std::strcmp(option->keyword, "host") == 0) {
            names = split(option->val);
        } else if (std::strcmp(option->keyword, "hostaddr") == 0) {
            addresses = split(option->val);
        } else if (std::strcmp(option->keyword, "port") == 0) {
            ports = split(option->val);
        } else if (std::strcmp(option->keyword, "gssencmode") == 0) {
            default_gssencmode = option->val == nullptr || option->compiled == nullptr ||
                                 std::strcmp(option->val, option->compiled) == 0;
        }
        for (const auto& [keyword, value] : tcp_defaults) {
            if (std::strcmp(option->keyword, keyword) == 0 && option->val == nullptr) {
                tcp.emplace_back(keyword, value);
            }
        }
    }

    Conninfo conninfo;
    conninfo.tcp = std::move(tcp);
    conninfo.own_gssencmode = !default_gssencmode || std::getenv("PGGSSENCMODE") != nullptr ||
                              dsn.find("gssencmode") != std::string::npos;
    const std::size_t count = std::max(names.size(), addresses.size());
    for (std::size_t i = 0; i < count; ++i) {
        Host host;
        host.name = i < names.size() ? names[i] : "";
        host.address = i < addresses.size() ? addresses[i] : "";
        host.port = ports.size() == 1 ? ports[0] : i < ports.size() ? ports[i] : "";
        conninfo.hosts.push_back(std::move(host));
    }
    return conninfo;
}

bool plausible(const Host& host) {
    const bool local = host.name.starts_with('/') || host.name.starts_with('@');
    return (local || host.name.find('@') == std::string::npos) &&
           host.port.find_first_not_of(" 0123456789") == std::string::npos;
}

bool needs_resolving(const Host& host) {
    if (host.name.empty() || !host.address.empty() || host.name[0] == '/' || host.name[0] == '@') {
        return false;
    }
    boost::system::error_code not_literal;
    boost::asio::ip::make_address(host.name, not_literal);
    return static_cast<bool>(not_literal);
}

ConnectParameters connect_parameters(const std::string& dsn, const Conninfo& conninfo,
                                     const std::vector<Host>& hosts) {
    ConnectParameters parameters;
    parameters.emplace_back("dbname", dsn);
    parameters.emplace_back("host", join(hosts, &Host::name));
    parameters.emplace_back("hostaddr", join(hosts, &Host::address));
    parameters.emplace_back("port", join(hosts, &Host::port));
    parameters.emplace_back("client_encoding", "UTF8");
    parameters.emplace_back("fallback_application_name", "psycache");
    parameters.insert(parameters.end(), conninfo.tcp.begin(), conninfo.tcp.end());
    if (!conninfo.own_gssencmode) {
        // Probing for Kerberos credentials can block, and can cost a second connection.
        parameters.emplace_back("gssencmode", "disable");
    }
    return parameters;
}

}  // namespace psycache::detail::pg
