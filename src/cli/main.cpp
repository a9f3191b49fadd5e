// The program `psycache`: what an operator does to the cache's table from a shell. This file reads
// the command line; each command has a file of its own.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/duration.hpp>
#include <psycache/table.hpp>
#include <psycache/version.hpp>

#include "cli/doctor.hpp"
#include "cli/duration_text.hpp"
#include "cli/entries.hpp"
#include "cli/init_db.hpp"
#include "cli/outcome.hpp"
#include "cli/stats.hpp"
#include "cli/watch.hpp"

namespace {

namespace cli = psycache::cli;

constexpr const char* description =
    "A cache in PostgreSQL: looks after the table that psycache keeps its entries in, and its "
    "entries.";

constexpr const char* program_footer =
    R"(Every command takes --schema and, as its last argument, the DSN. "psycache COMMAND --help"
tells of a command. The exit code is 0 if all went well; 1 if the command failed, if something is
wrong (doctor) or not there (get); 2 for a command line that is wrong.)";

constexpr const char* dsn_footer =
    R"(DSN is what libpq accepts: "postgresql://host/database", "host=... dbname=...",
or "" for the environment (PGHOST, PGDATABASE, PGSERVICE ...). Other users of this
machine can read a password on a command line: keep it in ~/.pgpass, in the file
that PGPASSFILE names, or in a service file (DSN "service=NAME").)";

constexpr const char* init_db_description =
    "Make the cache's table and its index, unless they are there already.";

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

)";

constexpr const char* doctor_description =
    "Look for what is wrong with the table, the role, the server and the way to it.";

constexpr const char* doctor_footer =
    R"(  psycache doctor --schema app postgresql:///mydb
Each finding is "ok", a "note", a "warning" or a "problem", and has a remedy and its SQL where
there is one. The exit code is 1 where there is a warning or a problem. Run it as the
application does: same role, same way to the server, pooler included. It changes nothing,
reads no more of the table than the entry that expired first, and waits a second at most for
each lock.

)";

constexpr const char* stats_description =
    "Print how large the table is, by the server's statistics.";

constexpr const char* stats_footer =
    R"(  psycache stats postgresql:///mydb
Rows are not counted: what is "about" is the server's own estimate. The share of expired
entries is that of about 100 pages of the table, drawn at random.

)";

constexpr const char* get_description = "Print the JSON text of a key's value.";

constexpr const char* get_footer =
    R"(  psycache get user:7 postgresql:///mydb
Exits with 1 where the key has no entry, or one that has expired.
A key that begins with "-" goes behind "--": psycache get -- -7 postgresql:///mydb

)";

constexpr const char* put_description =
    "Store a JSON value under a key, in place of what is there.";

constexpr const char* put_footer =
    R"(  psycache put user:7 '{"name": "Ada"}' --ttl 1h postgresql:///mydb
  psycache put user:7 - --ttl forever --tag users postgresql:///mydb <user.json
JSON is any JSON value; "-" reads it from standard input. A ttl is made of whole numbers and
the units w, d, h, m, s, ms and us, the largest first: 90s, 1h30m, 7d, 250ms; or "forever".
Tags want the table that "psycache init-db --tags" makes; --tag may be given several times.
What begins with "-" goes behind "--": psycache put --ttl 1h -- offset -5 postgresql:///mydb

)";

constexpr const char* remove_description =
    "Delete the entries of keys, and print how many there were.";

constexpr const char* remove_footer =
    R"(  psycache remove user:7 user:8 postgresql:///mydb
A key without an entry is no error. One that has expired and not been cleaned up counts.
A key that begins with "-" goes behind "--".

)";

constexpr const char* flush_description = "Delete all entries by DELETE, and print how many.";

constexpr const char* flush_footer =
    R"(The role needs DELETE and SELECT. "psycache clear" is faster, and needs TRUNCATE.

)";

