#include "shards/shard_router.hpp"

#include <algorithm>

#include "batching/limits.hpp"

namespace psycache::detail {

namespace {

/// How long one may take to ask; then another one does.
constexpr std::chrono::seconds longest_look{5};

/// What the sessions on the servers of shards are set to.
std::vector<std::string> session_settings() {
    return {
        // A statement that is run where its rows are cannot set it for itself alone: what joins or
        // selects is no longer simple.
        concat({"SET lock_timeout = '", std::to_string(lock_wait.count()), "ms'"}),
        // Citus 13.2.1 and later keep a plan for every execution of a generic one, for ever.
        "SET plan_cache_mode = force_custom_plan",
    };
}

}  // namespace

ShardRouter::ShardRouter(std::shared_ptr<PoolCore> pool, const Table& table,
                         std::shared_ptr<const Observers> observers)
    : Router(table.distributed),
      pool_(std::move(pool)),
      table_(table),
      observers_(std::move(observers)),
      has_citus_(concat({"SELECT NOT ", Table::undistributed}), {}),
      is_distributed_(concat({"SELECT NOT ", table.is_local, ", to_regclass(",
                              quoted_literal(table.name), ") IS NOT NULL"}),
                      {}, pg::Planned::each_time),
      // A server without metadata cannot be asked, one that is being added not yet.
      shards_(
          "SELECT s.shardminvalue::int4, s.shardmaxvalue::int4, min(n.nodename),"
          " min(n.nodeport), count(*),"
          " bool_and(n.isactive AND n.hasmetadata AND n.metadatasynced)"
          " FROM pg_dist_partition AS t"
          " JOIN pg_dist_shard AS s ON s.logicalrelid = t.logicalrelid"
          " JOIN pg_dist_placement AS p ON p.shardid = s.shardid"
          " JOIN pg_dist_node AS n ON n.groupid = p.groupid AND n.noderole = 'primary'"
          " WHERE t.logicalrelid = to_regclass($1) AND t.partmethod = 'h'"
          " AND column_to_column_name(t.logicalrelid, t.partkey) = 'key'"
          " GROUP BY s.shardid, s.shardminvalue, s.shardmaxvalue",
          {pg::Oid::text}, pg::Planned::each_time),
      identity_(concat({"SELECT count(*), (SELECT system_identifier FROM pg_control_system())"
                        " FROM ",
                        table.name, " WHERE key = $1"}),
                {pg::Oid::text}, pg::Planned::each_time) {}

std::shared_ptr<const Route> ShardRouter::route_of(std::string_view key) {
    const std::lock_guard lock(mutex_);
    const auto shard = map_.find(key);
    if (!shard || *shard >= ways_.size()) {
        return nullptr;
    }
    const Ways& ways = ways_[*shard];
    return ways.direct && ways.direct->pool->reached() ? ways.direct : ways.around;
}

std::optional<Router::Question> ShardRouter::ask(bool shared_read, TimePoint now) {
    // The connections of an application are asked where there is a reason only.
    if (now < next_.load(std::memory_order_relaxed) || (!used() && (!shared_read || !pool_))) {
        return std::nullopt;
    }
    const std::lock_guard lock(mutex_);
    if (now < claimed_until_) {
        return std::nullopt;
    }
    claimed_until_ = now + longest_look;
    step_ = used() || table_.local ? Step::is_distributed : Step::has_citus;
    return question();
}

/// Under the lock.
std::optional<Router::Question> ShardRouter::question() {
    switch (step_) {
        case Step::has_citus:
            return Question{&has_citus_, std::nullopt};
        case Step::is_distributed:
            return Question{&is_distributed_, std::nullopt};
        case Step::shards:
            return Question{&shards_, table_.name};
        case Step::identity:
            break;
    }
    for (; pool_ && identifying_ < map_.servers().size(); ++identifying_) {
        const ShardMap::Address& server = map_.servers()[identifying_];
        const auto known = systems_.find({server.host, server.port});
        if (known == systems_.end()) {
            if (auto key = map_.key_on(identifying_)) {
                return Question{&identity_, std::move(*key)};
            }
        }
    }
    return std::nullopt;
}

std::optional<Router::Question> ShardRouter::answered(const pg::Answer& answer, TimePoint now) {
    const std::lock_guard lock(mutex_);
    if (step_ == Step::has_citus) {
        const bool has = answer && answer->size() == 1 && answer->bytes(0, 0) == "\x01";
        if (!has) {
            end(now + (answer ? plain_age : std::chrono::seconds(doubt_age)));
            return std::nullopt;
        }
        step_ = Step::is_distributed;
        return question();
    }
    if (step_ == Step::is_distributed) {
        // Where it fails the extension may be gone; or what has its catalog's name is none of it.
        const bool gone = !answer && answer.error().failure.code == Errc::table_missing;
        const bool distributes = answer && answer->size() == 1;
        const bool divided = distributes && answer->bytes(0, 0) == "\x01";
        const bool apart = distributes && !divided && answer->bytes(0, 1) == "\x01";
        if (divided) {
            table_.local = false;
            table_.distributed = true;
            step_ = Step::shards;
            return question();
        }
        if (gone || apart) {
            sure_until_ = now + doubt_age;
            table_.local = apart;
            table_.distributed = false;
            forget();
        }
        end(now + (apart ? plain_age : std::chrono::seconds(doubt_age)));
        return std::nullopt;
    }
    if (step_ == Step::shards) {
        if (!answer) {
            end(now + doubt_age);
            return std::nullopt;
        }
        read_shards(*answer);
        step_ = Step::identity;
        identifying_ = 0;
    } else {
        const ShardMap::Address& server = map_.servers()[identifying_];
        const bool good = answer && answer->size() == 1;
        systems_[{server.host, server.port}] = good ? answer->integer(0, 1) : 0;
        changed_ = true;
    }
    auto next = question();
    if (!next) {
        make_routes();
        end(now + map_age);
    }
    return next;
}

void ShardRouter::not_asked(TimePoint now) {
    const std::lock_guard lock(mutex_);
    end(now + doubt_age);
}

void ShardRouter::doubt(TimePoint now) {
    const TimePoint soon = now + doubt_age;
    const std::lock_guard lock(mutex_);
    // A server that was answered for may be another one by now.
    systems_.clear();
    if (next_.load(std::memory_order_relaxed) > soon) {
        next_ = soon;
    }
}

bool ShardRouter::suspect(TimePoint now) {
    const std::lock_guard lock(mutex_);
    if (now < sure_until_) {
        return false;
    }
    table_.distributed = true;
    next_ = TimePoint::min();
    return true;
}

std::size_t ShardRouter::servers() const {
    const std::lock_guard lock(mutex_);
    return servers_;
}

/// Under the lock.
void ShardRouter::end(TimePoint next) {
    next_ = next;
    claimed_until_ = TimePoint::min();
}

/// There are no shards. Under the lock.
void ShardRouter::forget() {
    map_ = ShardMap();
    changed_ = !ways_.empty();
    make_routes();
}

/// Under the lock.
void ShardRouter::read_shards(const pg::Rows& rows) {
    ShardMap map;
    for (std::size_t row = 0; row < rows.size(); ++row) {
        std::optional<ShardMap::Address> address;
        if (rows.integer(row, 4) == 1 && rows.bytes(row, 5) == "\x01") {
            address = ShardMap::Address{std::string(rows.bytes(row, 2)),
                                        std::to_string(rows.integer(row, 3))};
        }
        map.add(static_cast<std::int32_t>(rows.integer(row, 0)),
                static_cast<std::int32_t>(rows.integer(row, 1)), address);
    }
    map.seal();
    changed_ = changed_ || map != map_;
    map_ = std::move(map);
}

/// Under the lock.
void ShardRouter::make_routes() {
    if (!std::exchange(changed_, false)) {
        return;
    }
    std::vector<Node> nodes;
    std::vector<std::size_t> node_of(map_.servers().size());
    for (std::size_t i = 0; i < map_.servers().size(); ++i) {
        const ShardMap::Address& server = map_.servers()[i];
        const auto known = systems_.find({server.host, server.port});
        node_of[i] = nodes.size();
        if (known != systems_.end() && known->second != 0) {
            nodes.push_back(Node{server.host, server.port, known->second});
        } else {
            node_of[i] = map_.servers().size();
        }
    }
    ways_.clear();  // lets go of what is not wanted any longer
    std::vector<std::shared_ptr<PoolCore>> pools;
    if (pool_) {
        pools = pool_->reach(nodes, session_settings());
    }
    servers_ =
        pools.size() - static_cast<std::size_t>(std::count(pools.begin(), pools.end(), nullptr));
    for (const ShardMap::Shard& shard : map_.shards()) {
        std::shared_ptr<PoolCore> pool;
        if (shard.server && node_of[*shard.server] < pools.size()) {
            pool = pools[node_of[*shard.server]];
        }
        Ways ways;
        ways.direct = pool ? std::make_shared<const Route>(pool) : nullptr;
        ways.around = std::make_shared<const Route>(nullptr, std::move(pool));
        ways_.push_back(std::move(ways));
    }
    if (!map_.shards().empty() && !std::exchange(told_, true)) {
        observers_->log(
            LogLevel::debug,
            "table " + table_.name + " is distributed: " + std::to_string(map_.shards().size()) +
                " shards on " + std::to_string(map_.servers().size()) + " servers, of which " +
                std::to_string(servers_) +
                " get connections of their own (PoolOptions::max_size allows one to each, and one "
                "to the pool's own server)");
    }
}

}  // namespace psycache::detail
