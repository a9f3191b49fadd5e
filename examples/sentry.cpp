// A service that reports its requests to Sentry, with a span for every call of the cache. Needs the
// target psycache::sentry.
//
// The requests come from a list, not from a network, and the transport prints the spans instead of
// sending them. A real program leaves the transport out and uses the DSN of its own project.
//
// The database is that of PSYCACHE_DSN.

#include <sentry.h>

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <future>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <psycache/instrumentation/sentry.hpp>
#include <psycache/psycache.hpp>

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

/// Where envelopes go in this example. The SDK calls it on the thread that finishes a transaction.
class Printer {
  public:
    static void send(sentry_envelope_t* envelope, void* printer) noexcept {
        std::size_t size = 0;
        char* const bytes = sentry_envelope_serialize(envelope, &size);
        try {
            static_cast<Printer*>(printer)->print(std::string_view(bytes, size));
        } catch (const std::exception& error) {
            std::cerr << "sentry: cannot print an envelope: " << error.what() << '\n';
        }
        sentry_free(bytes);
        sentry_envelope_free(envelope);
    }

    int spans() const {
        const std::lock_guard lock(mutex_);
        return spans_;
    }

  private:
    /// An envelope has a line of its own, then a header line and a payload for each item.
    void print(std::string_view envelope) {
        const std::lock_guard lock(mutex_);
        take_line(envelope);
        while (!envelope.empty()) {
            const json::object header = json::parse(take_line(envelope)).as_object();
            const auto length = header.at("length").to_number<std::size_t>();
            if (header.at("type") == "transaction") {
                print_transaction(json::parse(envelope.substr(0, length)).as_object());
            }
            envelope.remove_prefix(std::min(length, envelope.size()));
            take_line(envelope);
        }
    }

    void print_transaction(const json::object& transaction) {
        std::cout << text(transaction, "transaction") << '\n';
        const json::value* const spans = transaction.if_contains("spans");
        if (spans == nullptr) {
            return;
        }
        for (const json::value& span : spans->as_array()) {
            const json::object& fields = span.as_object();
            std::cout << "    " << text(fields, "op") << " \"" << text(fields, "description")
                      << "\" " << text(fields, "status");
            if (const json::value* const data = fields.if_contains("data")) {
                std::cout << ' ' << json::serialize(*data);
            }
            std::cout << '\n';
            ++spans_;
        }
    }

    static std::string_view text(const json::object& object, std::string_view field) {
        return object.at(field).as_string();
    }

    static std::string_view take_line(std::string_view& text) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        return line;
    }

    mutable std::mutex mutex_;
    int spans_ = 0;
};

/// The SDK, from here to the end of the scope.
class Sentry {
  public:
    explicit Sentry(Printer& printer)
        : folder_(std::filesystem::temp_directory_path() /
                  ("psycache-example-sentry-" + std::to_string(std::random_device{}()))) {
        sentry_options_t* const options = sentry_options_new();
        sentry_options_set_dsn(options, "https://key@sentry.invalid/1");
        sentry_options_set_database_path(options, folder_.c_str());
        sentry_options_set_traces_sample_rate(options, 1.0);
        sentry_transport_t* const transport = sentry_transport_new(&Printer::send);
        sentry_transport_set_state(transport, &printer);
        sentry_options_set_transport(options, transport);
        expect(sentry_init(options) == 0, "sentry_init succeeds");
    }
    Sentry(const Sentry&) = delete;
    Sentry& operator=(const Sentry&) = delete;
    ~Sentry() {
        sentry_close();
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }

  private:
    std::filesystem::path folder_;
};

/// The span that the next call of the cache on this thread belongs to.
thread_local sentry_span_t* next_parent = nullptr;

/// One request: a transaction, and a span for its handler.
class Request {
  public:
    Request(const std::string& name, psycache::AsyncPostgresCache cache)
        : cache_(std::move(cache)),
          transaction_(
              sentry_transaction_start(sentry_transaction_context_new(name.c_str(), "http.server"),
                                       sentry_value_new_null())),
          handler_(sentry_transaction_start_child(transaction_, "http.handler", name.c_str())) {}
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    ~Request() {
        sentry_span_finish(handler_);
        sentry_transaction_finish(transaction_);
    }

    /// The cache, for one call. `co_await request.cache().get_raw(key)` asks for the parent before
    /// the coroutine is suspended, so on this thread, and before anybody else gets it.
    psycache::AsyncPostgresCache& cache() {
        next_parent = handler_;
        return cache_;
    }

  private:
    psycache::AsyncPostgresCache cache_;
    sentry_transaction_t* transaction_;
    sentry_span_t* handler_;
};

asio::awaitable<void> show_user(psycache::AsyncPostgresCache cache, std::string key) {
    Request request("GET /user", std::move(cache));
    auto user = co_await request.cache().get_raw(key, "load user");
    if (!user) {
        json::object loaded = {{"name", "Ada"}};  // what a real service would ask its database for
        co_await request.cache().put_raw(key, loaded, 1min, "store user");
        user = co_await request.cache().get_raw(key, "load user");
    }
    expect(user.has_value(), "the user that was stored");
}

asio::awaitable<void> forget_user(psycache::AsyncPostgresCache cache, std::string key) {
    Request request("DELETE /user", std::move(cache));
    co_await request.cache().remove(key);
    // A call that fails has a span as well, with cache.success = false.
    bool refused = false;
    try {
        co_await request.cache().get_raw("not UTF-8: \xFF", "load user");
    } catch (const psycache::Error& error) {
        refused = error.code() == psycache::Errc::invalid_key;
    }
    expect(refused, "Errc::invalid_key");
}

void serve(const std::string& dsn, const Printer& printer) {
    psycache::init_db(dsn);

    asio::thread_pool threads(2);
    psycache::PoolOptions pool;
    pool.dsn = dsn;
    psycache::CacheOptions options;
    options.instrumentations.push_back(
        std::make_shared<psycache::SentryInstrumentation>([] { return next_parent; }));
    const psycache::AsyncPostgresCache cache(threads.get_executor(), pool, options);

    // Requests run side by side, on any of the threads.
    const std::string prefix = "sentry:user:" + std::to_string(std::random_device{}()) + ":";
    std::vector<std::future<void>> requests;
    for (int user = 0; user < 3; ++user) {
        requests.push_back(asio::co_spawn(asio::make_strand(threads),
                                          show_user(cache, prefix + std::to_string(user)),
                                          asio::use_future));
    }
    for (auto& request : requests) {
        request.get();
    }
    asio::co_spawn(asio::make_strand(threads), forget_user(cache, prefix + "0"), asio::use_future)
        .get();
    threads.join();
    expect(printer.spans() == 3 * (1 + 3) + (1 + 2), "a span for every handler and every call");
}

}  // namespace

int main() {
    try {
        const char* const dsn = std::getenv("PSYCACHE_DSN");
        Printer printer;
        const Sentry sentry(printer);
        serve(dsn != nullptr ? dsn : "", printer);
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "sentry: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
