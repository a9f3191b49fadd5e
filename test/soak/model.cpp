#include "soak/model.hpp"

#include <algorithm>
#include <cstdio>

namespace psycache::soak {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t most_writes = 48;
constexpr std::size_t most_undefined = 6;
// The clock of the server's expiry is another one than ours, and is set now and then.
constexpr auto clock_tolerance = 1s;

bool finite(Duration ttl) {
    return ttl != no_expiry;
}

/// When an entry expires that got its ttl then.
Time expiry(Time then, Duration ttl) {
    return finite(ttl) ? then + ttl : Time::max();
}

bool surely_past(Time expiry, Time now) {
    return expiry != Time::max() && expiry + clock_tolerance < now;
}

bool perhaps_past(Time expiry, Time now) {
    return expiry <= now + clock_tolerance;
}

const char* name_of(Effect effect) {
    static constexpr const char* names[] = {"put", "touch", "merge", "remove"};
    return names[static_cast<int>(effect)];
}

const char* name_of(Ending ending) {
    switch (ending) {
        case Ending::pending:
            return "not ended";
        case Ending::acknowledged:
            return "acknowledged";
        case Ending::settled:
            return "settled";
        case Ending::undefined:
            return "undefined";
        case Ending::without_effect:
            return "without effect";
    }
    return "";
}

std::string version_text(std::uint64_t version) {
    return "version " + std::to_string(version);
}

}  // namespace

KeyModel::KeyModel(std::string key, const Circumstances& circumstances)
    : key_(std::move(key)), circumstances_(circumstances) {
    // Written to once, so that a long life takes no more memory than a short one.
    writes_.resize(most_writes + 1);
    writes_.clear();
}

std::uint64_t KeyModel::begin_put(Duration ttl, std::size_t size, bool tagged) {
    return begin(Effect::put, ttl, size, tagged);
}

void KeyModel::begin_touch(Duration ttl) {
    begin(Effect::touch, ttl);
}

std::uint64_t KeyModel::begin_merge() {
    return begin(Effect::merge, no_expiry);
}

void KeyModel::begin_remove() {
    begin(Effect::remove, no_expiry);
}

/// Whether the state of the entry cannot be told without a write that has ended.
bool KeyModel::matters(const Write& write) const {
    return write.ending == Ending::undefined || write.version == last_.floor ||
           write.version == last_.setter ||
           (write.ending == Ending::settled && write.version > last_.setter);
}

std::uint64_t KeyModel::begin(Effect effect, Duration ttl, std::size_t size, bool tagged) {
    const std::lock_guard lock(mutex_);
    if (writes_.size() >= most_writes) {
        const auto oldest = std::find_if(writes_.begin(), writes_.end(),
                                         [this](const Write& write) { return !matters(write); });
        if (oldest != writes_.end()) {
            forgotten_ = std::max(forgotten_, oldest->ended);
            writes_.erase(oldest);
        }
    }
    ever_tagged_ = ever_tagged_ || tagged;
    writes_.push_back(
        Write{++issued_, effect, Ending::pending, ttl, size, tagged, Clock::now(), Time::max()});
    return issued_;
}

void KeyModel::end_write(Ending ending) {
    const std::lock_guard lock(mutex_);
    Write& write = writes_.back();
    if (ending == Ending::acknowledged) {
        if (write.effect == Effect::merge) {
            last_.merged = write.version;
        } else {
            // A cleanup takes the tags of what is gone, also if it is there again afterwards.
            tagged_ = write.effect != Effect::remove &&
                      (write.tagged || (tagged_ && found_now(Sought::any) == Existed::yes));
            last_.setter = write.version;
            last_.setter_issued = write.issued;
        }
        if (write.effect == Effect::put || write.effect == Effect::remove) {
            last_.floor = write.version;
            last_.merged = 0;
        }
    }
    write.ended = Clock::now();
    write.ending = ending;
}

Existed KeyModel::found(Sought sought) const {
    const std::lock_guard lock(mutex_);
    return found_now(sought);
}

Existed KeyModel::found_now(Sought sought) const {
    const auto now = Clock::now();
    Existed before = Existed::no;
    const Write* setter = nullptr;
    for (const Write& write : writes_) {
        if (write.effect == Effect::merge) {
            continue;
        }
        if (write.ending == Ending::undefined) {
            return Existed::either;
        }
        if (write.ending == Ending::settled && before == Existed::yes) {
            before = Existed::either;
        }
        if (write.ending == Ending::acknowledged) {
            before = write.effect == Effect::remove ? Existed::no : Existed::yes;
            setter = &write;
        }
    }
    if (before == Existed::no) {
        return before;
    }
    if (sought == Sought::live &&
        surely_past(expiry(setter->ended, setter->ttl), writes_.back().issued)) {
        return Existed::no;
    }
    // A cleanup deletes what has expired.
    const bool perhaps_gone = perhaps_past(expiry(setter->issued, setter->ttl), now) ||
                              circumstances_.emptied.touch(setter->issued, now);
    return perhaps_gone ? Existed::either : before;
}

