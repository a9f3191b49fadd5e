#include "pg/resolve.hpp"

#include <netdb.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

#include "core/at_end.hpp"
#include "pg/background.hpp"

namespace psycache::detail::pg {

namespace {

constinit Background resolving;

/// What the system says about a name.
struct Addresses {
    std::vector<std::string> found;
    std::string error;  // why there is none
};

/// Blocks for as long as the name servers are silent.
Addresses ask_system(const std::string& name) {
    Addresses answer;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (const int error = ::getaddrinfo(name.c_str(), nullptr, &hints, &list); error != 0) {
        answer.error = error == EAI_SYSTEM ? std::generic_category().message(errno)
                                           : std::string(::gai_strerror(error));
        return answer;
    }
    const AtEnd free_list([list] { ::freeaddrinfo(list); });
    for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
        std::array<char, NI_MAXHOST> text{};
        if (::getnameinfo(one->ai_addr, one->ai_addrlen, text.data(), text.size(), nullptr, 0,
                          NI_NUMERICHOST) == 0) {
            answer.found.emplace_back(text.data());
        }
    }
    return answer;
}

/// A look-up by a thread in the background, for a coroutine that may stop waiting at any time: when
/// its time is over, and when its context is destroyed.
class Lookup : public std::enable_shared_from_this<Lookup> {
  public:
    /// @param sleeper of the coroutine that waits; it is cancelled when there is an answer.
    explicit Lookup(asio::steady_timer& sleeper) : sleeper_(&sleeper) {}

    void begin(const std::string& name) {
        const bool taken = resolving.run(name, [self = shared_from_this(), name] {
            if (self->wanted()) {
                self->answer(ask_system(name));
            }
        });
        if (!taken) {
            answer_.emplace().error = "too many look-ups are waiting for an answer";
        }
    }
    /// The coroutine waits no longer. Its context may be gone when this has returned.
    void leave() {
        const std::lock_guard lock(mutex_);
        sleeper_ = nullptr;
    }
    /// @returns the answer, if it has come.
    std::optional<Addresses> take() {
        const std::lock_guard lock(mutex_);
        return std::exchange(answer_, std::nullopt);
    }

  private:
    bool wanted() {
        const std::lock_guard lock(mutex_);
        return sleeper_ != nullptr;
    }
    void answer(Addresses addresses) {
        // The executor is touched under the lock only: a coroutine that leaves waits for its end.
        const std::lock_guard lock(mutex_);
        answer_ = std::move(addresses);
        if (sleeper_ != nullptr) {
            asio::post(sleeper_->get_executor(), [self = shared_from_this()] { self->wake(); });
        }
    }
    /// Runs where the coroutine does.
    void wake() {
        const std::lock_guard lock(mutex_);
        if (sleeper_ != nullptr) {
            sleeper_->cancel();
        }
    }

    std::mutex mutex_;
    asio::steady_timer* sleeper_;
    std::optional<Addresses> answer_;
};

/// @returns nothing when the watch fired first.
asio::awaitable<std::optional<Addresses>> look_up(std::string name, Watch& watch) {
    asio::steady_timer sleeper(co_await asio::this_coro::executor,
                               std::chrono::steady_clock::time_point::max());
    const auto lookup = std::make_shared<Lookup>(sleeper);
    const AtEnd leave([&] { lookup->leave(); });
    lookup->begin(name);
    std::optional<Addresses> answer = lookup->take();
    if (!answer) {
        const Watch::Guard<asio::steady_timer> guard(watch, sleeper);
        co_await sleeper.async_wait(asio::as_tuple(asio::use_awaitable));
        answer = lookup->take();
    }
    co_return answer;
}

}  // namespace

asio::awaitable<Result<std::vector<Host>>> resolve(const std::vector<Host>& hosts, Watch& watch,
                                                   TimePoint deadline) {
    const asio::any_io_executor strand = co_await asio::this_coro::executor;
    std::vector<Host> resolved;
    std::string unknown;
    auto left = static_cast<int>(hosts.size());
    for (const Host& host : hosts) {
        const int shares = left-- + (resolved.empty() ? 0 : 1);
        if (!needs_resolving(host)) {
            resolved.push_back(host);
            continue;
        }
        const auto now = std::chrono::steady_clock::now();
        watch.arm(now + (deadline - now) / shares, strand);
        auto asked = look_up(host.name, watch);
        const std::optional<Addresses> answer = co_await std::move(asked);
        if (!answer) {
            unknown =
                "cannot connect to the server: resolving host \"" + host.name + "\" took too long";
            continue;
        }
        if (!answer->error.empty()) {
            unknown = "cannot connect to the server: host name \"" + host.name +
                      "\" cannot be resolved (" + answer->error + ")";
            continue;
        }
        for (const std::string& address : answer->found) {
            Host one = host;
            one.address = address;
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
    watch.disarm();
    co_return resolved;
}

}  // namespace psycache::detail::pg
