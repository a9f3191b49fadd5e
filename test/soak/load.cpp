#include "soak/load.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>
#include <numeric>
#include <utility>

namespace psycache::soak {

namespace {

/// How many of twenty coroutines call each of the asynchronous caches.
constexpr std::size_t shares[] = {9, 2, 6, 3};

constexpr std::size_t flood_per_caller = 3;

std::exception_ptr error_of_blocking(PostgresCache& cache, Call& call) {
    try {
        perform(cache, call);
    } catch (...) {
        return std::current_exception();
    }
    return nullptr;
}

asio::awaitable<std::exception_ptr> error_of(asio::awaitable<void> operation) {
    std::exception_ptr error;
    try {
        co_await std::move(operation);
    } catch (...) {
        error = std::current_exception();
    }
    co_return error;
}

/// The same for an operation that is cancelled after a while.
asio::awaitable<std::exception_ptr> error_of_cancelled(asio::awaitable<void> operation,
                                                       Duration after,
                                                       asio::cancellation_type type) {
    auto executor = co_await asio::this_coro::executor;
    auto started = test::start(executor, std::move(operation));
    co_await test::pause(after);
    started.cancel(type);
    auto ended = error_of(started.get());
    co_return co_await std::move(ended);
}

}  // namespace

Load::Load(Stage& stage, Field& field, std::size_t callers, std::uint32_t seed)
    : stage_(stage), field_(field), callers_(callers), seed_(seed) {
    const auto& actors = stage_.async_actors();
    std::vector<AsyncActor*> turns;
    for (std::size_t i = 0; i < actors.size(); ++i) {
        turns.insert(turns.end(), shares[i], actors[i].get());
    }
    for (std::size_t i = 0; i < callers; ++i) {
        AsyncActor& actor = *turns[i % turns.size()];
        start(actor, add_player(actor.subject), Times::many);
    }
    for (std::size_t i = 0; i < blocking_callers; ++i) {
        const auto player = add_player(stage_.blocking().subject);
        threads_.emplace_back([this, player] { call_on(stage_.blocking().cache, *player); });
    }
}

Load::~Load() {
    stop();
}

std::shared_ptr<Player> Load::add_player(Subject& subject) {
    std::vector<std::size_t> slots(slots_per_caller);
    std::iota(slots.begin(), slots.end(), players_.size() * slots_per_caller);
    players_.push_back(std::make_shared<Player>(field_, subject, seed_++, std::move(slots)));
    return players_.back();
}

void Load::start(AsyncActor& actor, std::shared_ptr<Player> player, Times times) {
    ++running_;
    const auto done = [this](std::exception_ptr error) {
        if (error) {
            field_.report.violations.report("a caller ended with an exception");
        }
        --running_;
    };
    asio::co_spawn(asio::make_strand(actor.threads.context()),
                   call_on(actor.cache, std::move(player), times), done);
}

asio::awaitable<void> Load::call_on(AsyncPostgresCache cache, std::shared_ptr<Player> player,
                                    Times times) {
    if (times == Times::many) {
        co_await test::pause(player->pause());
    }
    while (!stopping_) {
        const auto call = player->plan();
        const auto patience = player->patience();
        std::exception_ptr error;
        if (patience) {
            auto cancelled =
                error_of_cancelled(perform(cache, call), *patience, player->way_to_cancel());
            error = co_await std::move(cancelled);
        } else {
            auto whole = error_of(perform(cache, call));
            error = co_await std::move(whole);
        }
        player->conclude(*call, error, patience.has_value());
        if (times == Times::one) {
            co_return;
        }
        co_await test::pause(player->pause());
    }
}

void Load::call_on(PostgresCache& cache, Player& player) {
    while (!stopping_) {
        std::this_thread::sleep_for(player.pause() / 10);
        const auto call = player.plan();
        const auto error = error_of_blocking(cache, *call);
        player.conclude(*call, error, false);
    }
}

void Load::flood() {
    AsyncActor& actor = *stage_.async_actors().front();
    for (std::size_t i = 0; i < flood_per_caller * callers_; ++i) {
        start(actor,
              std::make_shared<Player>(field_, actor.subject, seed_++, std::vector<std::size_t>()),
              Times::one);
    }
}

void Load::watch() {
    for (const auto& player : players_) {
        player->watch();
    }
}

bool Load::stop() {
    stopping_ = true;
    for (auto& thread : threads_) {
        thread.join();
    }
    threads_.clear();
    return test::eventually([this] { return running_ == 0; }, 2 * test::patience);
}

}  // namespace psycache::soak
