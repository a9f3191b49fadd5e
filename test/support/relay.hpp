#pragma once

/// @file
/// A TCP relay in front of the test server that can be away.

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <future>
#include <list>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace psycache::test {

namespace asio = boost::asio;

/// Passes bytes on between its port on 127.0.0.1 and that of the server. Starts switched off: its
/// port is known, and connections to it are refused.
class Relay {
  public:
    explicit Relay(const std::string& server_port)
        : target_(asio::ip::make_address("127.0.0.1"),
                  static_cast<std::uint16_t>(std::stoi(server_port))) {
        acceptor_.open(asio::ip::tcp::v4());
        acceptor_.set_option(asio::socket_base::reuse_address(true));
        acceptor_.bind({asio::ip::make_address("127.0.0.1"), 0});
        here_ = acceptor_.local_endpoint();
        thread_ = std::thread([this] { context_.run(); });
    }
    Relay(const Relay&) = delete;
    Relay& operator=(const Relay&) = delete;
    ~Relay() {
        context_.stop();
        thread_.join();
    }

    std::string port() const { return std::to_string(here_.port()); }

    void switch_on() {
        on_thread([this] {
            if (!acceptor_.is_open()) {
                acceptor_.open(here_.protocol());
                acceptor_.set_option(asio::socket_base::reuse_address(true));
                acceptor_.bind(here_);
            }
            acceptor_.listen();
            asio::co_spawn(context_, accept(), asio::detached);
        });
    }

    /// Refuses new connections and breaks those that there are.
    void switch_off() {
        on_thread([this] {
            acceptor_.close();
            for (auto& [client, server] : pairs_) {
                boost::system::error_code ignored;
                client.close(ignored);
                server.close(ignored);
            }
        });
    }

  private:
    using Socket = asio::ip::tcp::socket;

    template <class F>
    void on_thread(F function) {
        std::promise<void> done;
        asio::post(context_, [&] {
            function();
            done.set_value();
        });
        done.get_future().get();
    }

    asio::awaitable<void> accept() {
        for (;;) {
            auto accepted = co_await acceptor_.async_accept(asio::as_tuple(asio::use_awaitable));
            auto& [error, client] = accepted;
            if (error) {
                co_return;
            }
            Socket server(context_);
            auto connected =
                co_await server.async_connect(target_, asio::as_tuple(asio::use_awaitable));
            if (std::get<0>(connected)) {
                continue;
            }
            auto& pair = pairs_.emplace_back(std::move(client), std::move(server));
            asio::co_spawn(context_, pump(pair.first, pair.second), asio::detached);
            asio::co_spawn(context_, pump(pair.second, pair.first), asio::detached);
        }
    }

    static asio::awaitable<void> pump(Socket& from, Socket& to) {
        std::vector<char> bytes(65536);
        for (;;) {
            const auto free = asio::buffer(bytes);
            auto read = co_await from.async_read_some(free, asio::as_tuple(asio::use_awaitable));
            if (std::get<0>(read)) {
                boost::system::error_code ignored;
                to.shutdown(asio::socket_base::shutdown_send, ignored);
                co_return;
            }
            const auto data = asio::buffer(bytes.data(), std::get<1>(read));
            auto written =
                co_await asio::async_write(to, data, asio::as_tuple(asio::use_awaitable));
            if (std::get<0>(written)) {
                co_return;
            }
        }
    }

    asio::io_context context_;
    asio::executor_work_guard<asio::io_context::executor_type> guard_{context_.get_executor()};
    asio::ip::tcp::endpoint target_;
    asio::ip::tcp::endpoint here_;
    asio::ip::tcp::acceptor acceptor_{context_};
    std::list<std::pair<Socket, Socket>> pairs_;
    std::thread thread_;
};

}  // namespace psycache::test
