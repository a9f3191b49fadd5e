// A small HTTP service on Boost.Beast and Asio coroutines that keeps its slow answers in the cache.
//
//     example_http_service --port 8080
//     curl -i 'http://127.0.0.1:8080/answer?q=life'      X-Cache: miss, after half a second
//     curl -i 'http://127.0.0.1:8080/answer?q=life'      X-Cache: hit, at once
//
// --port 0 takes a free port. SIGINT and SIGTERM stop it gracefully: requests that are being
// answered are finished first. --self-test starts it on a free loopback port, asks it, and stops it
// again. The database is that of PSYCACHE_DSN.

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
#include <boost/json/parse.hpp>
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

constexpr auto slowness = 500ms;      // of the work that the cache saves
constexpr auto idle_timeout = 30s;    // of a client's connection
constexpr std::size_t longest = 500;  // bytes of a question

psycache::PoolOptions pool_options() {
    psycache::PoolOptions options;
    if (const char* dsn = std::getenv("PSYCACHE_DSN")) {
        options.dsn = dsn;
    }
    return options;
}

psycache::CacheOptions cache_options() {
    psycache::CacheOptions options;
    // Without PostgreSQL the service is slow, but it is there: each answer is worked out, once for
    // all clients that wait for it. And it waits half a second for the cache at most, which is what
    // a hit would save.
    options.on_outage = psycache::OnOutage::miss;
    options.timeout = slowness;
    return options;
}

class Service {
  public:
    Service(asio::io_context& context, std::uint16_t port)
        : context_(context),
          acceptor_(context, tcp::endpoint(asio::ip::address_v4::loopback(), port)),
          signals_(context, SIGINT, SIGTERM),
          cache_(context.get_executor(), pool_options(), cache_options()),
          // Expired entries are misses without it; it gives their room back.
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

    // No new clients; those that have nothing to ask now are hung up on, the others get their
    // answer. Then nothing is left to do, and io_context::run returns.
    asio::awaitable<void> stop_on_signal() {
        co_await signals_.async_wait(use_awaitable);
        std::cout << "stopping" << std::endl;
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
        Response response(http::status::ok, request.version());
        response.set(http::field::content_type, "application/json");

        constexpr std::string_view path = "/answer?q=";
        const std::string_view target(request.target().data(), request.target().size());
        if (request.method() != http::verb::get || target.substr(0, path.size()) != path) {
            response.result(http::status::not_found);
            response.body() = R"({"error": "try GET /answer?q=..."})";
            co_return response;
        }
        const std::string question(target.substr(path.size()));
        if (question.size() > longest) {
            response.result(http::status::uri_too_long);
            response.body() = R"({"error": "that is too long a question"})";
            co_return response;
        }

        try {
            bool hit = false;
            json::object value = co_await cached_answer(question, hit);
            response.set("X-Cache", hit ? "hit" : "miss");
            response.body() = json::serialize(value);
        } catch (const psycache::Error& error) {
            // An outage does not come here (see cache_options), a table that is missing does: that
            // is for the operator. what() holds no data of users, so it can be logged as it is.
            std::cerr << "cache: " << error.what() << std::endl;
            const bool mistake = error.code() == psycache::Errc::invalid_key;  // bytes, no UTF-8
            response.result(mistake ? http::status::bad_request
                                    : http::status::internal_server_error);
            response.body() = R"({"error": "no answer"})";
        }
        co_return response;
    }

    // However many clients ask the same, of however many processes like this one: the work is done
    // once. For a minute after its five an old answer is given, while a new one is worked out.
    asio::awaitable<json::object> cached_answer(std::string question, bool& hit) {
        psycache::CreateOptions options(5min);
        options.stale_for = 1min;
        options.span_name = "answer";  // for metrics and traces
        // A loader may go on after this call has its answer: it holds nothing of the call's own.
        const auto worked = std::make_shared<bool>(false);
        auto loader = [question, worked] {
            *worked = true;
            return think(question);
        };
        json::object value = co_await cache_.get_or_create<json::object>(
            "http_service:answer:" + question, options, loader);
        hit = !*worked;
        co_return value;
    }