Existed KeyModel::tagged() const {
    const std::lock_guard lock(mutex_);
    if (!ever_tagged_) {
        return Existed::no;
    }
    return tagged_ && found_now(Sought::any) == Existed::yes ? Existed::yes : Existed::either;
}

std::optional<Held> KeyModel::held() const {
    const std::lock_guard lock(mutex_);
    const Write* put = find(last_.floor);
    if (put == nullptr || put->effect != Effect::put) {
        return std::nullopt;
    }
    const bool certain = std::none_of(writes_.begin(), writes_.end(), [](const Write& write) {
        return write.ending == Ending::undefined;
    });
    return Held{put->version, put->size, last_.merged, certain};
}

Reading KeyModel::begin_read() const {
    const std::lock_guard lock(mutex_);
    Reading reading = last_;
    reading.begun = Clock::now();
    return reading;
}

std::string KeyModel::wrong(const Reading& reading, const std::optional<Stored>& answer) const {
    const auto now = Clock::now();
    const std::lock_guard lock(mutex_);
    return answer ? wrong_hit(reading, *answer, now) : wrong_miss(reading, now);
}

std::string KeyModel::wrong_left(const Reading& reading,
                                 const std::optional<Duration>& left) const {
    const auto now = Clock::now();
    const std::lock_guard lock(mutex_);
    if (!left) {
        return wrong_miss(reading, now);
    }
    if (*left <= Duration::zero()) {
        return "an entry that has expired";
    }
    if (reading.begun < forgotten_) {
        return "";
    }
    for (const Write& write : writes_) {
        if (!possible(write, reading) || write.effect == Effect::merge ||
            write.effect == Effect::remove || finite(write.ttl) != finite(*left)) {
            continue;
        }
        const Time last = write.ending == Ending::undefined ? now : std::min(write.ended, now);
        if (!finite(*left) || (write.issued + write.ttl - now <= *left + clock_tolerance &&
                               *left <= last + write.ttl - reading.begun + clock_tolerance)) {
            return "";
        }
    }
    return "an expiry that no write has set: " +
           (finite(*left) ? std::to_string(left->count() / 1000) + " ms are left" : "none");
}

const KeyModel::Write* KeyModel::find(std::uint64_t version) const {
    const auto write = std::find_if(writes_.begin(), writes_.end(),
                                    [version](const Write& one) { return one.version == version; });
    return write == writes_.end() ? nullptr : &*write;
}

/// Whether a write may have taken effect after those which a reader knew.
bool KeyModel::possible(const Write& write, const Reading& reading) {
    return write.ending == Ending::undefined ||
           (write.version >= reading.setter && write.ending != Ending::without_effect);
}

std::string KeyModel::wrong_hit(const Reading& reading, const Stored& answer, Time answered) const {
    if (!answer.intact) {
        return "a damaged value";
    }
    if (answer.key != key_) {
        return "another key's value: " + version_text(answer.version) + " of " + answer.key;
    }
    const Write* write = find(answer.version);
    if (answer.version > issued_ || (write != nullptr && write->effect != Effect::put)) {
        return "a value that was never put: " + version_text(answer.version);
    }
    const bool undefined = write != nullptr && write->ending == Ending::undefined;
    if (answer.version < reading.floor && !undefined) {
        return "an older value than one that was acknowledged: " + version_text(answer.version) +
               " instead of " + std::to_string(reading.floor) + " or newer";
    }
    if (write != nullptr && write->ending == Ending::without_effect) {
        return "the value of a put that failed without effect: " + version_text(answer.version);
    }
    if (write != nullptr && write->ending == Ending::acknowledged &&
        surely_past(latest_end(*write, reading, answered), reading.begun)) {
        return "an expired value: " + version_text(answer.version);
    }
    return wrong_member(reading, answer, write);
}

/// The latest moment at which the value of a put that was acknowledged may have expired.
Time KeyModel::latest_end(const Write& put, const Reading& reading, Time answered) const {
    if (reading.begun < forgotten_) {
        return Time::max();
    }
    Time latest = expiry(put.ended, put.ttl);
    for (const Write& write : writes_) {
        if (write.effect != Effect::touch || write.ending == Ending::without_effect) {
            continue;
        }
        if (write.ending == Ending::undefined) {
            return Time::max();
        }
        if (write.version < put.version) {
            continue;
        }
        const Time later = expiry(std::min(write.ended, answered), write.ttl);
        if (write.ended <= reading.begun) {
            latest = later;
        } else if (!surely_past(latest, write.issued)) {
            latest = std::max(latest, later);
        }
    }
    return latest;
}

