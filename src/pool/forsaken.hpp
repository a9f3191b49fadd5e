#pragma once

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

namespace psycache::detail {

/// The server's processes whose statements were given up without an answer. Pools of one cache
/// share it: one that opens a connection next tells the server.
class Forsaken {
  public:
    Forsaken() { backends_.reserve(most); }

    void add(int backend) noexcept {
        const std::lock_guard lock(mutex_);
        if (backends_.size() < most) {
            backends_.push_back(backend);
        }
    }
    /// Takes out all of them.
    std::vector<int> take() {
        std::vector<int> taken;
        taken.reserve(most);
        const std::lock_guard lock(mutex_);
        taken.swap(backends_);
        return taken;
    }

  private:
    /// More than these are left to the server.
    static constexpr std::size_t most = 64;

    std::mutex mutex_;
    std::vector<int> backends_;  // has room for all of them
};

}  // namespace psycache::detail
