// Values of the application's own types: prefix, time to live and span name of a kind of entry
// stand in one place, and the rest of the program passes structs around. Counters, locks and a
// mailbox show operations that are atomic on the server.
//
// The database is that of PSYCACHE_DSN.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/describe/class.hpp>
#include <boost/describe/enum.hpp>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/psycache.hpp>

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

// What is described (Boost.Describe) converts to JSON and back without further code. A stored value
// of another shape is an error that names the member, never a struct that is half filled.
enum class Plan { free, paid };
BOOST_DESCRIBE_ENUM(Plan, free, paid)

struct Profile {
    std::string name;
    Plan plan = Plan::free;
    std::vector<std::string> languages;
    std::optional<std::int64_t> born;
};
BOOST_DESCRIBE_STRUCT(Profile, (), (name, plan, languages, born))

/// One kind of entry: how its keys begin, how long it lives, and what its calls are called in
/// traces.
template <class T>
class Kind {
  public:
    Kind(psycache::AsyncPostgresCache cache, std::string prefix, psycache::Duration ttl)
        : cache_(std::move(cache)), prefix_(std::move(prefix)), ttl_(ttl) {}

    asio::awaitable<std::optional<T>> get(std::string_view id) const {
        return cache_.get<T>(key(id), prefix_);
    }
    asio::awaitable<void> put(std::string_view id, const T& value) const {
        return cache_.put(key(id), value, ttl_, prefix_);
    }
    asio::awaitable<bool> remove(std::string_view id) const {
        return cache_.remove(key(id), prefix_);
    }

  private:
    std::string key(std::string_view id) const { return prefix_ + ":" + std::string(id); }

    mutable psycache::AsyncPostgresCache cache_;
    std::string prefix_;
    psycache::Duration ttl_;
};

/// The examples are tests as well: what is not as expected ends the program with an error.
void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

asio::awaitable<void> profiles(psycache::AsyncPostgresCache cache, std::string run) {
    // The version is a part of the prefix: a new shape of the struct gets new keys.
    const Kind<Profile> kind(cache, "profile-v1-" + run, 10min);
    Profile ada;
    ada.name = "Ada";
    ada.plan = Plan::paid;
    ada.languages.emplace_back("en");
    ada.languages.emplace_back("fr");
    co_await kind.put("ada", ada);
    const auto found = co_await kind.get("ada");
    expect(found && found->languages.size() == 2 && !found->born, "the profile that was put");
    std::cout << found->name << " speaks " << found->languages.size() << " languages.\n";

    // Another writer has stored another shape.
    json::object other;
    other["name"] = "Grace";
    co_await cache.put_raw("profile-v1-" + run + ":grace", other, 10min);
    try {
        co_await kind.get("grace");
        expect(false, "another shape is an error");
    } catch (const psycache::Error& error) {
        expect(error.code() == psycache::Errc::unreadable_value, "the code of another shape");
        std::cout << error.what() << '\n';
    }
}

asio::awaitable<void> counters(psycache::AsyncPostgresCache cache, std::string run) {
    // A limit on requests: the first one of a minute makes the counter, and its end.
    const std::string requests = "requests:" + run;
    for (int i = 1; i <= 3; ++i) {
        const std::int64_t count = co_await cache.increment(requests, 1, 1min);
        expect(count == i, "each request hears its own count");
    }
    const auto left = co_await cache.expires_in(requests);
    expect(left && *left <= 1min, "the counter keeps the time to live of the first request");

    // A lock that ends by itself: one of many gets it.
    const std::string lock = "lock:" + run;
    const bool first = co_await cache.put_if_absent(lock, "worker 1", 30s);
    const bool second = co_await cache.put_if_absent(lock, "worker 2", 30s);
    expect(first && !second, "one worker gets the lock");

    // A mailbox: what is taken is gone.
    co_await cache.put("mail:" + run, "hello", 1h);
    const auto mail = co_await cache.take<std::string>("mail:" + run);
    const auto nothing = co_await cache.take<std::string>("mail:" + run);
    expect(mail == "hello" && !nothing, "one caller gets the mail");
    std::cout << "3 requests, 1 lock, 1 mail.\n";
}

}  // namespace

int main() {
    try {
        psycache::PoolOptions options;
        if (const char* dsn = std::getenv("PSYCACHE_DSN")) {
            options.dsn = dsn;
        }
        psycache::init_db(options.dsn);

        asio::io_context context;
        const psycache::AsyncPostgresCache cache(context.get_executor(), options);
        // Keys of this run only.
        const std::string run = std::to_string(std::random_device{}());
        std::exception_ptr failure;
        const auto ended = [&](std::exception_ptr e) { failure = failure ? failure : e; };
        asio::co_spawn(context, profiles(cache, run), ended);
        asio::co_spawn(context, counters(cache, run), ended);
        context.run();
        if (failure) {
            std::rethrow_exception(failure);
        }
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "typed: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