constexpr const char* clear_description = "Delete all entries and all tags at once, by TRUNCATE.";

constexpr const char* clear_footer =
    R"(The role needs the privilege TRUNCATE on the tables. It waits for transactions that
use them for a minute at most, and holds up others for 0.1 seconds at a time.

)";

constexpr const char* cleanup_description =
    "Delete the entries that have expired, and print how many.";

constexpr const char* cleanup_footer =
    R"(It deletes in batches and blocks no writer: let cron run it where no service does.
  psycache cleanup --max-entries 1000000 postgresql:///mydb
With --max-entries or --max-bytes it also deletes live entries, those that expire soonest,
until there are no more than that by the server's statistics.

)";

constexpr const char* watch_description =
    "Print changes of entries as they happen, by whichever program.";

constexpr const char* watch_footer =
    R"(  psycache watch --key user:7 --key user:8 postgresql:///mydb
Wants the triggers that "psycache init-db --notify" makes. They tell of entries that are
overwritten or removed, not of new ones. Without --key it prints how many entries each
statement has changed, as the triggers tell hashes of keys only; a change of more than 400
entries, or by TRUNCATE, is one of all. It ends when it is killed (Ctrl-C), after --for, and
with 1 when the connection breaks. Connect to the server itself, or through a pooler that
keeps sessions.

)";

std::string version_text() {
    return "psycache " + std::to_string(PSYCACHE_VERSION_MAJOR) + "." +
           std::to_string(PSYCACHE_VERSION_MINOR) + "." + std::to_string(PSYCACHE_VERSION_PATCH);
}

/// What the command line says; of one command only, so that all commands can share it.
struct Arguments {
    cli::Place place;
    bool has_dsn = false;
    bool as_json = false;

    psycache::TableOptions table;
    bool logged = false;
    bool no_expiry_index = false;
    bool no_notify = false;

    std::string key;
    std::vector<std::string> keys;
    std::string value;
    psycache::Duration ttl{};
    std::optional<psycache::Duration> duration;
    std::vector<std::string> tags;
    cli::Bounds bounds;
};

/// CLI11 takes an argument in brackets for a list where it may be given several times. With this in
/// front a key in brackets is one key. Keys that begin with it get it, too, so that one is taken
/// away.
constexpr char no_list = '\x01';

/// The command line, last argument first, as CLI11 wants it.
///
/// CLI11 takes the argument that follows for the value of a bare "--schema=", so that an unset
/// variable would turn the DSN into a schema. Two arguments say "empty" unmistakably.
std::vector<std::string> split_arguments(int argc, char** argv) {
    std::vector<std::string> result;
    bool options = true;
    for (int i = 1; i < argc; ++i) {
        std::string argument = argv[i];
        options = options && argument != "--";
        if (options && argument.starts_with("--") && argument.find('=') == argument.size() - 1) {
            argument.pop_back();
            result.insert(result.end(), {argument, ""});
        } else if ((argument.starts_with('[') || argument.starts_with(no_list)) &&
                   !result.empty() && result[0] == "remove") {
            result.push_back(no_list + argument);
        } else {
            result.push_back(argument);
        }
    }
    std::reverse(result.begin(), result.end());
    return result;
}

/// Puts the commands and their options together.
class CommandLine {
  public:
    CommandLine() : app_(description, "psycache") {
        app_.set_version_flag("--version", version_text(), "Print the version and exit");
        app_.set_help_flag("-h,--help", "Print this help and exit");
        app_.require_subcommand(1);
        app_.footer(program_footer);
        app_.failure_message([](const CLI::App*, const CLI::Error& error) {
            // Arguments too many are not repeated: a DSN that was not quoted can hold a password.
            const bool too_many = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
            return std::string("psycache: ") +
                   (too_many ? "there are arguments that were not expected (is the DSN quoted?)"
                             : error.what()) +
                   "\nRun with --help for more information.\n";
        });
        add_init_db();
        add_doctor();
        add_stats();
        add_get();
        add_put();
        add_remove();
        add_flush();
        add_clear();
        add_cleanup();
        add_watch();
    }

