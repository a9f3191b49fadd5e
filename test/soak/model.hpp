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

/// What a write does to an entry.
enum class Effect {
    put,
    touch,  ///< its value stays
    merge,  ///< its expiry stays, and its value but for one member
    remove
};

/// What its caller knows of a write.
enum class Ending {
    pending,        ///< nothing yet
    acknowledged,   ///< it took effect
    settled,        ///< it took effect before it ended, or never does
    undefined,      ///< it took effect, will take effect at any later time, or never
    without_effect  ///< it never takes effect: it failed, or there was nothing to do
};

/// What a reader knew when it began: versions of acknowledged writes, 0 for none.
struct Reading {
    Time begun;
    std::uint64_t floor = 0;   ///< the last one that put or removed
    std::uint64_t setter = 0;  ///< the last one that put, touched or removed
    Time setter_issued;
    std::uint64_t merged = 0;  ///< the last one that merged since the floor
};

/// What a write may have found.
enum class Existed { no, yes, either };

/// What is looked for: what has expired can still be there.
enum class Sought { live, any };

/// The value that was stored last, as far as its writer was told.
struct Held {
    std::uint64_t version;
    std::size_t size;
    std::uint64_t merged;
    bool certain;  ///< whether it can be no other one, if there is an entry
};

/// A key, its writes and what reads of it may answer. It has one writer, which waits for the end of
/// each write, and any number of readers. Safe for threads.
class KeyModel {
  public:
    KeyModel(std::string key, const Circumstances& circumstances);

    const std::string& key() const { return key_; }
    /// What it has in common with other keys of its slot, and with no other one.
    std::string prefix() const { return key_.substr(0, key_.rfind('.') + 1); }

    /// @param size as that of make_value. @returns the version to be written.
    std::uint64_t begin_put(Duration ttl, std::size_t size, bool tagged);
    void begin_touch(Duration ttl);
    /// @returns the version of the member to be merged.
    std::uint64_t begin_merge();
    void begin_remove();
    /// The write that has begun has ended.
    void end_write(Ending ending);
    /// What a write that has begun may find.
    Existed found(Sought sought) const;
    /// Whether remove_tag, which has begun, may find it; "no" if it was never put with the tag.
    Existed tagged() const;
    std::optional<Held> held() const;

    Reading begin_read() const;
    /// @returns what is wrong with the answer to a read, "" when it is right.
    std::string wrong(const Reading& reading, const std::optional<Stored>& answer) const;
    /// The same for what is left of its time to live.
    std::string wrong_left(const Reading& reading, const std::optional<Duration>& left) const;

    /// Whether so much about it is undefined that a fresh key shows more.
    bool blurred() const;

    /// All that is known of its writes, a line each.
    std::string history() const;

  private:
    struct Write {
        std::uint64_t version;
        Effect effect;
        Ending ending;
        Duration ttl;  // of a put or a touch
        std::size_t size;
        bool tagged;
        Time issued;
        Time ended;
    };

    std::uint64_t begin(Effect effect, Duration ttl, std::size_t size = 0, bool tagged = false);
    bool matters(const Write& write) const;
    const Write* find(std::uint64_t version) const;
    Existed found_now(Sought sought) const;
    std::string wrong_hit(const Reading& reading, const Stored& answer, Time answered) const;
    std::string wrong_member(const Reading& reading, const Stored& answer, const Write* put) const;
    std::string wrong_miss(const Reading& reading, Time answered) const;
    Time latest_end(const Write& put, const Reading& reading, Time answered) const;
    static bool possible(const Write& write, const Reading& reading);

    const std::string key_;
    const Circumstances& circumstances_;
    mutable std::mutex mutex_;
    std::uint64_t issued_ = 0;
    Reading last_;         // what a reader knows that begins now, but for the time
    bool tagged_ = false;  // whether what is there has the tag, if nothing has happened to it
    bool ever_tagged_ = false;
    Time forgotten_;             // when the last one ended of the writes that are no longer kept
    std::vector<Write> writes_;  // those that still matter, and some more to be printed
};

/// The keys of a number of slots, one of each current. Safe for threads.
class Keys {
  public:
    Keys(std::size_t slots, const Circumstances& circumstances);

    std::size_t size() const { return slots_.size(); }
    std::shared_ptr<KeyModel> current(std::size_t slot) const;
    /// Puts a fresh key into the slot, with another prefix if it shall have that. @returns the key
    /// that was there.
    std::shared_ptr<KeyModel> renew(std::size_t slot, bool another_prefix);
    /// The current key of a slot, and those before it that anybody still judges answers by.
    std::vector<std::shared_ptr<KeyModel>> known(std::size_t slot);
    /// How many more keys the slot has had.
    std::size_t forgotten(std::size_t slot);

  private:
    struct Slot {
        unsigned prefix = 0;
        unsigned generation = 0;
        std::shared_ptr<KeyModel> current;
        std::vector<std::weak_ptr<KeyModel>> older;
        std::size_t forgotten = 0;
    };

    void make(std::size_t number);
    static void forget(Slot& slot);

    const Circumstances& circumstances_;
    mutable std::mutex mutex_;
    std::vector<Slot> slots_;
};

}  // namespace psycache::soak
