#include "soak/player.hpp"

#include <algorithm>
#include <boost/asio/error.hpp>
#include <iterator>
#include <utility>

#include <psycache/error.hpp>

namespace psycache::soak {

namespace {

using namespace std::chrono_literals;

// How much later than its deadline a call may end: the machine can be busy.
constexpr auto grace = 3s * test::slowness;
// No machine explains a longer delay.
constexpr auto most_excused = 30s;
constexpr std::size_t hot_slots = 40;
constexpr std::size_t most_keys_of_a_get = 20;
constexpr std::int64_t largest_increment = 1'000'000'000;

/// Whether an error leaves open what a write has done.
bool leaves_open(const boost::system::error_code& code) {
    return code == Condition::outcome_unknown || code == asio::error::operation_aborted;
}

/// Whether a cache with OnOutage::miss answers without the server.
bool may_be_dropped(Act act) {
    return act != Act::remove_group && act != Act::count;
}

}  // namespace

Player::Player(Field& field, Subject& subject, std::uint32_t seed, std::vector<std::size_t> slots)
    : field_(field), subject_(subject), random_(seed), slots_(std::move(slots)), tags_(chance(70)) {
    for (const std::size_t slot : slots_) {
        counters_.emplace_back(slot, field_.circumstances);
    }
}

std::size_t Player::random(std::size_t below) {
    return std::uniform_int_distribution<std::size_t>(0, below - 1)(random_);
}

Duration Player::random_time(Duration below) {
    return Duration(std::uniform_int_distribution<Duration::rep>(0, below.count())(random_));
}

Kind Player::random_kind(std::size_t among) {
    const auto times = [](std::size_t i) { return traits_of(static_cast<Kind>(i)).times; };
    std::size_t all = 0;
    for (std::size_t i = 0; i < among; ++i) {
        all += times(i);
    }
    std::size_t left = random(all);
    std::size_t i = 0;
    for (; left >= times(i); ++i) {
        left -= times(i);
    }
    return static_cast<Kind>(i);
}

std::shared_ptr<Call> Player::plan() {
    Kind kind = random_kind(slots_.empty() ? reading_kinds : kinds);
    if (!retired_.empty() && chance(30)) {
        kind = Kind::remove;
    }
    auto call = std::make_shared<Call>(kind);
    const Traits& traits = call->traits();
    call->ttl = some_ttl(traits.act == Act::touch ? 2h : 1h);
    if (traits.act == Act::count) {
        plan_increments(*call);
    } else {
        plan_keys(*call);
    }
    if (traits.act == Act::put && tags_ && chance(40)) {
        call->tags.push_back(tag());
    }
    for (const auto& key : call->keys) {
        if (traits.act == Act::read || traits.with_values) {
            call->readings.push_back(key->begin_read());
        }
        plan_write(*call, *key);
    }
    call->outages_before = subject_.outages();
    call->retries_before = subject_.statistics().retries;
    call->begun = Clock::now();
    busy_since_ = call->begun.time_since_epoch().count();
    return call;
}

/// Which keys a call is about.
void Player::plan_keys(Call& call) {
    if (call.traits().act == Act::read) {
        const std::size_t count = call.single() ? 1 : 1 + random(most_keys_of_a_get);
        for (std::size_t i = 0; i < count; ++i) {
            call.keys.push_back(any_key());
        }
        return;
    }
    if (call.single() && call.traits().act == Act::remove && !retired_.empty()) {
        call.keys.push_back(std::move(retired_.back()));
        retired_.pop_back();
        return;
    }
    std::vector<std::size_t> slots = slots_;
    if (call.single() || call.kind == Kind::remove_prefix) {
        slots = {slots_[random(slots_.size())]};
    }
    for (const std::size_t slot : slots) {
        if (call.traits().act == Act::remove_group) {
            // Also those that were retired: a reader may not know it yet.
            const auto known = field_.keys.known(slot);
            call.keys.insert(call.keys.end(), known.begin(), known.end());
        } else {
            call.keys.push_back(field_.keys.current(slot));
        }
    }
    if (call.kind == Kind::remove_tag) {
        call.group = tag();
    } else if (call.kind == Kind::remove_prefix) {
        call.group = call.keys.front()->prefix();
        std::erase_if(call.keys, [&](const auto& key) { return key->prefix() != call.group; });
    }
}

void Player::plan_write(Call& call, KeyModel& key) {
    switch (call.traits().act) {
        case Act::put:
            plan_put(call, key);
            break;
        case Act::touch:
            key.begin_touch(call.ttl);
            break;
        case Act::merge:
            call.other = make_patch(key.begin_merge());
            break;
        case Act::remove:
        case Act::remove_group:
            key.begin_remove();
            break;
        case Act::read:
        case Act::count:
            break;
    }
}

void Player::plan_put(Call& call, KeyModel& key) {
    if (call.kind == Kind::compare_and_put) {
        call.tags.clear();
        plan_comparison(call, key);
    }
    const Duration ttl = call.traits().tells == Tells::nothing ? some_ttl(1h) : call.ttl;
    const std::size_t size = some_size();
    const auto version = key.begin_put(ttl, size, !call.tags.empty());
    call.entries.emplace_back(key.key(), make_value(key.key(), version, size), ttl);
}

void Player::plan_comparison(Call& call, const KeyModel& key) {
    const auto held = key.held();
    if (!held || chance(20)) {
        call.other = make_value(key.key(), 0, some_size());
        return;
    }
    call.other = make_value(key.key(), held->version, held->size);
    if (held->merged != 0) {
        call.other.insert_or_assign("merged", held->merged);
    }
    call.expected = held->certain ? Expected::there : Expected::perhaps_there;
}

void Player::plan_increments(Call& call) {
    const std::size_t first = call.single() ? random(counters_.size()) : 0;
    const std::size_t end = call.single() ? first + 1 : counters_.size();
    for (std::size_t i = first; i < end; ++i) {
        const auto by = std::uniform_int_distribution<std::int64_t>(-largest_increment,
                                                                    largest_increment)(random_);
        counters_[i].begin(by);
        call.increments.emplace_back(counters_[i].key(), by);
    }
}

/// Another one when nobody knows whether what has it is still to be removed.
std::string Player::tag() const {
    return "caller " + std::to_string(slots_.front()) + "." + std::to_string(tag_generation_);
}

std::shared_ptr<KeyModel> Player::any_key() {
    // Some are wanted by many at once.
    const std::size_t among =
        chance(30) ? std::min(hot_slots, field_.keys.size()) : field_.keys.size();
    return field_.keys.current(random(among));
}

Duration Player::some_ttl(Duration usual) {
    const auto percent = random(100);
    if (percent < 65) {
        return usual;
    }
    if (percent < 85) {
        return no_expiry;
    }
    return percent < 97 ? random_time(2500ms) : -random_time(1s);
}

std::size_t Player::some_size() {
    const auto permille = random(1000);
    if (permille < 900) {
        return 50 + random(1200);
    }
    return permille < 995 ? random(10000) : random(100000);
}

Duration Player::pause() {
    const auto mean = static_cast<double>(field_.mean_pause.count()) * field_.pacer.factor();
    return random_time(2 * Duration(static_cast<Duration::rep>(mean)));
}

std::optional<Duration> Player::patience() {
    if (!chance(4)) {
        return std::nullopt;
    }
    return chance(20) ? Duration(0) : random_time(15ms);
}

asio::cancellation_type Player::way_to_cancel() {
    using Type = asio::cancellation_type;
    static constexpr Type types[] = {Type::terminal, Type::partial, Type::total, Type::all};
    return types[random(std::size(types))];
}

void Player::conclude(Call& call, const std::exception_ptr& error, bool cancelled) {
    busy_since_ = 0;
    reported_ = false;
    const auto took = Clock::now() - call.begun;
    judge_time(call, took);
    Verdict verdict = judge(call, error, cancelled);
    const Traits& traits = call.traits();
    const bool outage = may_be_dropped(traits.act) && subject_.outages() != call.outages_before;
    const bool answered = !error && !outage;
    if (!error && outage) {
        // This call may have been one that was answered without the server.
        verdict = {"ok, or an outage", Ending::undefined};
    }
    if (!error) {
        judge_values(call, outage);
        if (call.single() && ((!call.values.empty() && !call.values.front()) ||
                              (!call.left.empty() && !call.left.front()))) {
            verdict.name = outage ? "miss, or an outage" : "miss";
        }
    }
    if (answered) {
        if (traits.tells == Tells::number) {
            judge_number(call);
        } else if (traits.tells == Tells::equal) {
            judge_comparison(call);
        } else if (traits.tells != Tells::nothing) {
            judge_each(call);
        }
        if (call.single() && traits.tells != Tells::nothing && traits.tells != Tells::number &&
            !call.done.front()) {
            verdict.name = "nothing to do";
        }
        subject_.worked(call.begun);
    }
    if (traits.act == Act::count) {
        end_increments(call, verdict.ending, answered);
    } else if (traits.act != Act::read) {
        end_writes(call, verdict.ending, answered);
    }
    field_.report.calls.count(traits.name, verdict.name, took);
}

Player::Verdict Player::judge(const Call& call, const std::exception_ptr& error, bool cancelled) {
    if (!error) {
        return {};
    }
    try {
        std::rethrow_exception(error);
    } catch (const Error& failure) {
        const auto& code = failure.code();
        if (!may_fail(call, code, cancelled)) {
            violation(call, std::string("an error that nothing explains: ") + failure.what());
        }
        // Of several keys some may have been done before the error came up.
        const bool open = leaves_open(code) || !call.single();
        return {code.message(), open ? Ending::undefined : Ending::without_effect};
    } catch (const std::exception& failure) {
        violation(call, std::string("an exception that is no psycache::Error: ") + failure.what());
    }
    return {"other exceptions", Ending::undefined};
}

bool Player::may_fail(const Call& call, const boost::system::error_code& code,
                      bool cancelled) const {
    const auto now = Clock::now();
    if (code == asio::error::operation_aborted) {
        return cancelled;
    }
    if (code == Errc::table_missing) {
        return field_.circumstances.missing.touch(call.begun, now);
    }
    if (code == Errc::permission_denied) {
        return field_.circumstances.denied.touch(call.begun, now);
    }
    if (code == Errc::authentication_failed || code == Errc::protocol_error) {
        return false;
    }
    return code == Condition::transient || code == Condition::timeout ||
           code == Condition::unavailable || code == Condition::outcome_unknown;
}

/// Whether a call takes longer than it may, by so much more than a busy machine explains.
bool Player::overdue(Time begun, Clock::duration more) const {
    const auto time = subject_.timeout + more;
    const auto took = Clock::now() - begun;
    return took > time &&
           took > time + std::min<Clock::duration>(field_.pacer.starved_since(begun), most_excused);
}

void Player::judge_time(const Call& call, Clock::duration took) {
    if (overdue(call.begun, grace)) {
        violation(call, "it ended " + std::to_string(seconds(took)) +
                            " s after it began, its time is " +
                            std::to_string(seconds(subject_.timeout)) + " s");
    }
}

void Player::judge_values(const Call& call, bool outage) {
    const bool values = call.kind != Kind::expires_in;
    const bool left = !values || !call.left.empty();
    if (call.values.size() != (values ? call.readings.size() : 0) ||
        call.left.size() != (left ? call.readings.size() : 0) ||
        call.counts.size() != call.increments.size()) {
        violation(call, "as many answers as keys were expected");
        return;
    }
    for (std::size_t i = 0; i < call.readings.size(); ++i) {
        if (outage && !(values ? call.values[i].has_value() : call.left[i].has_value())) {
            continue;
        }
        const KeyModel& key = *call.keys[i];
        std::string wrong = values ? key.wrong(call.readings[i], call.values[i]) : "";
        if (wrong.empty() && left) {
            wrong = key.wrong_left(call.readings[i], call.left[i]);
        }
        if (!wrong.empty()) {
            violation(call, wrong, &key);
        }
    }
}

/// Of a removal, how many entries it found.
void Player::judge_number(const Call& call) {
    std::uint64_t least = 0;
    std::uint64_t most = 0;
    for (const auto& key : call.keys) {
        const Existed tagged = call.kind == Kind::remove_tag ? key->tagged() : Existed::yes;
        const Existed existed = tagged == Existed::no ? tagged : key->found(Sought::any);
        least += existed == Existed::yes && tagged == Existed::yes ? 1 : 0;
        most += existed == Existed::no ? 0 : 1;
    }
    if (call.traits().act == Act::remove_group) {
        for (const std::size_t slot : slots_) {
            most += field_.keys.forgotten(slot);
        }
        if (subject_.statistics().retries != call.retries_before) {
            // It may have been sent once more: what it removed before is not counted.
            least = 0;
        }
    }
    if (call.number < least || call.number > most) {
        violation(call,
                  "it told of " + std::to_string(call.number) + " entries where there were " +
                      std::to_string(least) + " to " + std::to_string(most),
                  call.keys.front().get());
    }
}

/// What a write tells of each key must fit what was there.
void Player::judge_each(const Call& call) {
    if (call.done.size() != call.keys.size()) {
        violation(call, "as many answers as keys were expected");
        return;
    }
    for (std::size_t i = 0; i < call.keys.size(); ++i) {
        const bool was_there = call.done[i] == (call.traits().tells == Tells::live);
        if (call.keys[i]->found(Sought::live) == (was_there ? Existed::no : Existed::yes)) {
            violation(call,
                      was_there ? "it found an entry where there was none"
                                : "it found no entry where there was one",
                      call.keys[i].get());
        }
    }
}

void Player::judge_comparison(const Call& call) {
    const KeyModel& key = *call.keys.front();
    const Existed existed = key.found(Sought::live);
    if (call.done.front() && (existed == Existed::no || call.expected == Expected::never_stored)) {
        violation(call, "it found a value that cannot have been there", &key);
    }
    if (!call.done.front() && existed == Existed::yes && call.expected == Expected::there) {
        violation(call, "it did not find the value that was there", &key);
    }
}

/// How a write of one key has ended, of a call that was answered by the server.
Ending Player::ending(const Call& call, std::size_t place) const {
    if (call.kind == Kind::remove_tag) {
        const Existed tagged = call.keys[place]->tagged();
        return tagged == Existed::yes  ? Ending::acknowledged
               : tagged == Existed::no ? Ending::without_effect
                                       : Ending::settled;
    }
    const Tells tells = call.traits().tells;
    const bool done = tells == Tells::nothing || tells == Tells::number ||
                      (place < call.done.size() && call.done[place]);
    return done ? Ending::acknowledged : Ending::without_effect;
}

void Player::end_writes(const Call& call, Ending all, bool answered) {
    for (std::size_t i = 0; i < call.keys.size(); ++i) {
        // Those that are put from now on have another tag.
        const bool spared =
            call.kind == Kind::remove_tag && !answered && call.keys[i]->tagged() == Existed::no;
        call.keys[i]->end_write(answered ? ending(call, i) : spared ? Ending::without_effect : all);
    }
    const bool open = !answered && all == Ending::undefined;
    tag_generation_ += call.kind == Kind::remove_tag && open ? 1 : 0;
    for (const std::size_t slot : slots_) {
        if (field_.keys.current(slot)->blurred()) {
            // A group that is still to be removed must not come to hold fresh keys.
            retired_.push_back(field_.keys.renew(slot, call.kind == Kind::remove_prefix && open));
        }
    }
}

void Player::end_increments(const Call& call, Ending all, bool answered) {
    for (std::size_t i = 0; i < call.increments.size(); ++i) {
        const auto counter =
            std::find_if(counters_.begin(), counters_.end(),
                         [&](const Counter& one) { return one.key() == call.increments[i].first; });
        if (answered && i < call.counts.size()) {
            const std::string wrong = counter->counted(call.counts[i]);
            if (!wrong.empty()) {
                violation(call, "a wrong count: " + wrong);
            }
        } else if (answered || all == Ending::undefined) {
            counter->lost();
        }
    }
}

void Player::watch() {
    const Time since{Clock::duration(busy_since_.load())};
    if (since == Time{} || reported_ || !overdue(since, 2 * grace)) {
        return;
    }
    reported_ = true;
    field_.report.violations.report(subject_.name + ": a call does not end");
}

void Player::violation(const Call& call, const std::string& what, const KeyModel* key) {
    std::string details;
    if (key != nullptr) {
        details = key->history();
    }
    field_.report.violations.report(
        subject_.name + ": " + std::string(call.traits().name) + ": " + what, details);
}

}  // namespace psycache::soak
