// What must not compile, beside what must: each line that ends with "// error: TEXT" has to be
// refused there, with an error that holds TEXT, and no other line may be; each that ends with
// "// refused" has a type that does not convert, which the library says once. One call of the
// compiler judges all; check reads what it says.

#include <boost/describe.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <psycache/psycache.hpp>

namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;
using psycache::Entry;

// An object of an application that can be written as JSON is none itself.
struct Ada {
    operator json::object() const { return {{"name", "Ada"}}; }
};

template <class T>
void keep(const T& /*value*/) {}

[[maybe_unused]] void values_of_a_blocking_put(psycache::PostgresCache& cache, json::value& value) {
    cache.put_raw("k", 42, 1min);                       // error: deleted
    cache.put_raw("k", 0, 1min);                        // error: deleted
    cache.put_raw("k", std::size_t{42}, 1min, "span");  // error: deleted
    cache.put_raw("k", 3.14, 1min);                     // error: deleted
    cache.put_raw("k", true, 1min);                     // error: deleted
    cache.put_raw("k", 'c', 1min);                      // error: deleted
    cache.put_raw("k", nullptr, 1min);                  // error: deleted
    cache.put_raw("k", "text", 1min);                   // error: deleted
    cache.put_raw("k", std::string("text"), 1min);      // error: deleted
    cache.put_raw("k", json::array{1, 2}, 1min);        // error: deleted
    cache.put_raw("k", json::string("text"), 1min);     // error: deleted
    cache.put_raw("k", value, 1min);                    // error: deleted
    cache.put_raw("k", json::value(1), 1min);           // error: deleted
    cache.put_raw("k", json::storage_ptr(), 1min);      // error: deleted
    cache.put_raw("k", Ada(), 1min);                    // error: deleted
    cache.put_raw("k", {42}, 1min);                     // error: deleted
    cache.put_raw("k", {true}, 1min);                   // error: deleted
    cache.put_raw("k", {json::storage_ptr()}, 1min);    // error: deleted

    json::object object;
    const json::object constant;
    cache.put_raw("k", object, 1min);
    cache.put_raw("k", constant, 1min, "span");
    cache.put_raw("k", json::object(), 1min);
    cache.put_raw("k", std::move(object), 1min);
    cache.put_raw("k", value.get_object(), 1min);
    cache.put_raw("k", std::as_const(value).get_object(), 1min);
    cache.put_raw("k", json::value_to<json::object>(value), 1min);
    cache.put_raw("k", json::parse("{}").as_object(), 1min);
    cache.put_raw("k", static_cast<json::object>(Ada()), 1min);
    cache.put_raw("k", {}, 1min);
    cache.put_raw("k", {{"name", "Ada"}}, 1min);
    cache.put_raw("k", {{"name", "Ada"}, {"born", 1815}, {"likes", {"engines", true}}}, 1min,
                  "span");
    cache.put_raw("k", {std::pair<json::string_view, json::value_ref>("name", "Ada")}, 1min);
    cache.put_raw("k", {constant}, 1min);
}

[[maybe_unused]] void values_of_an_asynchronous_put(psycache::AsyncPostgresCache& cache,
                                                    json::value& value) {
    keep(cache.put_raw("k", 42, 1min));                   // error: deleted
    keep(cache.put_raw("k", 3.14, 1min));                 // error: deleted
    keep(cache.put_raw("k", true, 1min, "span"));         // error: deleted
    keep(cache.put_raw("k", "text", 1min));               // error: deleted
    keep(cache.put_raw("k", json::array{1, 2}, 1min));    // error: deleted
    keep(cache.put_raw("k", value, 1min));                // error: deleted
    keep(cache.put_raw("k", json::storage_ptr(), 1min));  // error: deleted
    keep(cache.put_raw("k", Ada(), 1min));                // error: deleted
    keep(cache.put_raw("k", {42}, 1min));                 // error: deleted

    json::object object;
    const json::object constant;
    keep(cache.put_raw("k", object, 1min));
    keep(cache.put_raw("k", constant, 1min, "span"));
    keep(cache.put_raw("k", json::object(), 1min));
    keep(cache.put_raw("k", std::move(object), 1min));
    keep(cache.put_raw("k", value.get_object(), 1min));
    keep(cache.put_raw("k", json::value_to<json::object>(value), 1min));
    keep(cache.put_raw("k", {}, 1min));
    keep(cache.put_raw("k", {{"name", "Ada"}}, 1min));
    keep(cache.put_raw("k", {{"name", "Ada"}, {"likes", {"engines", true}}}, 1min, "span"));
}

[[maybe_unused]] asio::awaitable<void> values_of_an_awaited_put(
    psycache::AsyncPostgresCache& cache) {
    co_await cache.put_raw("k", 42, 1min);  // error: deleted

    json::object object = {{"name", "Ada"}};
    co_await cache.put_raw("k", object, 1min);
    co_await cache.put_raw("k", std::move(object), 1min);
}

