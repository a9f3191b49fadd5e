#pragma once

/// @file
/// A TCP proxy in front of the test server that can be away, slow, silent, or cut a connection.

#include <algorithm>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <future>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace psycache::test {

namespace asio = boost::asio;

/// Passes bytes on between its port on 127.0.0.1 and that of the server, with the faults that are
/// switched on. Starts switched off: its port is known, and connections to it are refused.
///
/// All members may be called from any thread at any time; faults hold for the connections that
/// there are and for those to come. A member that returns has taken effect.
class Gate {
  public:
    using Clock = std::chrono::steady_clock;

    /// Who is at the other end of one of the gate's sockets.
    enum class Side { client, server };

    /// How a connection ends.
    enum class Cut {
        orderly,  ///< both sides see the end of the stream
        reset,    ///< the client is told by RST, which can take back what it has not read
        silent    ///< nobody is told: from then on nothing passes, either way
    };

    explicit Gate(const std::string& server_port)
        : target_(asio::ip::make_address("127.0.0.1"),
                  static_cast<std::uint16_t>(std::stoi(server_port))) {
        bind(holder_, {asio::ip::make_address("127.0.0.1"), 0});
        here_ = holder_.local_endpoint();
        thread_ = std::thread([this] { context_.run(); });
    }
    Gate(const Gate&) = delete;
    Gate& operator=(const Gate&) = delete;
    ~Gate() {
        context_.stop();
        thread_.join();
    }

    std::string port() const { return std::to_string(here_.port()); }

    void switch_on() {
        on_thread([this] {
            if (!acceptor_.is_open()) {
                bind(acceptor_, here_);
            }
            acceptor_.listen();
            asio::co_spawn(context_, accept(), asio::detached);
        });
    }

    /// Refuses new connections and breaks those that there are.
    void switch_off() {
        on_thread([this] {
            acceptor_.close();
            for_each([](Connection& connection) { connection.close(); });
        });
    }

    /// Breaks the connections that there are.
    void break_all(Cut how) {
        on_thread([&] { for_each([&](Connection& connection) { connection.end(how); }); });
    }

    /// While it is on, connections are accepted, counted, and reset at once; those that there are
    /// stay.
    void refuse(bool on) {
        change([&] { refuses_ = on; });
    }

    /// A black hole while it is on: connections are accepted, and nothing passes, either way. What
    /// was held back passes when it is switched off.
    void swallow(bool on) {
        change([&] { swallows_ = on; });
    }

    /// Every byte takes so much longer, each way.
    void delay(Clock::duration each_way) {
        change([&] { delay_ = each_way; });
    }

    /// At most so many bytes per write, both ways, with a pause after each; 0 for as they come.
    void pieces(std::size_t bytes, Clock::duration pause = {}) {
        change([&] {
            piece_ = bytes;
            pause_ = pause;
        });
    }

    /// Lets the next so many bytes pass that come from one side, whatever connections they come by,
    /// and then cuts the one that carried the last of them, once. 0 cuts the next that comes with
    /// anything.
    void cut_after(std::uint64_t bytes, Cut how, Side from = Side::server) {
        change([&] {
            cut_left_ = bytes;
            cut_how_ = how;
            cut_from_ = from;
        });
    }

    /// Takes back a cut that has not happened.
    void do_not_cut() {
        change([&] { cut_left_.reset(); });
    }

    /// Lets one side of all connections see the end of the stream, while what it sends still
    /// passes.
    void half_close(Side towards) {
        on_thread(
            [&] { for_each([&](Connection& connection) { connection.half_close(towards); }); });
    }

    /// How many connections were accepted.
    std::uint64_t accepted() const { return accepted_; }
    /// How many of them there are now.
    std::size_t open() const { return open_; }
    /// How many were cut by cut_after.
    std::uint64_t cuts() const { return cuts_; }
    /// How often the end of a stream was passed on.
    std::uint64_t ends() const { return ends_; }
    /// How many bytes have passed.
    std::uint64_t to_server() const { return to_server_; }
    std::uint64_t from_server() const { return from_server_; }

  private:
    using Socket = asio::ip::tcp::socket;

    /// What was read at once: bytes, or how the stream ended.
    struct Chunk {
        Clock::time_point due;
        std::vector<char> bytes;
        boost::system::error_code end;
        std::size_t passed = 0;
    };

    /// One direction of a connection.
    struct Flow {
        Flow(Socket& source, Socket& sink, std::atomic<std::uint64_t>& bytes)
            : from(source),
              to(sink),
              passed(bytes),
              arrived(source.get_executor()),
              room(arrived.get_executor()) {}

