#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "batching/router.hpp"
#include "core/observers.hpp"
#include "operations/table.hpp"
#include "pool/pool_core.hpp"
#include "shards/shard_map.hpp"

namespace psycache::detail {

/// The routes of a table that Citus may have distributed: one for each shard.
///
/// First it asks whether the server has Citus at all: when a table is read by calls that share a
/// statement, and from time to time; a put that the server guards finds it out as well. Then it
/// reads the shards of the table again and again, while calls come. Each server that has some is
/// asked once, through the cluster, who it is: only then is a connection opened to its address,
/// which may be another server's where this process runs.
class ShardRouter final : public Router {
  public:
    /// @param pool      leads to a server of the cluster, any one of them; null where it is an
    ///                  application's, which has no connections to others.
    /// @param table     outlives this.
    /// @param observers of the cache.
    ShardRouter(std::shared_ptr<PoolCore> pool, const Table& table,
                std::shared_ptr<const Observers> observers);

    std::shared_ptr<const Route> route_of(std::string_view key) override;
    std::optional<Question> ask(bool shared_read, TimePoint now) override;
    std::optional<Question> answered(const pg::Answer& answer, TimePoint now) override;
    void not_asked(TimePoint now) override;
    void doubt(TimePoint now) override;
    bool suspect(TimePoint now) override;
    std::size_t servers() const override;

    /// How often the shards are read again: what moves meanwhile costs more, and is right.
    static constexpr std::chrono::seconds map_age{10};
    /// How often a server without Citus is asked whether it has it now.
    static constexpr std::chrono::seconds plain_age{60};
    /// When to ask again after no answer, or an answer that a server has made doubtful.
    static constexpr std::chrono::seconds doubt_age{1};

  private:
    enum class Step { has_citus, is_distributed, shards, identity };
    using Known = std::map<std::pair<std::string, std::string>, std::int64_t>;

    std::optional<Question> question();
    void end(TimePoint next);
    void forget();
    void read_shards(const pg::Rows& rows);
    void make_routes();

    const std::shared_ptr<PoolCore> pool_;
    const Table& table_;
    const std::shared_ptr<const Observers> observers_;
    const pg::Statement has_citus_;
    const pg::Statement is_distributed_;
    const pg::Statement shards_;
    const pg::Statement identity_;

    std::atomic<TimePoint> next_{TimePoint::min()};  // when to ask; as far as it is looked at
    mutable std::mutex mutex_;
    TimePoint claimed_until_ = TimePoint::min();  // by one that asks
    TimePoint sure_until_ = TimePoint::min();     // that the table is not distributed
    Step step_ = Step::has_citus;
    ShardMap map_;
    bool changed_ = false;         // since routes were made
    std::size_t identifying_ = 0;  // the server of map_ that is being asked for
    Known systems_;                // of servers that have been asked; 0 where it is not known

    /// The two ways to the rows of a shard.
    struct Ways {
        std::shared_ptr<const Route> direct;  // null: there is none
        std::shared_ptr<const Route> around;  // through the cache's own pool
    };
    std::vector<Ways> ways_;  // of each shard
    std::size_t servers_ = 0;
    bool told_ = false;  // the log
};

}  // namespace psycache::detail