    // Stands for a call of another service, a report, a rendering.
    static asio::awaitable<json::object> think(std::string question) {
        asio::steady_timer timer(co_await asio::this_coro::executor, slowness);
        co_await timer.async_wait(use_awaitable);
        json::object value = {{"question", question}, {"answer", 42}};
        co_return value;
    }

    asio::io_context& context_;
    tcp::acceptor acceptor_;
    asio::signal_set signals_;
    psycache::AsyncPostgresCache cache_;
    psycache::AsyncCleanupService cleanup_;
    std::set<beast::tcp_stream*> idle_;  // whose next request has not arrived yet
    bool stopping_ = false;
};

// ---- the self-test: a client in the same program
// -------------------------------------------------

void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

struct Asked {
    Response response;
    std::chrono::milliseconds time{};
};

asio::awaitable<void> ask(beast::tcp_stream& stream, const std::string& target, Asked& asked) {
    const auto start = std::chrono::steady_clock::now();
    Request request(http::verb::get, target, 11);
    request.set(http::field::host, "localhost");
    stream.expires_after(30s);
    co_await http::async_write(stream, request, use_awaitable);
    beast::flat_buffer buffer;
    co_await http::async_read(stream, buffer, asked.response, use_awaitable);
    asked.time = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - start);
}

asio::awaitable<void> ask_twice(asio::io_context& context, std::uint16_t port) {
    beast::tcp_stream stream(context);
    stream.expires_after(30s);
    const tcp::endpoint service(asio::ip::address_v4::loopback(), port);
    co_await stream.async_connect(service, use_awaitable);

    const std::string target = "/answer?q=self-test-" + std::to_string(std::random_device{}());
    Asked first;
    Asked second;
    co_await ask(stream, target, first);
    co_await ask(stream, target, second);
    std::cout << "first answer:  X-Cache: " << first.response["X-Cache"] << ", "
              << first.time.count() << " ms\n"
              << "second answer: X-Cache: " << second.response["X-Cache"] << ", "
              << second.time.count() << " ms\n"
              << "saved: " << (first.time - second.time).count() << " ms" << std::endl;
    expect(first.response.result() == http::status::ok, "an answer");
    expect(first.response["X-Cache"] == "miss", "a miss at first");
    expect(second.response["X-Cache"] == "hit", "then a hit");
    // As JSON, not as text: JSONB does not keep the order of names.
    const json::value first_body = json::parse(first.response.body());
    expect(json::parse(second.response.body()) == first_body, "the same answer");
    expect(first.time >= slowness && second.time < first.time, "time saved by the hit");

    Asked other;
    co_await ask(stream, "/somewhere", other);
    expect(other.response.result() == http::status::not_found, "404 elsewhere");
    // The connection stays open and idle: stopping the service must not wait for its client.
    std::raise(SIGTERM);
    beast::flat_buffer buffer;
    Response none;
    boost::system::error_code ec;
    co_await http::async_read(stream, buffer, none, asio::redirect_error(use_awaitable, ec));
    expect(ec == http::error::end_of_stream, "the service hangs up when it stops");
}

int run(std::uint16_t port, bool self_test) {
    psycache::init_db(pool_options().dsn);  // blocking, before there is an event loop

    asio::io_context context(1);
    Service service(context, self_test ? std::uint16_t{0} : port);
    std::cout << "http://127.0.0.1:" << service.port() << "/answer?q=..." << std::endl;

    std::exception_ptr failure;
    if (self_test) {
        asio::co_spawn(context, ask_twice(context, service.port()), [&](std::exception_ptr e) {
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
                throw std::invalid_argument("usage: http_service [--port N] [--self-test]");
            }
        }
        return run(port, self_test);
    } catch (const std::exception& error) {
        std::cerr << "http_service: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
