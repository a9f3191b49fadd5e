#pragma once

/// @file
/// The callers: coroutines and threads that call the caches until they are told to stop.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "soak/player.hpp"
#include "soak/stage.hpp"

namespace psycache::soak {

class Load {
  public:
    static constexpr std::size_t slots_per_caller = 3;
    static constexpr std::size_t blocking_callers = 4;
    /// How many slots there must be for so many coroutines.
    static std::size_t slots(std::size_t callers) {
        return slots_per_caller * (callers + blocking_callers);
    }

    /// Starts the callers. @param callers how many are coroutines
    Load(Stage& stage, Field& field, std::size_t callers, std::uint32_t seed);
    Load(const Load&) = delete;
    Load& operator=(const Load&) = delete;
    ~Load();

    /// Lets a great number of further callers make a call each, all at once.
    void flood();
    /// To be called now and then: reports calls that do not end.
    void watch();
    /// @returns whether all callers have ended in time.
    bool stop();

  private:
    enum class Times { one, many };

    std::shared_ptr<Player> add_player(Subject& subject);
    void start(AsyncActor& actor, std::shared_ptr<Player> player, Times times);
    asio::awaitable<void> call_on(AsyncPostgresCache cache, std::shared_ptr<Player> player,
                                  Times times);
    void call_on(PostgresCache& cache, Player& player);

    Stage& stage_;
    Field& field_;
    const std::size_t callers_;
    std::atomic<std::uint32_t> seed_;
    std::atomic<bool> stopping_ = false;
    std::atomic<std::size_t> running_ = 0;
    std::vector<std::shared_ptr<Player>> players_;
    std::vector<std::thread> threads_;
};

}  // namespace psycache::soak
