#include "pg/cancel.hpp"

#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "pg/background.hpp"

namespace psycache::detail::pg {

namespace {

constinit Background cancelling;

/// @returns what tells the server of a connection from all others.
std::string server_of(int socket) {
    sockaddr_storage address{};
    socklen_t length = sizeof(address);
    ::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &length);
    return {reinterpret_cast<const char*>(&address),
            std::min<std::size_t>(length, sizeof(address))};
}

}  // namespace

/// One request on its way.
class Cancel::Request {
  public:
    Request(std::shared_ptr<Cancel> cancel, int socket)
        : cancel_(std::move(cancel)), socket_(::fcntl(socket, F_DUPFD_CLOEXEC, 0)) {
        ++cancel_->under_way_;
    }
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    ~Request() {
        if (socket_ >= 0) {
            ::close(socket_);
        }
        --cancel_->under_way_;
    }

    /// Returns when the server has told the backend: so the request hits nothing that is sent
    /// later.
    void send(Ask how) const noexcept {
        for (int asked = 0; asked < 4; ++asked) {
            std::array<char, 256> why{};
            const bool taken =
                PQcancel(cancel_->key_, why.data(), static_cast<int>(why.size())) == 1;
            if (!taken || how == Ask::once || has_ended()) {
                return;
            }
        }
    }

  private:
    /// Waits a moment for the end of the statement. The answer is not read, and reading may
    /// have been shut down: then there is no other sign but the bytes, or the end of the
    /// connection.
    bool has_ended() const noexcept {
        for (int look = 0; look < 50; ++look) {
            int answered = 0;
            if (::ioctl(socket_, FIONREAD, &answered) != 0 || answered > 0) {
                return true;
            }
            pollfd watched{socket_, 0, 0};
            if (::poll(&watched, 1, 2) > 0) {
                return true;
            }
        }
        return false;
    }

    const std::shared_ptr<Cancel> cancel_;
    const int socket_;
};

Cancel::Cancel(pg_conn* connection) : key_(PQgetCancel(connection)) {}

Cancel::~Cancel() {
    PQfreeCancel(key_);
}

void Cancel::send(int socket, Ask how) noexcept {
    if (key_ == nullptr) {
        return;
    }
    try {
        const auto request = std::make_shared<Request>(shared_from_this(), socket);
        cancelling.run(server_of(socket), [request, how] { request->send(how); });
    } catch (...) {
        // Out of memory: the statement ends by itself, or with its connection.
    }
}

}  // namespace psycache::detail::pg
