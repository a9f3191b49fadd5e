#include "server.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include <psycache/postgres_cache.hpp>
#include <psycache/table.hpp>

#include "private_server.hpp"

extern char** environ;

namespace psycache::test {

namespace {

struct FreeOptions {
    void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};
struct Clear {
    void operator()(PGresult* result) const { PQclear(result); }
};

/// Stores and looks up in turn, as other processes do on the same keys of this and other schemas.
///
/// @returns whether every value was one of this schema and of the key asked for.
bool use_cache(const std::string& dsn, const std::string& schema, int rounds) {
    PoolOptions pool;
    pool.dsn = dsn;
    CacheOptions options;
    options.schema = schema;
    PostgresCache cache(pool, options);
    for (int i = 0; i < rounds; ++i) {
        const std::string key = "key" + std::to_string(i % 5);
        const boost::json::object value{{"schema", schema}, {"key", key}};
        cache.put_raw(key, value, std::chrono::hours(1));
        const std::vector<std::string> keys{"key0", "absent", key};
        const auto one = cache.get_raw(key);
        const auto many = cache.get_raw_many(keys);
        const bool absent = cache.remove("absent");
        if (one != value || many[1] || many[2] != value || absent) {
            std::cerr << "round " << i << ": an answer to another question\n";
            return false;
        }
    }
    return true;
}

std::string quote_setting(std::string_view value) {
    std::string quoted = "'";
    for (const char c : value) {
        if (c == '\'' || c == '\\') {
            quoted += '\\';
        }
        quoted += c;
    }
    return quoted + "'";
}

}  // namespace

std::string dsn() {
    const char* value = std::getenv("PSYCACHE_TEST_DSN");
    if (value == nullptr) {
        FAIL("PSYCACHE_TEST_DSN is not set: run test/run, which starts a server for the tests");
    }
    return value;
}

std::string dsn_with(const Settings& changes, const std::string& base) {
    char* error = nullptr;
    const std::unique_ptr<PQconninfoOption, FreeOptions> options(
        PQconninfoParse(base.c_str(), &error));
    if (!options) {
        const std::string text = error == nullptr ? "out of memory" : error;
        PQfreemem(error);
        throw std::runtime_error("PSYCACHE_TEST_DSN: " + text);
    }
    Settings settings;
    for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
        if (option->val != nullptr) {
            settings[option->keyword] = option->val;
        }
    }
    for (const auto& [name, value] : changes) {
        settings[name] = value;
    }
    std::string text;
    for (const auto& [name, value] : settings) {
        if (!value.empty()) {
            text += name + "=" + quote_setting(value) + " ";
        }
    }
    return text;
}

std::optional<std::string> tcp_port() {
    const char* port = std::getenv("PSYCACHE_TEST_TCP_PORT");
    if (port == nullptr || *port == '\0') {
        WARN("PSYCACHE_TEST_TCP_PORT is not set: what needs TCP to the test server is left out");
        return std::nullopt;
    }
    return port;
}

std::optional<std::string> tcp_dsn(const Settings& changes) {
    const auto port = tcp_port();
    if (!port) {
        return std::nullopt;
    }
    const Settings tcp{{"host", "127.0.0.1"}, {"hostaddr", ""}, {"port", *port}};
    return dsn_with(changes, dsn_with(tcp));
}

std::string unique_name(std::string_view prefix) {
    static std::atomic<unsigned> counter{0};
    static const auto started = std::chrono::system_clock::now().time_since_epoch().count();
    char text[64];
    std::snprintf(text, sizeof text, "_%x_%x_%x", static_cast<unsigned>(::getpid()),
                  static_cast<unsigned>(started / 1000), ++counter);
    return std::string(prefix) + text;
}

std::string quote_identifier(std::string_view name) {
    std::string quoted = "\"";
    for (const char c : name) {
        quoted += c;
        if (c == '"') {
            quoted += c;
        }
    }
    return quoted + "\"";
}

std::string quote_literal(std::string_view text) {
    std::string quoted = " E'";
    for (const char c : text) {
        if (c == '\'' || c == '\\') {
            quoted += c;
        }
        quoted += c;
    }
    return quoted + "'";
}

boost::json::object object(std::string_view json_text) {
    const boost::json::string_view text(json_text.data(), json_text.size());
    return boost::json::parse(text).as_object();
}

boost::json::object numbered(std::int64_t number) {
    boost::json::object value;
    value["n"] = number;
    return value;
}

Psql::Psql(const std::string& connection) : connection_(PQconnectdb(connection.c_str())) {
    // Others may have filled the queue of the server's socket, which the kernel then refuses to
    // wait for.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (PQstatus(native()) != CONNECTION_OK && std::chrono::steady_clock::now() < end &&
           std::strstr(PQerrorMessage(native()), std::strerror(EAGAIN)) != nullptr) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        connection_.reset(PQconnectdb(connection.c_str()));
    }
    if (PQstatus(native()) != CONNECTION_OK) {
        throw SqlError(std::string("the test cannot connect: ") + PQerrorMessage(native()), "");
    }
    PQsetNoticeProcessor(
        native(), [](void*, const char*) {}, nullptr);
    PQsetClientEncoding(native(), "UTF8");
}

