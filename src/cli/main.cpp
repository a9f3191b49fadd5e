// The program `psycache`: what an operator does to the cache's table from a shell.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <psycache/table.hpp>
#include <psycache/version.hpp>

#include "cli/entries.hpp"
#include "cli/init_db.hpp"
#include "cli/outcome.hpp"

namespace {

constexpr const char* description =
    "A cache in PostgreSQL: looks after the table that psycache keeps its entries in.";

constexpr const char* init_db_description =
    "Make the cache's table and its index, unless they are there already.";

constexpr const char* clear_description = "Delete all entries and all tags at once, by TRUNCATE.";

constexpr const char* init_db_footer =
    R"(The table is UNLOGGED: fast to write, empty after a crash, not on standbys; --logged
makes an ordinary one. A table that exists is left as it is.

--tags makes a second table, psycache_tags, which entries with tags need.

--notify makes triggers that tell of changed entries by NOTIFY, on the channel
psycache_ and the OID of the table; --no-notify removes them. With neither they are
left as they are.

Without DSN the SQL is printed instead, for a migration tool or for psql:
  psycache init-db --schema app | psql -v ON_ERROR_STOP=1
Any number of sessions may run it at once. In its statements \x3b is a semicolon,
for tools that split a script at them.

DSN is what libpq accepts: "postgresql://host/database", "host=... dbname=...",
or "" for the environment (PGHOST, PGDATABASE, PGSERVICE ...). Other users of this
machine can read a password on a command line: keep it in ~/.pgpass, in the file
that PGPASSFILE names, or in a service file (DSN "service=NAME").)";

constexpr const char* clear_footer =
    R"(The role needs the privilege TRUNCATE on the tables. It waits for transactions that
use them for a minute at most, and holds up others for 0.1 seconds at a time.

DSN is as for init-db; "" for the environment.)";

std::string version_text() {
    return "psycache " + std::to_string(PSYCACHE_VERSION_MAJOR) + "." +
           std::to_string(PSYCACHE_VERSION_MINOR) + "." + std::to_string(PSYCACHE_VERSION_PATCH);
}

/// The command line, last argument first, as CLI11 wants it.
///
/// CLI11 takes the argument that follows for the value of a bare "--schema=", so that an unset
/// variable would turn the DSN into a schema. Two arguments say "empty" unmistakably.
std::vector<std::string> arguments(int argc, char** argv) {
    std::vector<std::string> result;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "--schema=") {
            result.insert(result.end(), {"--schema", ""});
        } else {
            result.push_back(argument);
        }
    }
    std::reverse(result.begin(), result.end());
    return result;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app(description, "psycache");
    app.set_version_flag("--version", version_text(), "Print the version and exit");
    app.set_help_flag("-h,--help", "Print this help and exit");
    app.require_subcommand(1);
    app.failure_message([](const CLI::App*, const CLI::Error& error) {
        // Arguments too many are not repeated: a DSN that was not quoted can hold a password.
        const bool too_many = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
        return std::string("psycache: ") +
               (too_many ? "there are arguments that were not expected (is the DSN quoted?)"
                         : error.what()) +
               "\nRun with --help for more information.\n";
    });

    CLI::App* init_db_command = app.add_subcommand("init-db", init_db_description);
    init_db_command->footer(init_db_footer);
    std::string schema;
    std::string dsn;
    bool logged = false;
    bool no_expiry_index = false;
    bool tags = false;
    bool notify = false;
    bool no_notify = false;
    CLI::Option* schema_option =
        init_db_command->add_option("--schema", schema, "Where the table is made; must exist");
    init_db_command->add_flag("--logged", logged,
                              "Make a table that survives a crash of the server");
    init_db_command->add_flag("--no-expiry-index", no_expiry_index,
                              "Leave the index out: faster to overwrite, slower to clean");
    init_db_command->add_flag("--tags", tags, "Make the table of tags as well");
    CLI::Option* notify_option = init_db_command->add_flag(
        "--notify", notify, "Make the triggers that tell of changed entries");
    init_db_command->add_flag("--no-notify", no_notify, "Remove these triggers")
        ->excludes(notify_option);
    CLI::Option* dsn_option =
        init_db_command->add_option("DSN", dsn, "The database; without it, the SQL is printed");
    schema_option->option_text("SCHEMA");
    dsn_option->option_text(" ");

    CLI::App* clear_command = app.add_subcommand("clear", clear_description);
    clear_command->footer(clear_footer);
    CLI::Option* clear_schema_option =
        clear_command->add_option("--schema", schema, "Where the table is");
    clear_schema_option->option_text("SCHEMA");
    clear_command->add_option("DSN", dsn, "The database")->required()->option_text(" ");

    try {
        app.parse(arguments(argc, argv));
    } catch (const CLI::ParseError& error) {
        // Help and the version are "errors" of code 0; every other one is a wrong command line.
        return app.exit(error) == 0 ? psycache::cli::exit_good : psycache::cli::exit_usage;
    }

    if (clear_command->parsed()) {
        return psycache::cli::clear({dsn, clear_schema_option->count() > 0
                                              ? std::optional<std::string>(schema)
                                              : std::nullopt});
    }
    psycache::TableOptions options;
    if (schema_option->count() > 0) {
        options.schema = schema;
    }
    options.unlogged = !logged;
    options.expiry_index = !no_expiry_index;
    options.tags = tags;
    options.notify = notify;
    return psycache::cli::init_db(
        dsn_option->count() > 0 ? std::optional<std::string>(dsn) : std::nullopt, options,
        no_notify);
}