    /// @returns the exit code of the program.
    int run(int argc, char** argv) {
        try {
            app_.parse(split_arguments(argc, argv));
        } catch (const CLI::ParseError& error) {
            // Help and the version are "errors" of code 0; every other one is a wrong command line.
            return app_.exit(error) == 0 ? cli::exit_good : cli::exit_usage;
        }
        const auto parsed = std::find_if(bodies_.begin(), bodies_.end(),
                                         [](const auto& body) { return body.first->parsed(); });
        return parsed->second();
    }

  private:
    /// Adds a command with the option --schema. Its DSN follows when its own arguments are added.
    CLI::App& add(const std::string& name, const std::string& says, const std::string& footer,
                  std::function<int()> body) {
        CLI::App& command = *app_.add_subcommand(name, says);
        command.footer(footer + dsn_footer);
        command
            .add_option_function<std::string>(
                "--schema", [this](const std::string& schema) { given_.place.schema = schema; },
                name == "init-db" ? "Where the table is made; must exist" : "Where the table is")
            ->option_text("SCHEMA");
        bodies_.emplace_back(&command, std::move(body));
        return command;
    }

    void add_dsn(CLI::App& command) {
        command.add_option("DSN", given_.place.dsn, "The database")->required()->option_text(" ");
    }
    void add_json(CLI::App& command) {
        command.add_flag("--json", given_.as_json, "Print JSON, for programs");
    }
    void add_key(CLI::App& command) {
        command.add_option("KEY", given_.key, "The key; \"\" is one, too")
            ->required()
            ->option_text(" ");
    }

    static CLI::Option* add_duration(CLI::App& command, const std::string& name,
                                     const std::string& says,
                                     std::function<void(psycache::Duration)> take) {
        const auto read = [name, take = std::move(take)](const std::string& text) {
            const auto duration = cli::parse_duration(text);
            if (!duration) {
                throw CLI::ValidationError(name, "wants 90s, 1h30m, 7d or the like, or forever");
            }
            take(*duration);
        };
        return command.add_option_function<std::string>(name, read, says)->option_text("DURATION");
    }

    static void add_number(CLI::App& command, const std::string& name, const std::string& says,
                           std::optional<std::uint64_t>& number) {
        // CLI11 itself takes -1 for a very large number.
        command
            .add_option_function<std::string>(
                name,
                [name, &number](const std::string& text) {
                    std::uint64_t value = 0;
                    const char* const end = text.data() + text.size();
                    const auto read = std::from_chars(text.data(), end, value);
                    if (read.ec != std::errc() || read.ptr != end || value == 0) {
                        throw CLI::ValidationError(name, "wants a whole number from 1 on");
                    }
                    number = value;
                },
                says)
            ->option_text("NUMBER");
    }

    void add_init_db() {
        CLI::App& command = add("init-db", init_db_description, init_db_footer, [this] {
            given_.table.schema = given_.place.schema;
            given_.table.unlogged = !given_.logged;
            given_.table.expiry_index = !given_.no_expiry_index;
            return cli::init_db(
                given_.has_dsn ? std::optional<std::string>(given_.place.dsn) : std::nullopt,
                given_.table, given_.no_notify);
        });
        command.add_flag("--logged", given_.logged,
                         "Make a table that survives a crash of the server");
        command.add_flag("--no-expiry-index", given_.no_expiry_index,
                         "Leave the index out: faster to overwrite, slower to clean");
        command.add_flag("--tags", given_.table.tags, "Make the table of tags as well");
        CLI::Option* notify = command.add_flag("--notify", given_.table.notify,
                                               "Make the triggers that tell of changed entries");
        command.add_flag("--no-notify", given_.no_notify, "Remove these triggers")
            ->excludes(notify);
        command
            .add_option_function<std::string>(
                "DSN",
                [this](const std::string& dsn) {
                    given_.place.dsn = dsn;
                    given_.has_dsn = true;
                },
                "The database; without it, the SQL is printed")
            ->option_text(" ");
    }

