#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace psycache::detail {

/// Those who wait for changes of keys by others. Safe for several threads.
class ChangeWaits : public std::enable_shared_from_this<ChangeWaits> {
  public:
    /// One who waits; it waits no more when it is destroyed.
    class Wait {
      public:
        Wait(std::shared_ptr<ChangeWaits> waits, std::vector<std::uint64_t> hashes,
             std::function<void()> wake)
            : waits_(std::move(waits)), hashes_(std::move(hashes)), wake_(std::move(wake)) {
            waits_->join(*this);
        }
        Wait(const Wait&) = delete;
        Wait& operator=(const Wait&) = delete;
        ~Wait() { waits_->leave(*this); }

        /// It looks at the keys: what has changed up to now it will see.
        void looks() noexcept { changed_ = false; }
        /// @returns whether any of the keys has changed since.
        bool changed() const noexcept { return changed_; }

      private:
        friend class ChangeWaits;

        const std::shared_ptr<ChangeWaits> waits_;
        const std::vector<std::uint64_t> hashes_;
        const std::function<void()> wake_;
        std::atomic<bool> changed_{false};
    };

    /// @param hashes of the keys. @param wake is called when one of them has changed, by any
    /// thread, and must do no more than pass it on.
    std::unique_ptr<Wait> wait_for(std::vector<std::uint64_t> hashes, std::function<void()> wake) {
        return std::make_unique<Wait>(shared_from_this(), std::move(hashes), std::move(wake));
    }

    void changed(std::uint64_t hash) {
        const std::lock_guard lock(mutex_);
        const auto [begin, end] = waits_.equal_range(hash);
        for (auto wait = begin; wait != end; ++wait) {
            tell(*wait->second);
        }
    }
    void changed_all() {
        const std::lock_guard lock(mutex_);
        for (const auto& [hash, wait] : waits_) {
            tell(*wait);
        }
    }

  private:
    static void tell(Wait& wait) {
        if (!wait.changed_.exchange(true)) {
            wait.wake_();
        }
    }
    void join(Wait& wait) {
        const std::lock_guard lock(mutex_);
        for (const std::uint64_t hash : wait.hashes_) {
            waits_.emplace(hash, &wait);
        }
    }
    void leave(Wait& wait) noexcept {
        const std::lock_guard lock(mutex_);
        for (const std::uint64_t hash : wait.hashes_) {
            const auto [begin, end] = waits_.equal_range(hash);
            for (auto its = begin; its != end; ++its) {
                if (its->second == &wait) {
                    waits_.erase(its);
                    break;
                }
            }
        }
    }

    std::mutex mutex_;
    std::unordered_multimap<std::uint64_t, Wait*> waits_;
};

}  // namespace psycache::detail
