// Runs coroutines on one thread, this one.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <exception>

namespace bench {

namespace asio = boost::asio;

/// Runs make(0), make(1) ... side by side until all have ended; throws what the first of them
/// threw.
template <class Make>
void run_to_end(asio::io_context& context, Make make, std::size_t count) {
    std::exception_ptr failure;
    for (std::size_t i = 0; i < count; ++i) {
        asio::co_spawn(context, make(i), [&failure](std::exception_ptr e) {
            if (e && !failure) {
                failure = e;
            }
        });
    }
    context.restart();
    context.run();
    if (failure) {
        std::rethrow_exception(failure);
    }
}

}  // namespace bench
