#include "loading/load_progress.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <random>
#include <utility>

#include "loading/freshness.hpp"

namespace psycache::detail {

namespace {

using Step = LoadSteps::Step;

// Between two looks at a key that another process loads. Each is one statement that all callers of
// the process share; the first comes soon, since most loads are short.
constexpr std::chrono::milliseconds first_look{5};
constexpr std::chrono::milliseconds last_look{100};

std::string owner_name() {
    std::random_device random;
    std::array<char, 40> name;
    std::snprintf(name.data(), name.size(), "%08x%08x%08x%08x", random(), random(), random(),
                  random());
    return name.data();
}

}  // namespace

LoadOrder::LoadOrder(std::string its_key, const CreateOptions& options)
    : key(std::move(its_key)),
      stub(LoadLease::stub_of(owner_name())),
      ttl(stored_ttl(options.ttl, options.stale_for)),
      // One that has ended from the start keeps no other process out.
      lease(options.scope == Scope::database ? options.load_lease : Duration::zero()),
      retry_after_error(options.retry_after_error),
      tags(options.tags.empty() ? nullptr
                                : std::make_shared<const std::vector<std::string>>(options.tags)),
      span_name(options.span_name) {}

LoadProgress::LoadProgress(const Telemetry& shown, const LoadDuty& duty, const LoadOrder& order,
                           LoadSteps::Kind kind, const Sight& seen)
    : shown_(shown),
      duty_(duty),
      order_(order),
      kind_(kind),
      steps_(kind, seen),
      lease_left_(seen.left),
      backoff_(std::random_device()(), first_look) {}

std::string LoadProgress::stub_key() const {
    return renewal() ? LoadLease::key_for_renewal(order_.key) : order_.key;
}

void LoadProgress::failed(const std::exception_ptr& error, bool matters) {
    if (matters) {
        result_.error = error;
    }
    steps_.failed();
}

ClaimOne LoadProgress::claim() {
    steps_.claiming();
    asked_ = Clock::now();
    ClaimOne claim;
    claim.key = stub_key();
    claim.stub = order_.stub;
    claim.lease = order_.lease;
    claim.tagged = order_.key;
    claim.tags = order_.tags;
    return claim;
}

void LoadProgress::claimed(const std::exception_ptr& error, const Claimed& answer) {
    if (error) {
        failed(error, true);
    } else {
        steps_.claimed(answer);
    }
}

void LoadProgress::looked(const std::exception_ptr& error, Found found) {
    if (error) {
        failed(error, true);
        return;
    }
    steps_.looked(found.sight);
    lease_left_ = found.sight.left;
    result_.value = std::move(found.value);
}

TimePoint LoadProgress::pause() {
    if (!std::exchange(has_waited_, true)) {
        ++shown_.counts->load_waits;
    }
    const TimePoint now = Clock::now();
    waits_since_ = now;
    backoff_.failed(now, last_look);
    return std::min(backoff_.next_attempt(), now + lease_left_);
}

void LoadProgress::paused() {
    waited_ += std::chrono::duration_cast<Duration>(Clock::now() - waits_since_);
    steps_.paused();
}

void LoadProgress::loading() {
    ++shown_.counts->loads;
    has_loaded_ = true;
    if (steps_.holds_lease()) {
        duty_.loads().begins(duty_.load(), steps_.version(), asked_);
    }
    began_ = Clock::now();
}

void LoadProgress::loaded(const std::exception_ptr& error,
                          std::optional<boost::json::value> value) {
    const TimePoint now = Clock::now();
    took_ = std::chrono::duration_cast<Duration>(now - began_);
    if (error) {
        ++shown_.counts->load_failures;
        result_.error = error;
        quiet_until_ = now + order_.retry_after_error;
        if (renewal()) {
            shown_.observers->log(LogLevel::warning,
                                  "get_or_create: a loader has failed to load a stale value anew");
        }
        steps_.loaded(LoadSteps::Loaded::failure);
        return;
    }
    duty_.loads().loaded(order_.key, took_);
    result_.value = std::move(value);
    steps_.loaded(result_.value ? LoadSteps::Loaded::value : LoadSteps::Loaded::nothing);
}

std::optional<PublishOne> LoadProgress::publish() {
    Result<std::string> jsonb = encode_jsonb(*result_.value);
    if (!jsonb) {
        result_.error = std::make_exception_ptr(to_error(PublishOne::name, jsonb.error()));
        steps_.abandon();
        return std::nullopt;
    }
    return PublishOne(order_.key, std::move(*jsonb), order_.ttl,
                      renewal() ? std::string() : order_.stub, steps_.version(), order_.tags);
}

void LoadProgress::published(const std::exception_ptr& error, bool stored) {
    if (error) {
        // The value is there, and its callers want it.
        failed(error, false);
        return;
    }
    stored_ = stored;
    steps_.published(stored);
    shown_.counts->late_loads += steps_.too_late() ? 1 : 0;
}

EndOne LoadProgress::end() {
    const Duration later =
        steps_.next() == Step::defer ? order_.retry_after_error : Duration::zero();
    finish();
    return end_after(later);
}

EndOne LoadProgress::end_after(Duration later) const {
    EndOne end;
    end.key = stub_key();
    end.stub = order_.stub;
    end.lease = later;
    return end;
}

void LoadProgress::finish() {
    if (renewal() && steps_.elsewhere()) {
        quiet_until_ = Clock::now() + last_look;
    }
    // One that another process has done is no answer to those who have joined it.
    result_.abandoned = !has_loaded_ && !result_.value && !result_.error;
    const LoadInfo::Outcome how = outcome();
    const bool asked = has_loaded_ || result_.value;
    const std::size_t callers = duty_.loads().end(duty_.load(), std::move(result_), quiet_until_);
    if (asked) {
        tell(how, callers);
    }
}

LoadInfo::Outcome LoadProgress::outcome() const noexcept {
    if (!has_loaded_) {
        return LoadInfo::Outcome::elsewhere;
    }
    if (stored_) {
        return LoadInfo::Outcome::stored;
    }
    if (steps_.too_late()) {
        return LoadInfo::Outcome::late;
    }
    if (result_.value) {
        return LoadInfo::Outcome::unstored;
    }
    return result_.error ? LoadInfo::Outcome::failed : LoadInfo::Outcome::nothing;
}

void LoadProgress::finish_abandoned() {
    took_ = std::chrono::duration_cast<Duration>(Clock::now() - began_);
    tell(LoadInfo::Outcome::abandoned, 0);
}

void LoadProgress::tell(LoadInfo::Outcome outcome, std::size_t callers) {
    if (!std::exchange(told_, true)) {
        const LoadInfo info{outcome, renewal(), callers, took_, waited_};
        shown_.observers->tell([&](CacheInstrumentation& provider) { provider.record_load(info); });
    }
}

}  // namespace psycache::detail