        void wake() {
            arrived.cancel();
            room.cancel();
        }

        Socket& from;
        Socket& to;
        std::atomic<std::uint64_t>& passed;
        std::deque<Chunk> chunks;
        std::size_t queued = 0;
        asio::steady_timer arrived;  // its wait ends when there may be something to pass on
        asio::steady_timer room;     // and this one when there may be room for more
        bool ended = false;          // what still comes has nowhere to go
    };

    struct Connection {
        Connection(Gate& gate, Socket accepted)
            : open(gate.open_),
              client(std::move(accepted)),
              server(client.get_executor()),
              up(client, server, gate.to_server_),
              down(server, client, gate.from_server_) {
            ++open;
        }
        Connection(const Connection&) = delete;
        Connection& operator=(const Connection&) = delete;
        ~Connection() { --open; }

        void end(Cut how) {
            if (how == Cut::silent) {
                silent = true;
                return;
            }
            if (how == Cut::reset) {
                boost::system::error_code ignored;
                client.set_option(asio::socket_base::linger(true, 0), ignored);
            }
            close();
        }
        void close() {
            boost::system::error_code ignored;
            client.close(ignored);
            server.close(ignored);
            closed = true;
            wake();
        }
        void half_close(Side towards) {
            Flow& flow = towards == Side::client ? down : up;
            flow.ended = true;
            boost::system::error_code ignored;
            flow.to.shutdown(asio::socket_base::shutdown_send, ignored);
        }
        void wake() {
            up.wake();
            down.wake();
        }

        std::atomic<std::size_t>& open;
        Socket client;
        Socket server;
        Flow up;
        Flow down;
        bool silent = false;
        bool closed = false;
    };
    using Shared = std::shared_ptr<Connection>;

    static constexpr std::size_t most_queued = 1024 * 1024;

    template <class F>
    void on_thread(F function) {
        std::promise<void> done;
        asio::post(context_, [&] {
            function();
            done.set_value();
        });
        done.get_future().get();
    }

    template <class F>
    void for_each(F function) {
        connections_.remove_if([](const auto& weak) { return weak.expired(); });
        for (const auto& weak : connections_) {
            if (const Shared connection = weak.lock()) {
                function(*connection);
            }
        }
    }

    template <class F>
    void change(F function) {
        on_thread([&] {
            function();
            for_each([](Connection& connection) { connection.wake(); });
        });
    }

    static void bind(asio::ip::tcp::acceptor& acceptor, const asio::ip::tcp::endpoint& where) {
        acceptor.open(where.protocol());
        acceptor.set_option(asio::socket_base::reuse_address(true));
        acceptor.bind(where);
    }

    asio::awaitable<void> accept() {
        for (;;) {
            auto accepted = co_await acceptor_.async_accept(asio::as_tuple(asio::use_awaitable));
            auto& [error, client] = accepted;
            if (error) {
                co_return;
            }
            ++accepted_;
            auto connection = std::make_shared<Connection>(*this, std::move(client));
            if (refuses_) {
                connection->end(Cut::reset);
                continue;
            }
            connections_.push_back(connection);
            asio::co_spawn(context_, serve(std::move(connection)), asio::detached);
        }
    }

    asio::awaitable<void> serve(Shared connection) {
        auto connected =
            co_await connection->server.async_connect(target_, asio::as_tuple(asio::use_awaitable));
        if (std::get<0>(connected) || connection->closed) {
            connection->close();
            co_return;
        }
        // Or small pieces would become large ones again.
        boost::system::error_code ignored;
        connection->client.set_option(asio::ip::tcp::no_delay(true), ignored);
        connection->server.set_option(asio::ip::tcp::no_delay(true), ignored);
        for (Flow* flow : {&connection->up, &connection->down}) {
            asio::co_spawn(context_, take_in(connection, *flow), asio::detached);
            asio::co_spawn(context_, pass_on(connection, *flow), asio::detached);
        }
    }

    static asio::awaitable<void> wait(asio::steady_timer& timer, Clock::time_point until) {
        timer.expires_at(until);
        co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
    }

