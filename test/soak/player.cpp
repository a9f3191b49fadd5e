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

/// How often each kind of call is made.
struct Frequency {
    Kind kind;
    std::size_t times;
};
constexpr Frequency frequencies[] = {
    {Kind::get, 35},    {Kind::get_text, 10}, {Kind::get_entry, 5}, {Kind::get_many, 6},
    {Kind::put, 20},    {Kind::put_text, 10}, {Kind::put_many, 4},  {Kind::put_if_absent, 3},
    {Kind::replace, 3}, {Kind::remove, 3},    {Kind::take, 2},      {Kind::remove_many, 1}};
constexpr std::size_t gets = 4;  // the first ones

/// Whether an error leaves open what a write has done.
bool leaves_open(const boost::system::error_code& code) {
    return code == Condition::outcome_unknown || code == asio::error::operation_aborted;
}

bool is_put(Kind kind) {
    return kind == Kind::put || kind == Kind::put_text || kind == Kind::put_many ||
           kind == Kind::put_if_absent || kind == Kind::replace;
}

bool is_remove(Kind kind) {
    return kind == Kind::remove || kind == Kind::take || kind == Kind::remove_many;
}

}  // namespace

Player::Player(Field& field, Subject& subject, std::uint32_t seed, std::vector<std::size_t> slots)
    : field_(field), subject_(subject), random_(seed), slots_(std::move(slots)) {}

std::size_t Player::random(std::size_t below) {
    return std::uniform_int_distribution<std::size_t>(0, below - 1)(random_);
}

Duration Player::random_time(Duration below) {
    return Duration(std::uniform_int_distribution<Duration::rep>(0, below.count())(random_));
}

Kind Player::random_kind(std::size_t among) {
    std::size_t all = 0;
    for (std::size_t i = 0; i < among; ++i) {
        all += frequencies[i].times;
    }
    std::size_t left = random(all);
    std::size_t i = 0;
    for (; left >= frequencies[i].times; ++i) {
        left -= frequencies[i].times;
    }
    return frequencies[i].kind;
}

std::shared_ptr<Call> Player::plan() {
    Kind kind = random_kind(slots_.empty() ? gets : std::size(frequencies));
    if (!retired_.empty() && chance(30)) {
        kind = Kind::remove;
    }
    auto call = std::make_shared<Call>(kind);
    if (is_put(kind)) {
        plan_put(*call);
    } else if (is_remove(kind)) {
        plan_remove(*call);
    } else {
        plan_get(*call);
    }
    call->outages_before = subject_.outages();
    call->begun = Clock::now();
    busy_since_ = call->begun.time_since_epoch().count();
    return call;
}

std::shared_ptr<KeyModel> Player::any_key() {
    // Some are wanted by many at once.
    const std::size_t among =
        chance(30) ? std::min(hot_slots, field_.keys.size()) : field_.keys.size();
    return field_.keys.current(random(among));
}

void Player::plan_get(Call& call) {
    const std::size_t count = call.single() ? 1 : 1 + random(most_keys_of_a_get);
    for (std::size_t i = 0; i < count; ++i) {
        call.keys.push_back(any_key());
        call.readings.push_back(call.keys.back()->begin_read());
    }
}

void Player::plan_put(Call& call) {
    std::vector<std::size_t> slots = slots_;
    if (call.single()) {
        slots = {slots_[random(slots_.size())]};
    }
    for (const std::size_t slot : slots) {
        const auto key = field_.keys.current(slot);
        const Duration ttl = some_ttl();
        const auto version = key->begin_put(ttl);
        call.entries.emplace_back(key->key(), make_value(key->key(), version, some_size()), ttl);
        call.keys.push_back(key);
    }
}

void Player::plan_remove(Call& call) {
    if (call.single() && !retired_.empty()) {
        call.keys.push_back(std::move(retired_.back()));
        retired_.pop_back();
    } else if (call.single()) {
        call.keys.push_back(field_.keys.current(slots_[random(slots_.size())]));
    } else {
        for (const std::size_t slot : slots_) {
            call.keys.push_back(field_.keys.current(slot));
        }
    }
    for (const auto& key : call.keys) {
        key->begin_remove();
    }
}

Duration Player::some_ttl() {
    const auto percent = random(100);
    if (percent < 65) {
        return 1h;
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
    const bool outage = subject_.outages() != call.outages_before;
    if (!error && outage) {
        // This call may have been one that was answered without the server.
        verdict = {"ok, or an outage", Ending::undefined};
    }
    if (!error) {
        judge_values(call, outage);
        if (is_remove(call.kind) && !outage) {
            judge_removal(call);
        }
        if (!call.values.empty() && call.single() && !call.values.front()) {
            verdict.name = outage ? "miss, or an outage" : "miss";
        }
        if (!call.stored && !outage) {
            verdict = {"nothing to do", Ending::without_effect};
        }
        if (is_put(call.kind) && !outage) {
            judge_condition(call);
        }
        if (!outage) {
            subject_.worked(call.begun);
        }
    }
    end_writes(call, verdict.ending);
    field_.report.calls.count(name_of(call.kind), verdict.name, took);
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
    if (call.values.size() != call.readings.size()) {
        violation(call, "as many answers as keys were expected");
        return;
    }
    for (std::size_t i = 0; i < call.values.size(); ++i) {
        if (outage && !call.values[i]) {
            continue;
        }
        const std::string wrong = call.keys[i]->wrong(call.readings[i], call.values[i]);
        if (!wrong.empty()) {
            violation(call, wrong, call.keys[i].get());
        }
    }
}

void Player::judge_removal(const Call& call) {
    std::uint64_t least = 0;
    std::uint64_t most = 0;
    for (const auto& key : call.keys) {
        const Existed existed = key->existed();
        least += existed == Existed::yes ? 1 : 0;
        most += existed == Existed::no ? 0 : 1;
    }
    if (call.existed < least || call.existed > most) {
        violation(call,
                  "it told of " + std::to_string(call.existed) + " entries where there were " +
                      std::to_string(least) + " to " + std::to_string(most),
                  call.keys.front().get());
    }
}

/// What a conditional put answers must fit what was there.
void Player::judge_condition(const Call& call) {
    if (call.kind != Kind::put_if_absent && call.kind != Kind::replace) {
        return;
    }
    const bool was_there = call.stored == (call.kind == Kind::replace);
    const Existed existed = call.keys.front()->existed();
    if (existed == (was_there ? Existed::no : Existed::yes)) {
        violation(call,
                  was_there ? "it found an entry where there was none"
                            : "it found no entry where there was one",
                  call.keys.front().get());
    }
}

void Player::end_writes(const Call& call, Ending ending) {
    if (!call.readings.empty()) {
        return;
    }
    for (const auto& key : call.keys) {
        key->end_write(ending);
    }
    for (const std::size_t slot : slots_) {
        if (field_.keys.current(slot)->blurred()) {
            retired_.push_back(field_.keys.renew(slot));
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
        subject_.name + ": " + std::string(name_of(call.kind)) + ": " + what, details);
}

}  // namespace psycache::soak
