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

const char* name_of(Ending ending) {
    switch (ending) {
        case Ending::pending:
            return "not ended";
        case Ending::acknowledged:
            return "acknowledged";
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

std::uint64_t KeyModel::begin_put(Duration ttl) {
    begin(false, ttl);
    return issued_;
}

void KeyModel::begin_remove() {
    begin(true, no_expiry);
}

void KeyModel::begin(bool remove, Duration ttl) {
    const std::lock_guard lock(mutex_);
    if (writes_.size() >= most_writes) {
        const auto oldest = std::find_if(writes_.begin(), writes_.end(), [this](const Write& w) {
            return w.ending != Ending::undefined && w.version != floor_;
        });
        writes_.erase(oldest);
    }
    writes_.push_back(Write{++issued_, remove, ttl, Clock::now(), Time::max(), Ending::pending});
}

void KeyModel::end_write(Ending ending) {
    const std::lock_guard lock(mutex_);
    Write& write = writes_.back();
    write.ended = Clock::now();
    write.ending = ending;
    if (ending == Ending::acknowledged) {
        floor_ = write.version;
        floor_issued_ = write.issued;
    }
}

Existed KeyModel::existed() const {
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    Existed before = Existed::no;
    for (const Write& write : writes_) {
        if (write.ending == Ending::undefined) {
            return Existed::either;
        }
        if (write.ending != Ending::acknowledged) {
            continue;
        }
        // A cleanup deletes what has expired.
        const bool gone = finite(write.ttl) && write.issued + write.ttl <= now + clock_tolerance;
        before = write.remove ? Existed::no : gone ? Existed::either : Existed::yes;
    }
    if (before == Existed::yes && circumstances_.emptied.touch(floor_issued_, now)) {
        return Existed::either;
    }
    return before;
}

Reading KeyModel::begin_read() const {
    const std::lock_guard lock(mutex_);
    return Reading{Clock::now(), floor_, floor_issued_};
}

std::string KeyModel::wrong(const Reading& reading, const std::optional<Stored>& answer) const {
    const auto now = Clock::now();
    const std::lock_guard lock(mutex_);
    return answer ? wrong_hit(reading, *answer) : wrong_miss(reading, now);
}

const KeyModel::Write* KeyModel::find(std::uint64_t version) const {
    const auto write = std::find_if(writes_.begin(), writes_.end(),
                                    [version](const Write& one) { return one.version == version; });
    return write == writes_.end() ? nullptr : &*write;
}

std::string KeyModel::wrong_hit(const Reading& reading, const Stored& answer) const {
    if (!answer.intact) {
        return "a damaged value";
    }
    if (answer.key != key_) {
        return "another key's value: " + version_text(answer.version) + " of " + answer.key;
    }
    const Write* write = find(answer.version);
    if (answer.version > issued_ || (write != nullptr && write->remove)) {
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
    if (write != nullptr && write->ending == Ending::acknowledged && finite(write->ttl) &&
        reading.begun > write->ended + write->ttl + clock_tolerance) {
        return "an expired value: " + version_text(answer.version);
    }
    return "";
}

std::string KeyModel::wrong_miss(const Reading& reading, Time answered) const {
    if (reading.floor == 0 || circumstances_.emptied.touch(reading.floor_issued, answered)) {
        return "";
    }
    for (const Write& write : writes_) {
        const bool possible =
            write.ending == Ending::undefined ||
            (write.version >= reading.floor && write.ending != Ending::without_effect);
        if (possible && (write.remove || (finite(write.ttl) && write.issued + write.ttl <=
                                                                   answered + clock_tolerance))) {
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
            if (write.remove || finite(write.ttl)) {
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
        const std::string ttl = !finite(write.ttl)
                                    ? std::string("for ever")
                                    : std::to_string(write.ttl.count() / 1000) + " ms";
        std::snprintf(
            line, sizeof line, "    %6llu %-6s %-12s issued %9.4f  ended %9.4f  %s\n",
            static_cast<unsigned long long>(write.version), write.remove ? "remove" : "put",
            write.remove ? "" : ttl.c_str(), seconds(now - write.issued),
            write.ended == Time::max() ? 0.0 : seconds(now - write.ended), name_of(write.ending));
        text += line;
    }
    return text;
}

Keys::Keys(std::size_t slots, const Circumstances& circumstances)
    : circumstances_(circumstances), generations_(slots), current_(slots) {
    for (std::size_t slot = 0; slot < slots; ++slot) {
        current_[slot] = make(slot);
    }
}

std::shared_ptr<KeyModel> Keys::make(std::size_t slot) {
    return std::make_shared<KeyModel>(
        "key " + std::to_string(slot) + "." + std::to_string(generations_[slot]++), circumstances_);
}

std::shared_ptr<KeyModel> Keys::current(std::size_t slot) const {
    const std::lock_guard lock(mutex_);
    return current_[slot];
}

std::shared_ptr<KeyModel> Keys::renew(std::size_t slot) {
    const std::lock_guard lock(mutex_);
    auto fresh = make(slot);
    current_[slot].swap(fresh);
    return fresh;
}

}  // namespace psycache::soak
