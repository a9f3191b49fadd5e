#include "soak/site.hpp"

#include <optional>

#include "support/run_coro.hpp"

namespace psycache::soak {

Site::Site() : server_({"max_connections = 60", "deadlock_timeout = 200ms"}) {
    const std::string name = role;
    admin().exec("CREATE ROLE " + name + " LOGIN; CREATE SCHEMA " + schema + " AUTHORIZATION " +
                 name);
    make_tables();
}

std::string Site::dsn(const std::string& application) const {
    return server_.dsn({{"user", role}, {"application_name", application}});
}

std::string Site::dsn(const std::string& application, const std::string& port) const {
    return server_.tcp_dsn({{"user", role}, {"application_name", application}, {"port", port}});
}

test::Psql Site::admin() const {
    std::optional<test::Psql> sql;
    std::string why;
    const auto connected = [&] {
        try {
            sql.emplace(server_.dsn());
        } catch (const test::SqlError& error) {
            why = error.what();
        }
        return sql.has_value();
    };
    if (!test::eventually(connected, 3 * test::patience)) {
        throw std::runtime_error("the server does not come back: " + why);
    }
    return std::move(*sql);
}

void Site::make_tables() const {
    TableOptions options;
    options.tags = true;
    options.schema = schema;
    init_db(dsn("table"), options);
}

}  // namespace psycache::soak
