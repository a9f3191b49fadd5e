#include "soak/sabotage.hpp"

#include <fcntl.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/json/serialize.hpp>
#include <iterator>
#include <memory>
#include <utility>

#include "soak/values.hpp"

namespace psycache::soak {

namespace {

using namespace std::chrono_literals;

const std::string table = Site::table;

}  // namespace

const Sabotage::Act Sabotage::acts[] = {
    {"swap", &Sabotage::swap},
    {"replay", &Sabotage::replay},
    {"lose", &Sabotage::lose},
    {"invent", &Sabotage::invent},
    {"count", &Sabotage::count},
    {"unmerge", &Sabotage::unmerge},
    {"untag", &Sabotage::untag},
    {"ignore-touches", &Sabotage::ignore_touches},
    {"drop", &Sabotage::drop},
    {"unplug", &Sabotage::unplug},
    {"block", &Sabotage::block},
    {"leak-memory", &Sabotage::leak_memory},
    {"leak-descriptor", &Sabotage::leak_descriptor},
    {"leak-connection", &Sabotage::leak_connection},
    {"leak-span", &Sabotage::leak_span},
    {"leak-thread", &Sabotage::leak_thread},
};

bool Sabotage::known(std::string_view name) {
    return std::any_of(std::begin(acts), std::end(acts),
                       [name](const Act& act) { return act.name == name; });
}

std::string Sabotage::names() {
    std::string all;
    for (const Act& act : acts) {
        all += (all.empty() ? "" : ", ") + std::string(act.name);
    }
    return all;
}

Sabotage::Sabotage(std::string_view name, Site& site, Stage& stage, const Keys& keys)
    : site_(site), stage_(stage), keys_(keys), sql_(site.admin()) {
    const auto act = std::find_if(std::begin(acts), std::end(acts),
                                  [name](const Act& one) { return one.name == name; });
    thread_ = std::thread([this, does = act->does] {
        while (!stopping_) {
            try {
                (this->*does)();
            } catch (const test::SqlError&) {
                // A deadlock with a caller, perhaps; there is a next time.
            }
            std::this_thread::sleep_for(50ms);
        }
    });
}

Sabotage::~Sabotage() {
    stopping_ = true;
    thread_.join();
}

/// Some of the keys that callers read, as a list for SQL.
std::string Sabotage::some_keys(std::size_t count) {
    std::string list;
    for (std::size_t i = 0; i < count; ++i) {
        const auto key = keys_.current(random_() % keys_.size());
        list += (i == 0 ? "" : ", ") + test::quote_literal(key->key());
    }
    return list;
}

void Sabotage::swap() {
    sql_.exec("UPDATE " + table +
              " AS t SET value = other.value FROM (SELECT key, lag(value, 1, value) OVER (ORDER BY "
              "key) AS value FROM " +
              table + " WHERE key IN (" + some_keys(20) + ")) AS other WHERE t.key = other.key");
}

void Sabotage::replay() {
    sql_.exec(
        "CREATE TEMPORARY TABLE IF NOT EXISTS old (key text, value jsonb); TRUNCATE old; "
        "INSERT INTO old SELECT key, value FROM " +
        table);
    std::this_thread::sleep_for(500ms);
    sql_.exec("UPDATE " + table + " AS now SET value = old.value FROM old WHERE now.key = old.key");
}

void Sabotage::lose() {
    sql_.exec("DELETE FROM " + table + " WHERE key IN (" + some_keys(20) + ")");
}

void Sabotage::invent() {
    const auto key = keys_.current(random_() % keys_.size());
    const auto text = json::serialize(make_value(key->key(), 1000000, 100));
    sql_.exec("UPDATE " + table + " SET value = " + test::quote_literal(text) +
              "::jsonb WHERE key = " + test::quote_literal(key->key()));
}

void Sabotage::count() {
    sql_.exec("UPDATE " + table +
              " SET value = to_jsonb(value::bigint * 2) WHERE key LIKE 'number %'"
              " AND random() < 0.1");
}

void Sabotage::unmerge() {
    sql_.exec("UPDATE " + table + " SET value = value - 'merged' WHERE value ? 'merged'");
}

void Sabotage::untag() {
    sql_.exec("DELETE FROM " + std::string(Site::tags) + " WHERE random() < 0.5");
}

/// Lets touches change nothing, and say that they have.
void Sabotage::ignore_touches() {
    if (!done_) {
        sql_.exec(
            "CREATE OR REPLACE FUNCTION pg_temp.keep() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN NEW.expires_at := OLD.expires_at; RETURN NEW; END'; "
            "CREATE TRIGGER keep BEFORE UPDATE ON " +
            table + " FOR EACH ROW WHEN (OLD.value = NEW.value) EXECUTE FUNCTION pg_temp.keep()");
        done_ = true;
    }
}

void Sabotage::drop() {
    sql_.exec("DROP TABLE IF EXISTS " + table);
}

void Sabotage::unplug() {
    stage_.gate().switch_off();
}

void Sabotage::block() {
    if (!std::exchange(done_, true)) {
        asio::post(stage_.async_actors().back()->threads.context(),
                   [] { std::this_thread::sleep_for(12s * test::slowness); });
    }
}

void Sabotage::leak_memory() {
    static std::vector<std::string> leaked;
    leaked.emplace_back(std::size_t{2} << 20U, 'x');
}

void Sabotage::leak_descriptor() {
    [[maybe_unused]] static const int leaked = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void Sabotage::leak_connection() {
    static const auto* const leaked = new test::Psql(site_.dsn("leaked"));
    (void)leaked;
}

void Sabotage::leak_span() {
    // Not even destroyed at the end: what it belongs to is gone by then.
    static const auto* const leaked =
        new std::unique_ptr<CacheFlushSpan>(stage_.spans()->start_cache_flush_span());
    (void)leaked;
}

void Sabotage::leak_thread() {
    if (!std::exchange(done_, true)) {
        std::thread([] { std::this_thread::sleep_for(1h); }).detach();
    }
}

}  // namespace psycache::soak
