#pragma once

/// @file
/// A server that says what it is told, on a thread of its own, so that clients may block.

#include <unistd.h>

#include <array>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "fuzz/wire.hpp"

namespace psycache::fuzz {

namespace asio = boost::asio;

/// Serves one session after the other, each on the connection that comes next. Then nobody listens.
class FakeServer {
  public:
    explicit FakeServer(std::vector<Session> sessions) : sessions_(std::move(sessions)) {
        // Linux keeps addresses that begin with a NUL out of the file system; libpq writes it "@".
        acceptor_.open();
        acceptor_.bind(std::string(1, '\0') + name_ + "/.s.PGSQL.1");
        acceptor_.listen();
        asio::co_spawn(context_, accept(), asio::detached);
        thread_ = std::thread([this] { context_.run(); });
    }
    FakeServer(const FakeServer&) = delete;
    FakeServer& operator=(const FakeServer&) = delete;
    ~FakeServer() {
        context_.stop();
        thread_.join();
    }

    std::string dsn() const { return "host=@" + name_ + " port=1 user=fuzz dbname=fuzz"; }

  private:
    using Socket = asio::local::stream_protocol::socket;

    static std::string unused_name() {
        static std::atomic<unsigned> made{0};
        return "psycache-fuzz-" + std::to_string(::getpid()) + "-" + std::to_string(made++);
    }

    asio::awaitable<void> accept() {
        for (Session& session : sessions_) {
            auto accepted = co_await acceptor_.async_accept(asio::as_tuple(asio::use_awaitable));
            if (std::get<0>(accepted)) {
                co_return;
            }
            auto served = serve(std::get<1>(std::move(accepted)), std::move(session));
            asio::co_spawn(context_, std::move(served), asio::detached);
        }
        acceptor_.close();
    }

    static asio::awaitable<bool> hears(Socket& socket) {
        std::array<char, 65536> bytes;
        const auto free = asio::buffer(bytes);
        auto read = co_await socket.async_read_some(free, asio::as_tuple(asio::use_awaitable));
        co_return !std::get<0>(read);
    }

    static asio::awaitable<void> serve(Socket socket, Session session) {
        for (const std::string& answer : session.answers) {
            const bool on = session.hasty || co_await hears(socket);
            if (!on) {
                co_return;
            }
            const auto bytes = asio::buffer(answer);
            auto sent =
                co_await asio::async_write(socket, bytes, asio::as_tuple(asio::use_awaitable));
            if (std::get<0>(sent)) {
                co_return;
            }
        }
        if (session.end == Session::End::close) {
            co_return;
        }
        if (session.end == Session::End::half_close) {
            boost::system::error_code ignored;
            socket.shutdown(asio::socket_base::shutdown_send, ignored);
        }
        while (co_await hears(socket)) {
        }
    }

    const std::string name_ = unused_name();
    std::vector<Session> sessions_;
    asio::io_context context_{1};
    asio::local::stream_protocol::acceptor acceptor_{context_};
    std::thread thread_;
};

}  // namespace psycache::fuzz
