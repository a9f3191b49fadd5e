// A service whose cache is watched by Prometheus: psycache::prometheus on a registry, served at
// /metrics by the Asio coroutines that serve everything else.
//
//     example_metrics_server --port 8080
//     curl http://127.0.0.1:8080/items/42     through the cache: slow at first, then at once
//     curl http://127.0.0.1:8080/metrics      what Prometheus reads
//     curl http://127.0.0.1:8080/healthz      "ok" as long as the event loop turns
//
// In prometheus.yml:
//
//     scrape_configs:
//       - job_name: metrics_server
//         static_configs: [{targets: ['127.0.0.1:8080']}]
//
// grafana/psycache.json next to this file is a dashboard of these metrics. --port 0 takes a free
// port and prints it. SIGINT and SIGTERM stop the service. --self-test starts it on a free port,
// asks it, and stops it again. The database is that of PSYCACHE_DSN.

#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <psycache/instrumentation/prometheus.hpp>
#include <psycache/instrumentation/prometheus_statistics.hpp>
#include <psycache/psycache.hpp>

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace json = boost::json;
using asio::use_awaitable;
using asio::ip::tcp;
using namespace std::chrono_literals;

namespace {

using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

constexpr auto slowness = 50ms;       // of the work that the cache saves
constexpr auto idle_timeout = 30s;    // of a client's connection
constexpr std::size_t longest = 200;  // bytes of an item's name

psycache::PoolOptions pool_options() {
    psycache::PoolOptions options;
    if (const char* dsn = std::getenv("PSYCACHE_DSN")) {
        options.dsn = dsn;
    }
    return options;
}

psycache::CacheOptions cache_options(const std::shared_ptr<prometheus::Registry>& registry) {
    psycache::CacheOptions options;
    options.on_outage = psycache::OnOutage::miss;
    // The cache makes its own pool, so this covers the pool too. The metrics of the rest of the
    // application can go to the same registry.
    options.instrumentations.push_back(
        std::make_shared<psycache::PrometheusInstrumentation>(registry));
    options.near_cache.emplace();
    return options;
}

class Service {
  public:
    Service(asio::io_context& context, std::uint16_t port)
        : context_(context),
          acceptor_(context, tcp::endpoint(asio::ip::address_v4::loopback(), port)),
          signals_(context, SIGINT, SIGTERM),
          cache_(context.get_executor(), pool_options(), cache_options(registry_)),
          cleanup_(cache_.start_cleanup_task(1min)) {
        asio::co_spawn(context_, accept_clients(), asio::detached);
        asio::co_spawn(context_, stop_on_signal(), asio::detached);
    }

    std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

  private:
    asio::awaitable<void> accept_clients() {
        while (!stopping_) {
            tcp::socket socket(context_);
            boost::system::error_code ec;
            co_await acceptor_.async_accept(socket, asio::redirect_error(use_awaitable, ec));
            if (!ec) {
                asio::co_spawn(context_, serve(std::move(socket)), asio::detached);
            } else if (!stopping_) {  // out of descriptors, say: do not spin
                asio::steady_timer timer(context_, 100ms);
                co_await timer.async_wait(use_awaitable);
            }
        }
    }

    asio::awaitable<void> stop_on_signal() {
        co_await signals_.async_wait(use_awaitable);
        stopping_ = true;
        acceptor_.close();
        for (beast::tcp_stream* stream : idle_) {
            stream->cancel();
        }
        co_await cleanup_.stop();
    }

    asio::awaitable<void> serve(tcp::socket socket) {
        beast::tcp_stream stream(std::move(socket));
        beast::flat_buffer buffer;
        for (bool keep_alive = true; keep_alive && !stopping_;) {
            Request request;
            boost::system::error_code ec;
            stream.expires_after(idle_timeout);
            idle_.insert(&stream);
            co_await http::async_read(stream, buffer, request,
                                      asio::redirect_error(use_awaitable, ec));
            idle_.erase(&stream);
            if (ec) {  // the client has left, was silent for too long, or speaks no HTTP
                break;
            }

            Response response = co_await respond(request);
            keep_alive = request.keep_alive() && !stopping_;
            response.keep_alive(keep_alive);
            response.prepare_payload();
            stream.expires_after(idle_timeout);
            co_await http::async_write(stream, response, asio::redirect_error(use_awaitable, ec));
            if (ec) {
                break;
            }
        }
        boost::system::error_code ignored;
        stream.socket().shutdown(tcp::socket::shutdown_both, ignored);
    }

    asio::awaitable<Response> respond(const Request& request) {
        constexpr std::string_view items = "/items/";
        const std::string_view target(request.target().data(), request.target().size());
        Response response(http::status::ok, request.version());
        response.set(http::field::content_type, "text/plain; charset=utf-8");
        if (request.method() != http::verb::get) {
            response.result(http::status::method_not_allowed);
        } else if (target == "/metrics") {
            // The version is that of the text format, for Prometheus to know what it reads.
            response.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
            auto metrics = registry_->Collect();
            // What costs too little to be told of one by one: hits in memory, for example.
            for (auto& family : statistics_.Collect()) {
                metrics.push_back(std::move(family));
            }
            response.body() = prometheus::TextSerializer().Serialize(metrics);
        } else if (target == "/healthz") {
            response.body() = "ok\n";
        } else if (target.substr(0, items.size()) == items && target.size() <= longest) {
            co_await respond_with_item(std::string(target.substr(items.size())), response);
        } else {
            response.result(http::status::not_found);
        }
        co_return response;
    }

