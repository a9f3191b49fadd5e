#pragma once

/// @file
/// The test's own way to the server: plain libpq, none of the library's code.

#include <libpq-fe.h>

#include <boost/json/object.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace psycache::test {

/// Parameters of a connection, as libpq names them.
using Settings = std::map<std::string, std::string>;

/// The server of the tests, from PSYCACHE_TEST_DSN.
std::string dsn();

/// @returns @p base with some settings replaced; a setting that becomes "" is left out.
std::string dsn_with(const Settings& changes, const std::string& base = dsn());

/// The server's port on 127.0.0.1; warns and answers nothing when the tests have a foreign server.
std::optional<std::string> tcp_port();

/// The DSN of the server over TCP with some settings replaced; nothing as tcp_port.
std::optional<std::string> tcp_dsn(const Settings& changes = {});

/// @returns a text that no other test uses, fit for an application_name or a role.
std::string unique_name(std::string_view prefix = "t");

std::string quote_identifier(std::string_view name);
std::string quote_literal(std::string_view text);

/// JSON text as an object; it is the test's fault if it is none.
boost::json::object object(std::string_view json_text);

/// {"n": number}
boost::json::object numbered(std::int64_t number);

/// A statement of the test failed.
class SqlError : public std::runtime_error {
  public:
    SqlError(const std::string& what, std::string sqlstate)
        : std::runtime_error(what), sqlstate_(std::move(sqlstate)) {}
    const std::string& sqlstate() const { return sqlstate_; }

  private:
    std::string sqlstate_;
};

/// Rows of text; NULL is "<null>".
using Rows = std::vector<std::vector<std::string>>;

/// A plain connection.
class Psql {
  public:
    explicit Psql(const std::string& connection = dsn());

    PGconn* native() const { return connection_.get(); }

    /// Runs one statement or several. @throws SqlError
    Rows exec(const std::string& sql);
    /// @returns the first column of the first row. @throws SqlError also when there is no row.
    std::string value(const std::string& sql);
    std::int64_t number(const std::string& sql);
    double real(const std::string& sql);
    bool truth(const std::string& sql);

    /// How many connections carry this application_name, or one that begins with it.
    std::int64_t connections(const std::string& application_name);
    /// Ends all of them and waits until they are gone. @returns how many there were.
    std::int64_t terminate(const std::string& application_name);

  private:
    struct Close {
        void operator()(PGconn* connection) const { PQfinish(connection); }
    };
    std::unique_ptr<PGconn, Close> connection_;
};

/// The names of the threads of this process.
std::vector<std::string> thread_names();

/// How many file descriptors this process has open.
std::size_t open_descriptors();

/// A copy of this program that does one thing: see main.cpp for what it can do.
///
/// It begins when `go` is called, so that several begin at once.
class Child {
  public:
    explicit Child(const std::vector<std::string>& arguments);
    Child(Child&& other) noexcept;
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    Child& operator=(Child&&) = delete;
    ~Child();

    void go();
    /// @returns its exit status.
    int wait();

  private:
    int pid_ = -1;
    int go_ = -1;
};

/// What main() runs instead of the tests in a Child: waits for `go`, does it, exits with 0 if it
/// went well.
int child_main(const std::vector<std::string>& arguments);

}  // namespace psycache::test
