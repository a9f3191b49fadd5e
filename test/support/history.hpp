#pragma once

/// @file
/// What callers did with a few keys, and whether what they saw can be explained.

#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace psycache::test {

/// Writes and reads of keys with the moments at which they began and ended, from any thread.
///
/// A read is explained by a write that began before the read ended, and that no later write has
/// replaced: one that began after it had ended, and was acknowledged before the read began. So a
/// write that its caller has left may take effect at any time, but not after a later one was
/// acknowledged.
class History {
  public:
    using Moment = std::uint64_t;
    static constexpr std::int64_t absent = -1;
    static constexpr Moment never = std::numeric_limits<Moment>::max();

    /// How a write ended.
    enum class Ending {
        acknowledged,
        left,     ///< by its caller: it may take effect
        unknown,  ///< with its connection: it may take effect at any time
    };

    Moment now() {
        const std::lock_guard lock(mutex_);
        return ++now_;
    }

    /// @param value another one for each put, or absent for a remove.
    void wrote(const std::string& key, std::int64_t value, Moment began, Ending ending) {
        const std::lock_guard lock(mutex_);
        ++now_;
        writes_[key].push_back(Write{value, began, ending == Ending::unknown ? never : now_,
                                     ending == Ending::acknowledged});
    }
    void read(const std::string& key, std::int64_t value, Moment began) {
        const std::lock_guard lock(mutex_);
        reads_[key].push_back(Read{value, began, ++now_});
    }

    /// @returns the keys that a read found in a way that nothing explains, with what was found.
    std::vector<std::string> unexplained() const {
        const std::lock_guard lock(mutex_);
        std::vector<std::string> found;
        for (const auto& [key, reads] : reads_) {
            for (const Read& read : reads) {
                if (!explained(key, read)) {
                    found.push_back(key + " was " + std::to_string(read.value) + " at " +
                                    std::to_string(read.began));
                }
            }
        }
        return found;
    }
    std::size_t reads() const {
        const std::lock_guard lock(mutex_);
        std::size_t sum = 0;
        for (const auto& [key, reads] : reads_) {
            sum += reads.size();
        }
        return sum;
    }

  private:
    struct Write {
        std::int64_t value;
        Moment began;
        Moment ended;
        bool acknowledged;
    };
    struct Read {
        std::int64_t value;
        Moment began;
        Moment ended;
    };

    bool explained(const std::string& key, const Read& read) const {
        static const std::vector<Write> none;
        const auto written = writes_.find(key);
        const auto& writes = written != writes_.end() ? written->second : none;
        const auto replaced = [&](Moment ended) {
            for (const Write& later : writes) {
                if (later.acknowledged && later.began > ended && later.ended < read.began) {
                    return true;
                }
            }
            return false;
        };
        if (read.value == absent && !replaced(0)) {
            return true;
        }
        for (const Write& write : writes) {
            if (write.value == read.value && write.began < read.ended && !replaced(write.ended)) {
                return true;
            }
        }
        return false;
    }

    mutable std::mutex mutex_;
    Moment now_ = 0;
    std::map<std::string, std::vector<Write>> writes_;
    std::map<std::string, std::vector<Read>> reads_;
};

}  // namespace psycache::test
