#include "near/near_listener.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>
#include <utility>

#include "core/at_end.hpp"
#include "core/backoff.hpp"
#include "core/key_hash.hpp"
#include "operations/table.hpp"
#include "pg/parameters.hpp"

namespace psycache::detail {

namespace asio = boost::asio;

namespace {

/// After what is set up does not allow to listen.
constexpr std::chrono::seconds pause_after_refusal{5};
constexpr std::chrono::milliseconds shortest_pause{50};
constexpr std::chrono::milliseconds longest_pause{1000};
/// What a listener begins with may take longer than a proof, however short max_staleness is.
constexpr std::chrono::seconds least_patience{2};

constexpr std::string_view tested_key = "psycache";
constexpr std::int64_t triggers_wanted = 3;

/// In SQL: the number of the table, 0 if there is none; how many of its triggers are on; the number
/// of the session; and what the server makes of the tested key.
std::string facts() {
    return concat(
        {"coalesce(pg_catalog.to_regclass($1)::pg_catalog.oid::pg_catalog.int8, 0),"
         " (SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger WHERE tgrelid ="
         " pg_catalog.to_regclass($1) AND tgenabled IN ('O', 'A') AND tgname IN"
         " ('psycache_notify_update', 'psycache_notify_delete',"
         " 'psycache_notify_truncate')),"
         " pg_catalog.pg_backend_pid()::pg_catalog.int8, pg_catalog.hashtextextended('",
         tested_key, "', 0)"});
}

/// @returns a name that no other listener has.
std::string channel_of_its_own() {
    std::random_device random;
    return "psycache_proof_" + std::to_string(random()) + "_" + std::to_string(random());
}

}  // namespace

NearListener::NearListener(std::shared_ptr<NearCache> cache)
    : cache_(std::move(cache)),
      pool_(*cache_->place_->pool),
      look_(concat({"SELECT ", facts()}), {pg::Oid::text}, pg::Planned::each_time),
      prove_(concat({"SELECT ", facts(), ", pg_catalog.pg_notify($2, $3)"}),
             {pg::Oid::text, pg::Oid::text, pg::Oid::text}, pg::Planned::each_time),
      proofs_(channel_of_its_own()) {}

asio::awaitable<void> NearListener::run(std::shared_ptr<NearCache> cache) {
    NearListener listener(std::move(cache));
    asio::steady_timer pause(co_await asio::this_coro::executor);
    Backoff backoff{std::random_device()(), shortest_pause};
    for (;;) {
        Ending ending = Ending::lost;
        try {
            auto listening = listener.listen();
            ending = co_await std::move(listening);
        } catch (...) {
            // Cancelled, which the pause finds too; or out of memory or of descriptors: as good a
            // reason as any other to try again later.
            listener.serve_nothing();
        }
        if (ending == Ending::idle || listener.cache_->stopped_) {
            listener.serve_nothing();
            co_return;
        }
        if (listener.proven_) {
            backoff.succeeded();
            listener.proven_ = false;
        }
        backoff.failed(Clock::now(), longest_pause);
        pause.expires_at(ending == Ending::refused ? Clock::now() + pause_after_refusal
                                                   : backoff.next_attempt());
        co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
        if (listener.idle()) {
            listener.serve_nothing();
            co_return;
        }
    }
}

/// Opens a connection and listens on it for as long as that can be.
asio::awaitable<NearListener::Ending> NearListener::listen() {
    auto connecting = pool_.connect_beside(cache_->place_->executor);
    auto connected = co_await std::move(connecting);
    if (!connected) {
        co_return lose(connected.error().cause);
    }
    pg::Connection& connection = **connected;
    cache_->connection_ = &connection;
    const AtEnd gone([cache = cache_] { cache->connection_ = nullptr; });
    const PoolCore::Listening counted(cache_->place_->pool);
    auto beginning = begin_to_listen(connection);
    const std::optional<Ending> failed = co_await std::move(beginning);
    if (failed) {
        co_return *failed;
    }
    auto hearing = hear(connection);
    co_return co_await std::move(hearing);
}

/// @returns how it has failed, if it has.
asio::awaitable<std::optional<NearListener::Ending>> NearListener::begin_to_listen(
    pg::Connection& connection) {
    const TimePoint until = Clock::now() + patience();
    pg::Parameters parameters;
    parameters.borrow(cache_->table_);
    auto looking = connection.execute(look_, parameters, until);
    const pg::Answer facts = co_await std::move(looking);
    if (!facts || facts->size() != 1) {
        co_return lose("the server does not say whether the table has triggers");
    }
    table_ = facts->integer(0, 0);
    if (table_ == 0 || facts->integer(0, 1) != triggers_wanted) {
        co_return refuse(
            "the table has no triggers that tell of changes: make them with init_db and "
            "TableOptions::notify (psycache init-db --notify), or use Invalidation::none");
    }
    session_ = facts->integer(0, 2);
    hashes_agree_ = static_cast<std::uint64_t>(facts->integer(0, 3)) == key_hash(tested_key);
    changes_ = "psycache_" + std::to_string(table_);
    // A queue of notifications that was full stays so when those who held it up have read on: the
    // server looks after them only when it is asked for its usage.
    auto listening =
        connection.execute_script(concat({"LISTEN ", changes_, "; LISTEN ", proofs_,
                                          "; SELECT pg_catalog.pg_notification_queue_usage()"}),
                                  until);
    const pg::Answer listens = co_await std::move(listening);
    if (!listens) {
        co_return lose(listens.error().failure.cause);
    }
    established_ = false;
    if (session_ == connection.session()) {
        co_return std::nullopt;
    }
    auto hearing = hear_another(connection);
    co_return co_await std::move(hearing);
}

/// There is a pooler in between. One that lends its sessions for a transaction each passes on what
/// a session tells itself, by chance of having only one, and loses what others tell it between two
/// transactions: so another session has to tell.
/// @returns how it has failed, if it has.
asio::awaitable<std::optional<NearListener::Ending>> NearListener::hear_another(
    pg::Connection& connection) {
    auto connecting = pool_.connect_beside(cache_->place_->executor);
    auto another = co_await std::move(connecting);
    if (!another) {
        co_return lose(another.error().cause);
    }
    const TimePoint until = Clock::now() + patience();
    auto telling = (*another)->execute_script("NOTIFY " + proofs_ + ", 'another'", until);
    const pg::Answer told = co_await std::move(telling);
    if (!told) {
        co_return lose(told.error().failure.cause);
    }
    for (;;) {
        for (const pg::Notification& notification : connection.take_notifications()) {
            if (notification.channel == proofs_) {
                co_return std::nullopt;
            }
        }
        if (Clock::now() >= until) {
            co_return refuse(
                "a pooler in between does not keep sessions (PgBouncer in transaction mode), and "
                "notifications get lost: connect to the server itself, or use Invalidation::none");
        }
        auto waiting = connection.wait_for_input(until);
        const bool usable = co_await std::move(waiting);
        if (!usable) {
            co_return lose("the connection was lost");
        }
    }
}

asio::awaitable<NearListener::Ending> NearListener::hear(pg::Connection& connection) {
    ProofOfLife proof(cache_->options_.max_staleness);
    for (;;) {
        const TimePoint now = Clock::now();
        if (!proof.outstanding() && now >= proof.next()) {
            if (idle()) {
                co_return Ending::idle;
            }
            pg::Parameters parameters;
            parameters.borrow(cache_->table_);
            parameters.borrow(proofs_);
            parameters.own(proof.begin(now));
            auto proving = connection.execute(prove_, parameters, proof.too_late());
            const pg::Answer facts = co_await std::move(proving);
            if (!facts) {
                co_return lose(facts.error().failure.cause);
            }
            if (facts->size() != 1 || facts->integer(0, 0) != table_ ||
                facts->integer(0, 1) != triggers_wanted) {
                co_return lose("the table or its triggers are not those that were there");
            }
            if (facts->integer(0, 2) != session_) {
                co_return lose("a pooler in between has changed the session");
            }
        }
        take_notifications(connection, proof);
        if (proof.outstanding() && Clock::now() >= proof.too_late()) {
            co_return lose("a notification did not come back in time");
        }
        auto waiting =
            connection.wait_for_input(proof.outstanding() ? proof.too_late() : proof.next());
        const bool usable = co_await std::move(waiting);
        if (!usable) {
            co_return lose("the connection was lost");
        }
    }
}

void NearListener::take_notifications(pg::Connection& connection, ProofOfLife& proof) {
    for (const pg::Notification& notification : connection.take_notifications()) {
        if (notification.channel == changes_) {
            change(notification.payload);
        } else if (notification.channel == proofs_) {
            if (const auto until = proof.heard(notification.payload)) {
                if (!established_) {
                    establish();
                }
                serve_until(*until);
            }
        }
    }
}

void NearListener::change(std::string_view payload) {
    const Changes changes = read_changes(payload);
    if (changes.all || !hashes_agree_) {
        cache_->store_.forget_all();
        cache_->waits_->changed_all();
        return;
    }
    for (const std::uint64_t hash : changes.hashes) {
        cache_->store_.forget(hash);
        cache_->waits_->changed(hash);
    }
}

/// From here on every change is heard of; what was looked up before that is not to be kept.
void NearListener::establish() noexcept {
    serve_nothing();
    cache_->max_age_ = cache_->options_.max_age.count();
    established_ = true;
}

void NearListener::serve_until(TimePoint until) noexcept {
    proven_ = true;
    complained_.clear();
    cache_->lag_ = std::chrono::duration_cast<Duration>(Clock::now() -
                                                        (until - cache_->options_.max_staleness))
                       .count();
    serve(until.time_since_epoch().count());
}

/// Looks twice: the cache may be stopped at this very moment, after which nothing is served.
void NearListener::serve(std::int64_t until) noexcept {
    cache_->serve_until_ = until;
    if (cache_->stopped_) {
        cache_->serve_until_ = NearCache::never;
    }
}

Duration NearListener::patience() const noexcept {
    return std::max<Duration>(cache_->options_.max_staleness, least_patience);
}

void NearListener::serve_nothing() noexcept {
    cache_->serve_until_ = NearCache::never;
    cache_->store_.forget_all();
    serves_without_ = false;
}

NearListener::Ending NearListener::lose(const std::string& cause) {
    serve_nothing();
    complain(cause);
    return Ending::lost;
}

NearListener::Ending NearListener::refuse(const std::string& cause) {
    const Duration max_age = cache_->options_.fallback_max_age;
    if (max_age == Duration::zero()) {
        serve_nothing();
    } else if (!serves_without_) {
        serve_nothing();
        serves_without_ = true;
        cache_->max_age_ = max_age.count();
        serve(NearCache::always);
    }
    complain(cause);
    return Ending::refused;
}

/// @returns whether memory has been asked nothing for so long that nothing in it may be served.
bool NearListener::idle() {
    const std::uint64_t used = cache_->store_.statistics().hits + cache_->asked_;
    if (used != used_) {
        used_ = used;
        used_at_ = Clock::now();
    }
    return Clock::now() - used_at_ > cache_->options_.max_age;
}

/// Logs a cause once, until it has been overcome.
void NearListener::complain(const std::string& cause) {
    if (cause != complained_ && !cache_->stopped_) {
        complained_ = cause;
        cache_->observers_->log(LogLevel::warning, "the near cache hears of no changes: " + cause);
    }
}

}  // namespace psycache::detail