[[maybe_unused]] void values_of_an_entry(json::value& value) {
    keep(Entry("k", 42, 1min));                 // error: deleted
    keep(Entry("k", 3.14, 1min));               // error: deleted
    keep(Entry("k", true, 1min));               // error: deleted
    keep(Entry("k", "text", 1min));             // error: deleted
    keep(Entry("k", json::array{1, 2}, 1min));  // error: deleted
    keep(Entry("k", value, 1min));              // error: deleted
    keep(Entry("k", Ada(), 1min));              // error: deleted
    keep(Entry("k", {42}, 1min));               // error: deleted
    Entry number = {"k", 42, 1min};             // error: deleted
    keep(number);

    json::object object;
    keep(Entry("k", object, 1min));
    keep(Entry("k", json::object(), 1min));
    keep(Entry("k", std::move(object), 1min));
    keep(Entry("k", value.get_object(), 1min));
    keep(Entry("k", {}, 1min));
    keep(Entry("k", {{"name", "Ada"}}, 1min));
    std::vector<Entry> entries = {{"k", {{"name", "Ada"}}, 1min}, {"l", {}, psycache::no_expiry}};
    entries.emplace_back("m", json::object(), 1min);
    entries.push_back({"n", {{"name", "Ada"}, {"born", 1815}}, 1min});
    keep(entries);
}

[[maybe_unused]] void results_of_a_blocking_cache(psycache::PostgresCache& cache) {
    cache.start_cleanup_thread(1min);  // error: nodiscard
    cache.statistics();                // error: nodiscard
    cache.pool_statistics();           // error: nodiscard
    psycache::init_db_sql();           // error: nodiscard

    cache.get_raw("k");
    cache.remove("k");
    cache.remove_many({"k"});
    cache.cleanup_expired();
    cache.flush();
    psycache::CleanupService service = cache.start_cleanup_thread(1min);
    service.stop();
}

// A coroutine that is not awaited does nothing, as Asio says itself.
[[maybe_unused]] void results_of_an_asynchronous_cache(psycache::AsyncPostgresCache& cache,
                                                       psycache::ConnectionPool& pool) {
    cache.get_raw("k");                                   // error: nodiscard
    cache.put_raw("k", json::object(), 1min);             // error: nodiscard
    cache.remove("k");                                    // error: nodiscard
    cache.get_text("k");                                  // error: nodiscard
    cache.put_text("k", "{}", 1min);                      // error: nodiscard
    cache.get_raw_many({});                               // error: nodiscard
    cache.put_raw_many({});                               // error: nodiscard
    cache.remove_many({});                                // error: nodiscard
    cache.cleanup_expired();                              // error: nodiscard
    cache.flush();                                        // error: nodiscard
    cache.run_cleanup(1min);                              // error: nodiscard
    cache.start_cleanup_task(1min);                       // error: nodiscard
    cache.start_cleanup_task(pool.get_executor(), 1min);  // error: nodiscard
    cache.statistics();                                   // error: nodiscard
    cache.pool_statistics();                              // error: nodiscard
    pool.connect();                                       // error: nodiscard
    pool.statistics();                                    // error: nodiscard
    psycache::init_db(pool);                              // error: nodiscard

    psycache::AsyncCleanupService service = cache.start_cleanup_task(1min);
    service.stop();  // error: nodiscard
}

[[maybe_unused]] asio::awaitable<void> results_that_are_awaited(psycache::AsyncPostgresCache& cache,
                                                                psycache::ConnectionPool& pool) {
    cache.flush();  // error: nodiscard

    co_await psycache::init_db(pool);
    co_await cache.remove("k");
    co_await cache.cleanup_expired();
    co_await cache.flush();
    psycache::AsyncCleanupService service = cache.start_cleanup_task(1min);
    co_await service.stop();
}

struct Undescribed {};
struct HoldsUndescribed {
    std::vector<Undescribed> all;
};
BOOST_DESCRIBE_STRUCT(HoldsUndescribed, (), (all))
struct NoDefault {
    explicit NoDefault(int its_number) : number(its_number) {}
    int number;
};
BOOST_DESCRIBE_STRUCT(NoDefault, (), (number))
enum class UndescribedEnum { one };

[[maybe_unused]] void types_that_do_not_convert(psycache::PostgresCache& cache) {
    cache.put("k", Undescribed(), 1min);                                   // refused
    cache.put_if_absent("k", std::vector<Undescribed>(), 1min);            // refused
    cache.replace("k", HoldsUndescribed(), 1min);                          // refused
    cache.compare_and_put("k", UndescribedEnum(), UndescribedEnum(), 1h);  // refused
    cache.put("k", std::optional<Undescribed>(), 1min);                    // refused
    cache.get<Undescribed>("k");                                           // refused
    cache.get<std::map<std::string, HoldsUndescribed>>("k");               // refused
    cache.take<NoDefault>("k");                                            // refused
    cache.get<std::string_view>("k");                                      // refused
    cache.get<std::vector<const char*>>("k");                              // refused
    cache.get_entry<std::tuple<int, Undescribed>>("k");                    // refused

    cache.put("k", NoDefault(1), 1min);
    cache.put("k", "text", 1min);
    cache.merge("k", {{"name", "Ada"}});
    cache.merge("k", 42);  // error: deleted
}

[[maybe_unused]] void types_that_do_not_convert(psycache::AsyncPostgresCache& cache) {
    std::ignore = cache.put("k", std::vector<UndescribedEnum>(), 1min);  // refused
    std::ignore = cache.get<HoldsUndescribed>("k");                      // refused
    cache.get<int>("k");                                                 // error: nodiscard
    cache.put("k", 1, 1min);                                             // error: nodiscard
    cache.increment("k", 1, 1min);                                       // error: nodiscard
}

[[maybe_unused]] void values_inside_of_a_transaction(psycache::TransactionCache& cache,
                                                     psycache::AsyncTransactionCache& async) {
    cache.put_raw("k", 42, 1min);  // error: deleted
    cache.put_raw("k", {{"n", 1}}, 1min);
    async.put_raw("k", "text", 1min);  // error: deleted
    async.get_raw("k");                // error: nodiscard
}

}  // namespace