    asio::awaitable<void> take_in(Shared connection, Flow& flow) {
        std::vector<char> bytes(65536);
        for (;;) {
            while (flow.queued >= most_queued && !connection->closed) {
                co_await wait(flow.room, Clock::time_point::max());
            }
            const auto free = asio::buffer(bytes);
            auto read =
                co_await flow.from.async_read_some(free, asio::as_tuple(asio::use_awaitable));
            Chunk chunk;
            chunk.due = Clock::now() + delay_;
            chunk.end = std::get<0>(read);
            chunk.bytes.assign(bytes.data(), bytes.data() + std::get<1>(read));
            flow.queued += chunk.bytes.size();
            flow.chunks.push_back(std::move(chunk));
            flow.arrived.cancel();
            if (std::get<0>(read)) {
                co_return;
            }
        }
    }

    asio::awaitable<void> pass_on(Shared connection, Flow& flow) {
        while (!connection->closed) {
            if (flow.chunks.empty() || swallows_ || connection->silent) {
                co_await wait(flow.arrived, Clock::time_point::max());
                continue;
            }
            Chunk& chunk = flow.chunks.front();
            if (chunk.due > Clock::now()) {
                co_await wait(flow.arrived, chunk.due);
                continue;
            }
            if (chunk.end) {
                pass_on_end(*connection, flow, chunk.end);
                co_return;
            }
            co_await pass_on_piece(connection, flow, chunk);
            if (chunk.passed == chunk.bytes.size()) {
                flow.queued -= chunk.bytes.size();
                flow.chunks.pop_front();
                flow.room.cancel();
            }
        }
    }

    void pass_on_end(Connection& connection, Flow& flow, const boost::system::error_code& end) {
        if (end == asio::error::eof) {
            boost::system::error_code ignored;
            flow.to.shutdown(asio::socket_base::shutdown_send, ignored);
        } else {
            connection.end(Cut::reset);
        }
        ++ends_;
    }

    asio::awaitable<void> pass_on_piece(Shared connection, Flow& flow, Chunk& chunk) {
        std::size_t size = chunk.bytes.size() - chunk.passed;
        if (piece_ != 0) {
            size = std::min(size, piece_);
        }
        std::optional<Cut> cut;
        const Side from = &flow == &connection->down ? Side::server : Side::client;
        if (cut_left_ && cut_from_ == from) {
            size = static_cast<std::size_t>(std::min<std::uint64_t>(size, *cut_left_));
            *cut_left_ -= size;
            if (*cut_left_ == 0) {
                cut = cut_how_;
                cut_left_.reset();
            }
        }
        if (size != 0 && !flow.ended) {
            flow.passed += size;  // before anybody can have it
            const auto piece = asio::buffer(chunk.bytes.data() + chunk.passed, size);
            auto written =
                co_await asio::async_write(flow.to, piece, asio::as_tuple(asio::use_awaitable));
            if (std::get<0>(written) && !flow.ended) {
                connection->close();
                co_return;
            }
        }
        chunk.passed += size;
        if (cut) {
            co_await do_cut(connection, *cut, size);
        } else if (piece_ != 0 && pause_ > Clock::duration::zero()) {
            asio::steady_timer timer(context_);
            co_await wait(timer, Clock::now() + pause_);
        }
    }

    asio::awaitable<void> do_cut(Shared connection, Cut how, std::size_t passed) {
        if (how == Cut::reset && passed != 0) {
            // The client reads what has passed, or most cuts would come at the same place.
            asio::steady_timer timer(context_);
            co_await wait(timer, Clock::now() + std::chrono::milliseconds(1));
        }
        connection->end(how);
        ++cuts_;
    }

    // What coroutines look at outlives the context, and so the coroutines.
    std::atomic<std::uint64_t> accepted_ = 0;
    std::atomic<std::size_t> open_ = 0;
    std::atomic<std::uint64_t> cuts_ = 0;
    std::atomic<std::uint64_t> ends_ = 0;
    std::atomic<std::uint64_t> to_server_ = 0;
    std::atomic<std::uint64_t> from_server_ = 0;
    std::list<std::weak_ptr<Connection>> connections_;
    asio::ip::tcp::endpoint target_;
    asio::ip::tcp::endpoint here_;
    bool swallows_ = false;
    Clock::duration delay_{};
    std::size_t piece_ = 0;
    Clock::duration pause_{};
    std::optional<std::uint64_t> cut_left_;
    Cut cut_how_ = Cut::orderly;
    Side cut_from_ = Side::server;
    bool refuses_ = false;

    asio::io_context context_{1};
    asio::executor_work_guard<asio::io_context::executor_type> guard_{context_.get_executor()};
    // Never listens; without it somebody else could get the port while the gate is switched off.
    asio::ip::tcp::acceptor holder_{context_};
    asio::ip::tcp::acceptor acceptor_{context_};
    std::thread thread_;
};

}  // namespace psycache::test
