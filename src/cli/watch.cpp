#include "cli/watch.hpp"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <ctime>
#include <iostream>
#include <map>
#include <stdexcept>
#include <utility>

#include "cli/looks.hpp"
#include "cli/outcome.hpp"
#include "cli/session.hpp"

namespace psycache::cli {

namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

/// So often a connection that is silent is asked whether it is there.
constexpr std::chrono::seconds probe_interval{5};

/// What one statement has changed, of what is watched.
struct Change {
    bool all = false;
    std::size_t count = 0;
    std::vector<std::string> keys;
};

std::string now_text() {
    const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}

/// @param payload hashes, separated by a space, or "*". @param names keys by their hashes.
Change read_payload(const std::string& payload,
                    const std::multimap<std::string, std::string>& names) {
    Change change;
    change.all = payload == "*";
    for (std::size_t start = 0; !change.all && start < payload.size();) {
        const std::size_t end = std::min(payload.find(' ', start), payload.size());
        const auto [first, last] = names.equal_range(payload.substr(start, end - start));
        for (auto name = first; name != last; ++name) {
            change.keys.push_back(name->second);
        }
        ++change.count;
        start = end + 1;
    }
    return change;
}

std::string change_text(const Change& change, bool by_name) {
    std::string text = now_text() + " changed:";
    if (change.all) {
        return text + " many entries, or all\n";
    }
    if (!by_name) {
        return text + " " + std::to_string(change.count) +
               (change.count == 1 ? " entry\n" : " entries\n");
    }
    for (const std::string& key : change.keys) {
        text += " " + key;
    }
    return text + "\n";
}

std::string change_json(const Change& change, bool by_name) {
    json::object object;
    object["at"] = now_text();
    object["all"] = change.all;
    if (by_name) {
        object["keys"] = json::array(change.keys.begin(), change.keys.end());
    } else {
        object["count"] = change.count;
    }
    return json::serialize(object) + "\n";
}

/// Begins to listen to the table's triggers.
void listen(Session& session, const Place& place) {
    std::vector<Unseen> unseen;
    const TableFacts table = look_for_table(session, place, unseen);
    const auto triggers = table.triggers.value_or(std::vector<Trigger>());
    if (std::count_if(triggers.begin(), triggers.end(), [](const Trigger& trigger) {
            return trigger.enabled == 'A' || trigger.enabled == 'O';
        }) < 3) {
        throw std::runtime_error(
            "the triggers that tell of changes are missing or off; run psycache init-db --notify");
    }
    session.listen("psycache_" + table.oid);
    if (to_integer(session.query("SELECT pg_backend_pid()").at(0)[0]) != session.told_process()) {
        std::cerr << "psycache: a pooler is between; in transaction mode nothing is heard\n";
    }
}

}  // namespace

int watch(const Place& place, const std::vector<std::string>& keys,
          std::optional<Duration> duration, bool as_json) {
    return run("watch", ServerWords::of_access, [&] {
        Session session(place, "psycache watch");
        std::multimap<std::string, std::string> names;
        for (const std::string& key : keys) {
            names.emplace(
                session.query("SELECT to_hex(hashtextextended(" + session.literal(key) + ", 0))")
                    .at(0)[0]
                    .value_or(""),
                key);
        }
        listen(session, place);
        const auto start = Clock::now();
        const bool ends = duration && *duration != no_expiry;
        int printed = exit_good;
        while (printed == exit_good && !(ends && Clock::now() - start >= *duration)) {
            const auto left = ends ? *duration - (Clock::now() - start) : probe_interval;
            const auto payload = session.next_notification(
                std::min(std::chrono::ceil<std::chrono::milliseconds>(left),
                         std::chrono::milliseconds(probe_interval)));
            if (!payload) {
                session.query("SELECT 1");
                continue;
            }
            const Change change = read_payload(*payload, names);
            if (names.empty() || change.all || !change.keys.empty()) {
                printed = print("watch", as_json ? change_json(change, !names.empty())
                                                 : change_text(change, !names.empty()));
            }
        }
        return printed;
    });
}

}  // namespace psycache::cli
