#include "cli/init_db.hpp"

#include "cli/outcome.hpp"

namespace psycache::cli {

int init_db(const std::optional<std::string>& dsn, const TableOptions& options, bool no_notify) {
    return run("init-db", ServerWords::all, [&] {
        if (!dsn) {
            return print("init-db", init_db_sql(options) +
                                        (no_notify ? drop_notify_sql(options) : std::string()));
        }
        psycache::init_db(*dsn, options);
        if (no_notify) {
            drop_notify(*dsn, options);
        }
        return print("init-db", "psycache: initialized the cache table.\n");
    });
}

}  // namespace psycache::cli
