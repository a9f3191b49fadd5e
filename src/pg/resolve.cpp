#include "pg/resolve.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace psycache::pg {

namespace {

using Tcp = asio::ip::tcp;

}  // namespace

asio::awaitable<Result<std::vector<Host>>> resolve(const std::vector<Host>& hosts, Watch& watch) {
    if (std::none_of(hosts.begin(), hosts.end(), needs_resolving)) {
        co_return hosts;
    }
    // Made only when there is a name: a resolver starts a thread for its context.
    Tcp::resolver resolver(co_await asio::this_coro::executor);
    const Watch::Guard<Tcp::resolver> guard(watch, resolver);
    std::vector<Host> resolved;
    std::string unknown;
    for (const Host& host : hosts) {
        if (!needs_resolving(host)) {
            resolved.push_back(host);
            continue;
        }
        auto answer =
            co_await resolver.async_resolve(host.name, "", asio::as_tuple(asio::use_awaitable));
        if (watch.fired()) {
            co_return Failure(
                Errc::connect_failed,
                "cannot connect to the server: resolving host \"" + host.name + "\" took too long");
        }
        const auto& [error, endpoints] = answer;
        if (error) {
            unknown = "cannot connect to the server: host name \"" + host.name +
                      "\" cannot be resolved (" + error.message() + ")";
            continue;
        }
        for (const auto& endpoint : endpoints) {
            Host one = host;
            one.address = endpoint.endpoint().address().to_string();
            if (std::none_of(resolved.begin(), resolved.end(), [&](const Host& known) {
                    return known.address == one.address && known.port == one.port;
                })) {
                resolved.push_back(std::move(one));
            }
        }
    }
    if (resolved.empty()) {
        co_return Failure(Errc::connect_failed, unknown);
    }
    co_return resolved;
}

}  // namespace psycache::pg
