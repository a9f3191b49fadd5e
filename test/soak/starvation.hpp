#pragma once

/// @file
/// How long the threads of this process were ready to run and could not.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "soak/intervals.hpp"

namespace psycache::soak {

/// Tells what the machine owes us from what is ours to answer for. Where the kernel does not tell,
/// the machine owes nothing. Safe for threads.
class Starvation {
  public:
    /// To be called ten times a second.
    void look() {
        const Waits now = waits();
        Clock::duration worst{};
        for (const auto& [thread, waited] : now) {
            const auto before = last_.find(thread);
            worst = std::max(worst, waited - (before == last_.end() ? waited : before->second));
        }
        last_ = now;
        const std::lock_guard lock(mutex_);
        samples_.emplace_back(Clock::now(), worst);
        while (samples_.size() > most_samples) {
            samples_.pop_front();
        }
    }

    /// How long the thread that was worst off at each time has waited since then, all together.
    Clock::duration since(Time then) const {
        const std::lock_guard lock(mutex_);
        Clock::duration all{};
        for (auto sample = samples_.rbegin(); sample != samples_.rend() && sample->first >= then;
             ++sample) {
            all += sample->second;
        }
        return all;
    }

  private:
    using Waits = std::map<std::string, Clock::duration>;

    static constexpr std::size_t most_samples = 1000;

    static Waits waits() {
        Waits found;
        std::error_code error;
        for (std::filesystem::directory_iterator i("/proc/self/task", error), end;
             !error && i != end; i.increment(error)) {
            std::ifstream file(i->path() / "schedstat");
            std::int64_t ran = 0;
            std::int64_t waited = 0;
            if (file >> ran >> waited) {
                found[i->path().filename()] = std::chrono::nanoseconds(waited);
            }
        }
        return found;
    }

    Waits last_;
    mutable std::mutex mutex_;
    std::deque<std::pair<Time, Clock::duration>> samples_;
};

}  // namespace psycache::soak
