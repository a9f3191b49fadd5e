#pragma once

/// @file
/// What a key may hold, by what its only writer was told.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <psycache/duration.hpp>

#include "soak/intervals.hpp"
#include "soak/values.hpp"

namespace psycache::soak {

/// What its caller knows of a write.
enum class Ending {
    pending,        ///< nothing yet
    acknowledged,   ///< it took effect
    undefined,      ///< it took effect, will take effect at any later time, or never
    without_effect  ///< it failed, and never takes effect
};

/// What a reader knew when it began.
struct Reading {
    Time begun;
    std::uint64_t floor = 0;  ///< the version that was acknowledged last; 0 for none
    Time floor_issued;
};

/// What remove may have found.
enum class Existed { no, yes, either };

/// A key, its writes and what reads of it may answer. It has one writer, which waits for the end of
/// each write, and any number of readers. Safe for threads.
class KeyModel {
  public:
    KeyModel(std::string key, const Circumstances& circumstances);

    const std::string& key() const { return key_; }

    /// @returns the version to be written.
    std::uint64_t begin_put(Duration ttl);
    void begin_remove();
    /// The write that has begun has ended.
    void end_write(Ending ending);
    /// What a remove that has begun may find.
    Existed existed() const;

    Reading begin_read() const;
    /// @returns what is wrong with the answer to a read, "" when it is right.
    std::string wrong(const Reading& reading, const std::optional<Stored>& answer) const;

    /// Whether so much about it is undefined that a fresh key shows more.
    bool blurred() const;

    /// All that is known of its writes, a line each.
    std::string history() const;

  private:
    struct Write {
        std::uint64_t version;
        bool remove;
        Duration ttl;
        Time issued;
        Time ended;
        Ending ending;
    };

    void begin(bool remove, Duration ttl);
    const Write* find(std::uint64_t version) const;
    std::string wrong_hit(const Reading& reading, const Stored& answer) const;
    std::string wrong_miss(const Reading& reading, Time answered) const;

    const std::string key_;
    const Circumstances& circumstances_;
    mutable std::mutex mutex_;
    std::uint64_t issued_ = 0;
    std::uint64_t floor_ = 0;
    Time floor_issued_;
    std::vector<Write> writes_;  // those that still matter, and some more to be printed
};

/// The current key of each of a number of slots. Safe for threads.
class Keys {
  public:
    Keys(std::size_t slots, const Circumstances& circumstances);

    std::size_t size() const { return current_.size(); }
    std::shared_ptr<KeyModel> current(std::size_t slot) const;
    /// Puts a fresh key into the slot. @returns the key that was there.
    std::shared_ptr<KeyModel> renew(std::size_t slot);

  private:
    std::shared_ptr<KeyModel> make(std::size_t slot);

    const Circumstances& circumstances_;
    mutable std::mutex mutex_;
    std::vector<unsigned> generations_;
    std::vector<std::shared_ptr<KeyModel>> current_;
};

}  // namespace psycache::soak