    asio::awaitable<void> respond_with_item(std::string name, Response& response) {
        try {
            const std::string key = "metrics_server:item:" + name;
            // "item" becomes the label span_name: one name for all items, never the key.
            auto value = co_await cache_.get_shared(key, "item");
            if (!value) {
                value = std::make_shared<const json::object>(co_await find_item(std::move(name)));
                co_await cache_.put_raw(key, *value, 5min, "item");
            }
            response.set(http::field::content_type, "application/json");
            response.body() = json::serialize(*value);
        } catch (const psycache::Error& error) {
            std::cerr << "cache: " << error.what() << std::endl;
            response.result(http::status::internal_server_error);
        }
    }

    // Stands for a query, a call of another service, a rendering.
    asio::awaitable<json::object> find_item(std::string name) {
        asio::steady_timer timer(context_, slowness);
        co_await timer.async_wait(use_awaitable);
        json::object item = {{"name", name}};
        co_return item;
    }

    asio::io_context& context_;
    const std::shared_ptr<prometheus::Registry> registry_ =
        std::make_shared<prometheus::Registry>();
    tcp::acceptor acceptor_;
    asio::signal_set signals_;
    psycache::AsyncPostgresCache cache_;
    psycache::AsyncCleanupService cleanup_;
    const psycache::PrometheusStatistics statistics_{[this] { return cache_.statistics(); }};
    std::set<beast::tcp_stream*> idle_;  // whose next request has not arrived yet
    bool stopping_ = false;
};

// ---- the self-test: a client in the same program ----

void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

asio::awaitable<Response> ask(beast::tcp_stream& stream, std::string target) {
    Request request(http::verb::get, target, 11);
    request.set(http::field::host, "localhost");
    stream.expires_after(30s);
    co_await http::async_write(stream, request, use_awaitable);
    beast::flat_buffer buffer;
    Response response;
    co_await http::async_read(stream, buffer, response, use_awaitable);
    co_return response;
}

asio::awaitable<void> test_service(asio::io_context& context, std::uint16_t port) {
    beast::tcp_stream stream(context);
    stream.expires_after(30s);
    const tcp::endpoint service(asio::ip::address_v4::loopback(), port);
    co_await stream.async_connect(service, use_awaitable);

    const std::string target = "/items/self-test-" + std::to_string(std::random_device{}());
    Response response;
    for (int i = 0; i < 3; ++i) {  // a miss, then two hits
        response = co_await ask(stream, target);
        expect(response.result() == http::status::ok, "an item");
    }
    response = co_await ask(stream, "/healthz");
    expect(response.body() == "ok\n", "/healthz");
    response = co_await ask(stream, "/somewhere");
    expect(response.result() == http::status::not_found, "404 elsewhere");

    response = co_await ask(stream, "/metrics");
    expect(response[http::field::content_type] == "text/plain; version=0.0.4; charset=utf-8",
           "the content type that Prometheus asks for");
    const std::string metrics = "\n" + response.body();
    for (const std::string line : {R"(psycache_hits_total{span_name="item"} 2)",
                                   R"(psycache_misses_total{span_name="item"} 1)",
                                   R"(psycache_get_duration_seconds_count{span_name="item"} 3)",
                                   R"(psycache_put_duration_seconds_count{span_name="item"} 1)",
                                   R"(psycache_calls_in_progress{operation="get"} 0)",
                                   R"(psycache_errors_total{kind="timeout",operation="get"} 0)",
                                   "psycache_near_evictions_total 0", "psycache_queued_calls 0"}) {
        expect(metrics.find("\n" + line + "\n") != std::string::npos, line);
        std::cout << line << '\n';
    }
    std::raise(SIGTERM);
}

int run(std::uint16_t port, bool self_test) {
    psycache::TableOptions table;
    table.notify = true;  // so that what is kept in memory is never old for long
    psycache::init_db(pool_options().dsn, table);  // blocking, before there is an event loop

    asio::io_context context(1);
    Service service(context, self_test ? std::uint16_t{0} : port);
    std::cout << "http://127.0.0.1:" << service.port() << "/metrics" << std::endl;

    std::exception_ptr failure;
    if (self_test) {
        asio::co_spawn(context, test_service(context, service.port()), [&](std::exception_ptr e) {
            failure = e;
            if (failure) {
                std::raise(SIGTERM);
            }
        });
    }
    context.run();
    if (failure) {
        std::rethrow_exception(failure);
    }
    std::cout << "stopped" << std::endl;
    return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        std::uint16_t port = 8080;
        bool self_test = false;
        for (int i = 1; i < argc; ++i) {
            const std::string_view argument = argv[i];
            if (argument == "--self-test") {
                self_test = true;
            } else if (argument == "--port" && i + 1 < argc) {
                const std::string_view number = argv[++i];
                const auto read = std::from_chars(number.begin(), number.end(), port);
                if (read.ec != std::errc() || read.ptr != number.end()) {
                    throw std::invalid_argument("--port takes a number from 0 to 65535");
                }
            } else {
                throw std::invalid_argument("usage: metrics_server [--port N] [--self-test]");
            }
        }
        return run(port, self_test);
    } catch (const std::exception& error) {
        std::cerr << "metrics_server: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
