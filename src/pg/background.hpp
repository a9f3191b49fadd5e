#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <string>

namespace psycache::detail::pg {

/// Threads for what blocks and cannot be told to stop, so that no caller waits for it. They are
/// detached: each begins when there is something to do, and ends when there is nothing more.
///
/// What hangs keeps a few threads for as long as it hangs, and a few more jobs waiting, but no more
/// than that; what is about another thing, such as another server, still finds a thread.
///
/// One for each purpose, of static storage duration; its destruction does nothing, since threads
/// may outlive it. A forked child begins with no thread and no job. May be used from any thread.
class Background {
  public:
    static constexpr std::size_t most_threads = 8;   ///< at once
    static constexpr std::size_t most_alike = 2;     ///< of them, for the same thing
    static constexpr std::size_t most_waiting = 32;  ///< beside those, for the same thing

    constexpr Background() = default;
    Background(const Background&) = delete;
    Background& operator=(const Background&) = delete;

    /// Has @p job run soon; it must not throw. It owns what it needs: it may run when everything
    /// else is gone, and is destroyed by the thread that has run it.
    /// @param about what the job is about: no more than most_alike about the same run at once.
    /// @returns false if too many of those wait already, or there is no memory or no thread for it.
    bool run(std::string about, std::function<void()> job) noexcept;

  private:
    struct State;

    State& state();
    static void work(State& state) noexcept;

    std::atomic<State*> state_{nullptr};
};

}  // namespace psycache::detail::pg
