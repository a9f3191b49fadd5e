#pragma once

#include <atomic>
#include <memory>

struct pg_conn;
struct pg_cancel;

namespace psycache::detail::pg {

/// The way to have cancelled what runs on one connection: libpq's cancel key, which names the
/// connection's own backend and nothing else, through whatever stands between, and needs no right.
///
/// libpq connects, sends and waits without a time limit. That is done by a few threads in the
/// background, at most two for each server, so that a server which says nothing costs two threads
/// and some file descriptors until it speaks or TCP gives it up.
class Cancel : public std::enable_shared_from_this<Cancel> {
  public:
    /// Takes the key of an open connection, which is the same for as long as that lives.
    explicit Cancel(pg_conn* connection);
    Cancel(const Cancel&) = delete;
    Cancel& operator=(const Cancel&) = delete;
    ~Cancel();

    /// How often the server is asked.
    enum class Ask {
        once,        ///< the connection is still in use
        until_ended  ///< a few times, until there is an answer: a request that overtakes its
                     ///< statement hits nothing
    };

    /// Has a request sent; returns at once. Whether it changes anything is not reported: what was
    /// to be cancelled may have ended.
    /// @param socket of the connection. It stays open until the request has been taken, since a
    ///               pooler forgets the key when its client leaves.
    void send(int socket, Ask how) noexcept;

    /// Whether a request is on its way: it may hit what is run next.
    bool under_way() const noexcept { return under_way_.load() > 0; }

  private:
    class Request;

    pg_cancel* const key_;  // null: the server has none, or there is no memory
    std::atomic<int> under_way_{0};
};

}  // namespace psycache::detail::pg