    void add_doctor() {
        CLI::App& command = add("doctor", doctor_description, doctor_footer,
                                [this] { return cli::doctor(given_.place, given_.as_json); });
        add_json(command);
        add_dsn(command);
    }

    void add_stats() {
        CLI::App& command = add("stats", stats_description, stats_footer,
                                [this] { return cli::stats(given_.place, given_.as_json); });
        add_json(command);
        add_dsn(command);
    }

    void add_get() {
        CLI::App& command = add("get", get_description, get_footer,
                                [this] { return cli::get(given_.place, given_.key); });
        add_key(command);
        add_dsn(command);
    }

    void add_put() {
        CLI::App& command = add("put", put_description, put_footer, [this] {
            return cli::put(given_.place, given_.key, given_.value, given_.ttl, given_.tags);
        });
        add_duration(command, "--ttl", "How long the entry lives",
                     [this](psycache::Duration ttl) { given_.ttl = ttl; })
            ->required()
            ->option_text("DURATION REQUIRED");
        command.add_option("--tag", given_.tags, "What remove_tag finds the entry by")
            ->allow_extra_args(false)
            ->option_text("TAG ...");
        add_key(command);
        command.add_option("JSON", given_.value, "The value; - for standard input")
            ->required()
            ->option_text(" ");
        add_dsn(command);
    }

    void add_remove() {
        CLI::App& command = add("remove", remove_description, remove_footer, [this] {
            std::vector<std::string> keys = given_.keys;
            for (std::string& key : keys) {
                key.erase(0, key.starts_with(no_list) ? 1 : 0);
            }
            given_.place.dsn = std::move(keys.back());
            keys.pop_back();
            return cli::remove(given_.place, keys, given_.as_json);
        });
        add_json(command);
        // One list: CLI11 would leave no argument for a DSN behind a list of keys.
        command.add_option("KEYS-AND-DSN", given_.keys, "One key or more, and then the database")
            ->required()
            ->expected(2, CLI::detail::expected_max_vector_size)
            ->option_text("KEY... DSN");
    }

    void add_flush() {
        CLI::App& command = add("flush", flush_description, flush_footer,
                                [this] { return cli::flush(given_.place, given_.as_json); });
        add_json(command);
        add_dsn(command);
    }

    void add_clear() {
        add_dsn(add("clear", clear_description, clear_footer,
                    [this] { return cli::clear(given_.place); }));
    }

    void add_cleanup() {
        CLI::App& command = add("cleanup", cleanup_description, cleanup_footer, [this] {
            return cli::cleanup(given_.place, given_.bounds, given_.as_json);
        });
        add_number(command, "--max-entries", "How many entries are left at most",
                   given_.bounds.max_entries);
        add_number(command, "--max-bytes", "How many bytes of entries are left at most",
                   given_.bounds.max_bytes);
        add_json(command);
        add_dsn(command);
    }

    void add_watch() {
        CLI::App& command = add("watch", watch_description, watch_footer, [this] {
            return cli::watch(given_.place, given_.keys, given_.duration, given_.as_json);
        });
        command.add_option("--key", given_.keys, "A key that is told of, by name")
            ->allow_extra_args(false)
            ->option_text("KEY ...");
        add_duration(command, "--for", "When to end",
                     [this](psycache::Duration duration) { given_.duration = duration; });
        add_json(command);
        add_dsn(command);
    }

    CLI::App app_;
    Arguments given_;
    std::vector<std::pair<CLI::App*, std::function<int()>>> bodies_;
};

}  // namespace

int main(int argc, char** argv) {
    return CommandLine().run(argc, argv);
}