/// What is wrong with the member that was merged into a value. @param put that of the value, if it
/// is still known.
std::string KeyModel::wrong_member(const Reading& reading, const Stored& answer,
                                   const Write* put) const {
    const Write* merge = find(answer.merged);
    if (answer.merged > issued_ ||
        (merge != nullptr &&
         (merge->effect != Effect::merge || merge->ending == Ending::without_effect))) {
        return "a member that was never merged: " + version_text(answer.merged);
    }
    const bool undefined = merge != nullptr && merge->ending == Ending::undefined;
    if (answer.merged != 0 && answer.merged < answer.version && !undefined) {
        return "a member that was merged into an older value: " + version_text(answer.merged);
    }
    if (put != nullptr && put->ending == Ending::acknowledged && put->version < reading.merged &&
        answer.merged < reading.merged && !undefined) {
        return "a value without what was merged into it: " + version_text(reading.merged);
    }
    return "";
}

std::string KeyModel::wrong_miss(const Reading& reading, Time answered) const {
    if (reading.setter == 0 || reading.begun < forgotten_ ||
        circumstances_.emptied.touch(reading.setter_issued, answered)) {
        return "";
    }
    for (const Write& write : writes_) {
        if (possible(write, reading) && (write.effect == Effect::remove ||
                                         perhaps_past(expiry(write.issued, write.ttl), answered))) {
            return "";
        }
    }
    return "a miss instead of " + version_text(reading.floor) + " or newer";
}

bool KeyModel::blurred() const {
    const std::lock_guard lock(mutex_);
    std::size_t undefined = 0;
    for (const Write& write : writes_) {
        if (write.ending == Ending::undefined) {
            if (write.effect == Effect::remove || write.effect == Effect::touch ||
                finite(write.ttl)) {
                return true;
            }
            ++undefined;
        }
    }
    return undefined >= most_undefined;
}

std::string KeyModel::history() const {
    const auto now = Clock::now();
    const std::lock_guard lock(mutex_);
    std::string text = "  key " + key_ + ", seconds before now:\n";
    char line[160];
    for (const Write& write : writes_) {
        const bool lives = write.effect == Effect::put || write.effect == Effect::touch;
        const std::string ttl = !lives ? std::string()
                                : finite(write.ttl)
                                    ? std::to_string(write.ttl.count() / 1000) + " ms"
                                    : std::string("for ever");
        std::snprintf(line, sizeof line, "    %6llu %-6s %-12s issued %9.4f  ended %9.4f  %s%s\n",
                      static_cast<unsigned long long>(write.version), name_of(write.effect),
                      ttl.c_str(), seconds(now - write.issued),
                      write.ended == Time::max() ? 0.0 : seconds(now - write.ended),
                      name_of(write.ending), write.tagged ? ", tagged" : "");
        text += line;
    }
    return text;
}

Keys::Keys(std::size_t slots, const Circumstances& circumstances)
    : circumstances_(circumstances), slots_(slots) {
    for (std::size_t slot = 0; slot < slots; ++slot) {
        make(slot);
    }
}

void Keys::make(std::size_t number) {
    Slot& slot = slots_[number];
    slot.current = std::make_shared<KeyModel>("key " + std::to_string(number) + "." +
                                                  std::to_string(slot.prefix) + "." +
                                                  std::to_string(slot.generation++),
                                              circumstances_);
}

void Keys::forget(Slot& slot) {
    slot.forgotten += std::erase_if(slot.older, [](const auto& key) { return key.expired(); });
}

std::shared_ptr<KeyModel> Keys::current(std::size_t slot) const {
    const std::lock_guard lock(mutex_);
    return slots_[slot].current;
}

std::shared_ptr<KeyModel> Keys::renew(std::size_t slot, bool another_prefix) {
    const std::lock_guard lock(mutex_);
    Slot& renewed = slots_[slot];
    forget(renewed);
    auto before = renewed.current;
    renewed.older.push_back(before);
    renewed.prefix += another_prefix ? 1 : 0;
    make(slot);
    return before;
}

std::vector<std::shared_ptr<KeyModel>> Keys::known(std::size_t slot) {
    const std::lock_guard lock(mutex_);
    forget(slots_[slot]);
    std::vector<std::shared_ptr<KeyModel>> all{slots_[slot].current};
    for (const auto& older : slots_[slot].older) {
        if (auto key = older.lock()) {
            all.push_back(std::move(key));
        }
    }
    return all;
}

std::size_t Keys::forgotten(std::size_t slot) {
    const std::lock_guard lock(mutex_);
    forget(slots_[slot]);
    return slots_[slot].forgotten;
}

}  // namespace psycache::soak
