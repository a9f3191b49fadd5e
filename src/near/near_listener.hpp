#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>

#include "near/near_cache.hpp"
#include "near/proof_of_life.hpp"

namespace psycache::detail {

/// The connection on which a near cache hears of changes: opens it, listens, proves that it hears,
/// and begins anew when it does not.
class NearListener {
  public:
    /// Runs on the strand of @p cache until that is stopped, or has not been used for max_age.
    static boost::asio::awaitable<void> run(std::shared_ptr<NearCache> cache);

  private:
    /// How listening on one connection has ended.
    enum class Ending {
        lost,     ///< the connection, or what it heard of
        refused,  ///< as things are set up nothing can be heard
        idle      ///< the near cache has not been used
    };
    explicit NearListener(std::shared_ptr<NearCache> cache);

    boost::asio::awaitable<Ending> listen();
    boost::asio::awaitable<std::optional<Ending>> begin_to_listen(pg::Connection& connection);
    boost::asio::awaitable<std::optional<Ending>> hear_another(pg::Connection& connection);
    boost::asio::awaitable<Ending> hear(pg::Connection& connection);
    void take_notifications(pg::Connection& connection, ProofOfLife& proof);
    void change(std::string_view payload);
    void establish() noexcept;
    void serve_until(TimePoint until) noexcept;
    void serve(std::int64_t until) noexcept;
    Duration patience() const noexcept;
    void serve_nothing() noexcept;
    Ending refuse(const std::string& cause);
    Ending lose(const std::string& cause);
    bool idle();
    void complain(const std::string& cause);

    const std::shared_ptr<NearCache> cache_;
    PoolCore& pool_;
    const pg::Statement look_;
    const pg::Statement prove_;
    const std::string proofs_;  // the channel of this listener alone
    std::string changes_;       // that of the table's triggers
    std::int64_t table_ = 0;    // its number
    std::int64_t session_ = 0;  // that of the server that listens
    bool hashes_agree_ = true;
    bool serves_without_ = false;
    bool established_ = false;  // on this connection
    bool proven_ = false;       // since the last pause
    std::uint64_t used_ = 0;
    TimePoint used_at_ = Clock::now();
    std::string complained_;
};

}  // namespace psycache::detail
