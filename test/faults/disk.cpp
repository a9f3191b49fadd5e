// The disk of the server is full.

#include <pwd.h>
#include <sched.h>
#include <sys/mount.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <thread>

#include "faults/load.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A server that sees a small file system where others see an empty folder. It goes with the last
/// process that sees it.
class SmallDisk {
  public:
    static constexpr const char* place = "/mnt";

    /// Warns when there can be none; `server` is empty then.
    SmallDisk() {
        std::string why;
        const passwd* const user = ::getpwnam("postgres");  // that of a server that root starts
        const auto options =
            "size=12m,mode=700,uid=" + std::to_string(user == nullptr ? 0 : user->pw_uid);
        // The name space is that of one thread and of the processes that it starts.
        std::thread([&] {
            if (::unshare(CLONE_NEWNS) != 0 ||
                ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
                ::mount("none", place, "tmpfs", 0, options.c_str()) != 0) {
                why = std::strerror(errno);
                return;
            }
            try {
                server.emplace();
            } catch (const std::exception& error) {
                why = error.what();
            }
        }).join();
        if (!server) {
            WARN("A full disk is not tried, since a small one cannot be mounted: " << why);
        }
    }

    std::optional<PrivateServer> server;
};

}  // namespace

TEST_CASE(
    "While the server's disk is full puts fail, gets go on, and all work when there is room") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    SmallDisk disk;
    if (!disk.server) {
        return;
    }
    const auto& server = *disk.server;
    Psql sql(server.dsn());
    sql.exec("CREATE TABLESPACE small LOCATION " + quote_literal(SmallDisk::place));
    init_db(server.dsn());
    sql.exec(
        "ALTER TABLE psycache SET TABLESPACE small; ALTER INDEX psycache_pkey SET TABLESPACE "
        "small");
    sql.exec(
        "CREATE UNLOGGED TABLE filler (text text) TABLESPACE small;"
        "ALTER TABLE filler ALTER text SET STORAGE PLAIN");
    Trial trial(flavour, server.dsn());
    REQUIRE(trial.load().works());
    const auto connects = trial.load().pool_statistics().connects;

    const auto full = [&] {
        try {
            sql.exec("INSERT INTO filler SELECT repeat('x', 4000) FROM generate_series(1, 20)");
            return false;
        } catch (const SqlError& error) {
            return error.sqlstate() == "53100";
        }
    };
    REQUIRE(eventually(full));
    // Every put that replaces an entry leaves a row behind, and needs room at last.
    CHECK(trial.load().fails());
    CHECK(trial.load().gets_work());
    const auto no_room = sqlstate_code("53100");
    CHECK(no_room == Condition::transient);
    CHECK(trial.record().count(no_room) >= 1);
    sql.exec("DROP TABLE filler");  // to truncate it would take a new file
    CHECK(trial.load().works());

    // The connections are none the worse for it.
    CHECK(trial.load().pool_statistics().lost == 0);
    CHECK(trial.load().pool_statistics().connects - connects <= 3);
    trial.finish({no_room});
}