Rows Psql::exec(const std::string& sql) {
    const std::unique_ptr<PGresult, Clear> result(PQexec(native(), sql.c_str()));
    const auto status = PQresultStatus(result.get());
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK && status != PGRES_EMPTY_QUERY) {
        const char* sqlstate = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE);
        throw SqlError(sql + ": " + PQerrorMessage(native()), sqlstate == nullptr ? "" : sqlstate);
    }
    Rows rows;
    for (int row = 0; row < PQntuples(result.get()); ++row) {
        auto& cells = rows.emplace_back();
        for (int column = 0; column < PQnfields(result.get()); ++column) {
            if (PQgetisnull(result.get(), row, column) != 0) {
                cells.emplace_back("<null>");
            } else {
                cells.emplace_back(
                    PQgetvalue(result.get(), row, column),
                    static_cast<std::size_t>(PQgetlength(result.get(), row, column)));
            }
        }
    }
    return rows;
}

std::string Psql::value(const std::string& sql) {
    auto rows = exec(sql);
    if (rows.empty() || rows.front().empty()) {
        throw SqlError(sql + ": no row", "");
    }
    return rows.front().front();
}

std::int64_t Psql::number(const std::string& sql) {
    return std::stoll(value(sql));
}

double Psql::real(const std::string& sql) {
    return std::stod(value(sql));
}

bool Psql::truth(const std::string& sql) {
    return value(sql) == "t";
}

std::int64_t Psql::connections(const std::string& application_name) {
    return number(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND "
        "starts_with(application_name, " +
        quote_literal(application_name) + ")");
}

std::int64_t Psql::terminate(const std::string& application_name) {
    const auto terminate_all = [&] {
        return number(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE starts_with("
            "application_name, " +
            quote_literal(application_name) + ")");
    };
    const auto ended = terminate_all();
    // One that was still starting may show up only now.
    for (int i = 0; terminate_all() != 0; ++i) {
        if (i == 5000) {
            throw std::runtime_error("terminated backends do not end");
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return ended;
}

std::vector<std::string> thread_names() {
    std::vector<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator i("/proc/self/task", error), end; !error && i != end;
         i.increment(error)) {
        std::ifstream file(i->path() / "comm");
        std::string name;
        if (std::getline(file, name)) {
            names.push_back(name);
        }
    }
    return names;
}

std::size_t open_descriptors() {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        (void)entry;
        ++count;
    }
    return count;
}

Child::Child(const std::vector<std::string>& arguments) {
    int pipe_ends[2];
    if (::pipe2(pipe_ends, O_CLOEXEC) != 0) {
        throw std::runtime_error("pipe2 failed");
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_ends[0], 0);
    // Asio's sockets would stay open in it: a port that is listened on could not be let go.
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    std::vector<std::string> texts{"/proc/self/exe", "--psycache-child"};
    texts.insert(texts.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (auto& text : texts) {
        argv.push_back(text.data());
    }
    argv.push_back(nullptr);
    const int result =
        ::posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(pipe_ends[0]);
    go_ = pipe_ends[1];
    if (result != 0) {
        pid_ = -1;
        ::close(go_);
        throw std::runtime_error("posix_spawn failed");
    }
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), go_(std::exchange(other.go_, -1)) {}

Child::~Child() {
    go();
    wait();
}

void Child::go() {
    if (go_ >= 0) {
        ::close(std::exchange(go_, -1));
    }
}

int Child::wait() {
    if (pid_ < 0) {
        return -1;
    }
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int child_main(const std::vector<std::string>& arguments) {
    // A session of its own: what interrupts the tests from the keyboard leaves it to clear up.
    ::setsid();
    char byte = 0;
    while (::read(STDIN_FILENO, &byte, 1) > 0) {
    }
    try {
        if (arguments.size() == 3 && arguments[0] == "init-db") {
            TableOptions options;
            options.schema = arguments[2];
            init_db(arguments[1], options);
            return 0;
        }
        if (arguments.size() == 4 && arguments[0] == "use") {
            return use_cache(arguments[1], arguments[2], std::stoi(arguments[3])) ? 0 : 1;
        }
        if (arguments.size() == 2 && arguments[0] == "remove-server") {
            PrivateServer::remove(arguments[1]);
            return 0;
        }
        std::cerr << "a child of the tests was asked for something unknown\n";
    } catch (const std::exception& error) {
        std::cerr << "a child of the tests failed: " << error.what() << '\n';
    }
    return 1;
}

}  // namespace psycache::test
