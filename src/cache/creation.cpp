#include "cache/creation.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <iterator>
#include <random>
#include <stdexcept>
#include <utility>

#include "cache/perform.hpp"
#include "core/option_checks.hpp"
#include "loading/freshness.hpp"

namespace psycache::detail {

namespace {

using Step = LoadSteps::Step;

// Between two looks at a key that another process loads. Each is one statement that all callers of
// the process share; the first comes soon, since most loads are short.
constexpr std::chrono::milliseconds first_look{5};
constexpr std::chrono::milliseconds last_look{100};

void check_create_options(const CreateOptions& options) {
    if (options.ttl <= Duration::zero()) {
        throw std::invalid_argument("ttl must be positive");
    }
    if (auto wrong = check_ttl(options.ttl)) {
        throw std::invalid_argument(wrong->cause);
    }
    check_not_negative_finite("stale_for", options.stale_for);
    check_not_negative_finite("retry_after_error", options.retry_after_error);
    check_positive_finite("load_lease", options.load_lease);
    if (options.load_lease > LoadLease::longest) {
        throw std::invalid_argument("load_lease must be at most a day");
    }
    // Written so that it refuses what is no number.
    if (!(options.early >= 0 && options.early <= 1e6)) {
        throw std::invalid_argument("early must be between 0 and 1,000,000");
    }
    if (options.timeout) {
        check_positive_finite("timeout", *options.timeout);
    }
}

CreateOptions checked(CreateOptions options) {
    check_create_options(options);
    return options;
}

std::string owner_name() {
    std::random_device random;
    std::array<char, 40> name;
    std::snprintf(name.data(), name.size(), "%08x%08x%08x%08x", random(), random(), random(),
                  random());
    return name.data();
}

/// Runs one statement of a load. @returns why it failed; the failure has been counted.
template <class Request>
asio::awaitable<std::exception_ptr> ask(const CacheCore::Self& core, Request request,
                                        const CallOptions& options,
                                        std::optional<typename Request::Value>& answer) {
    std::exception_ptr error;
    try {
        auto asking = perform(core, std::move(request), options);
        answer.emplace(co_await std::move(asking));
    } catch (...) {
        error = std::current_exception();
    }
    co_return error;
}

asio::awaitable<void> give_back(CacheCore::Self core, std::vector<EndOne> requests,
                                CallOptions options) {
    std::optional<std::vector<bool>> given;
    auto asking = ask(core, Together<EndOne>(std::move(requests)), options, given);
    static_cast<void>(co_await std::move(asking));
}

/// What is to be done when no caller waits for any of the loads that one call of a loader serves.
struct Abandonment {
    std::atomic<std::size_t> wanted;  // loads that have callers
    asio::cancellation_signal cancel_loader;
    std::vector<EndOne> leases;
};

/// Lets the loader be cancelled, and its leases given back, when no caller waits for it any more. A
/// loader that does not heed its cancellation is not waited for.
std::shared_ptr<Abandonment> watch_callers(const CacheCore::Self& core,
                                           const asio::any_io_executor& executor,
                                           const LoadGroup::Members& members) {
    const auto abandonment = std::make_shared<Abandonment>();
    abandonment->wanted = members.size();
    for (const LoadGroup::Member* const member : members) {
        if (member->progress.holds_lease()) {
            abandonment->leases.push_back(member->progress.give_back());
        }
    }
    for (const LoadGroup::Member* const member : members) {
        member->duty.loads().on_abandoned(
            member->duty.load(), [core, executor, abandonment, options = member->order.call()] {
                if (--abandonment->wanted > 0) {
                    return;
                }
                asio::post(executor, [abandonment] {
                    abandonment->cancel_loader.emit(asio::cancellation_type::terminal);
                });
                if (!abandonment->leases.empty()) {
                    asio::co_spawn(executor, give_back(core, abandonment->leases, options),
                                   asio::detached);
                }
            });
    }
    return abandonment;
}

asio::awaitable<std::exception_ptr> call_loader(Abandonment& abandonment, const AsyncLoader& loader,
                                                std::vector<std::string> keys,
                                                LoadedValues& values) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    std::exception_ptr error;
    try {
        auto token =
            asio::bind_cancellation_slot(abandonment.cancel_loader.slot(), asio::use_awaitable);
        auto running = asio::co_spawn(executor, loader(std::move(keys)), std::move(token));
        values = co_await std::move(running);
    } catch (...) {
        error = std::current_exception();
    }
    co_return error;
}

void start_loads(const CacheCore::Self& core, const asio::any_io_executor& executor,
                 LoadGroup group, AsyncLoader loader);

/// Runs loads to their end. @param executor a strand.
asio::awaitable<void> run_loads(CacheCore::Self core, LoadGroup group, CallOptions options,
                                AsyncLoader loader) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    asio::steady_timer pause(executor);
    for (group.settle(); !group.empty(); group.settle()) {
        LoadGroup::Members members;
        if (!(members = group.at(Step::claim)).empty()) {
            std::optional<std::vector<Claimed>> claimed;
            auto asking =
                ask(core, Together<ClaimOne>(LoadGroup::claims(members)), options, claimed);
            const std::exception_ptr error = co_await std::move(asking);
            for (std::size_t i = 0; i < members.size(); ++i) {
                members[i]->progress.claimed(error, error ? Claimed() : (*claimed)[i]);
            }
        } else if (!(members = group.at(Step::look)).empty()) {
            std::optional<std::vector<Found>> found;
            auto asking = ask(core, Together<LookAgain>(LoadGroup::looks(members)), options, found);
            const std::exception_ptr error = co_await std::move(asking);
            for (std::size_t i = 0; i < members.size(); ++i) {
                members[i]->progress.looked(error, error ? Found() : std::move((*found)[i]));
            }
        } else if (!(members = group.at(Step::load)).empty()) {
            // What others load is not to wait for this loader.
            if (LoadGroup others = group.waiting(); !others.empty()) {
                start_loads(core, executor, std::move(others), loader);
            }
            for (LoadGroup::Member* const member : members) {
                member->progress.loading();
            }
            const auto abandonment = watch_callers(core, executor, members);
            LoadedValues values;
            auto loading = call_loader(*abandonment, loader, LoadGroup::keys(members), values);
            const std::exception_ptr error = co_await std::move(loading);
            if (abandonment->wanted == 0) {
                for (LoadGroup::Member* const member : members) {
                    member->progress.finish_abandoned();
                }
                co_return;  // the leases are given back already
            }
            LoadGroup::loaded(members, error, std::move(values));
        } else if (!(members = group.at(Step::publish)).empty()) {
            std::vector<PublishOne> publications = LoadGroup::publications(members);
            if (members.empty()) {
                continue;
            }
            std::optional<std::vector<bool>> stored;
            auto asking = ask(core, Together<PublishOne>(std::move(publications)), options, stored);
            const std::exception_ptr error = co_await std::move(asking);
            for (std::size_t i = 0; i < members.size(); ++i) {
                members[i]->progress.published(error, !error && (*stored)[i]);
            }
        } else if (!(members = group.at(Step::give_back)).empty()) {
            auto giving = give_back(core, LoadGroup::ends(members), options);
            co_await std::move(giving);
            for (LoadGroup::Member* const member : members) {
                member->progress.given_back();
            }
        } else {
            members = group.at(Step::pause);
            pause.expires_at(LoadGroup::pause(members));
            co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
            for (LoadGroup::Member* const member : members) {
                member->progress.paused();
            }
        }
    }
}

/// @param group not empty.
void start_loads(const CacheCore::Self& core, const asio::any_io_executor& executor,
                 LoadGroup group, AsyncLoader loader) {
    CallOptions options = group.call();
    // A strand: the loader is cancelled from any thread.
    asio::co_spawn(asio::make_strand(executor),
                   run_loads(core, std::move(group), std::move(options), std::move(loader)),
                   asio::detached);
}

/// Ends a caller's wait at its own deadline. @returns the timer, which ends with the caller.
std::optional<asio::steady_timer> end_at(const asio::any_io_executor& executor, TimePoint deadline,
                                         const std::shared_ptr<LoadWait>& waiting) {
    std::optional<asio::steady_timer> timer;
    if (deadline != TimePoint::max()) {
        timer.emplace(executor, deadline);
        timer->async_wait(
            [weak = std::weak_ptr<LoadWait>(waiting)](boost::system::error_code error) {
                const auto alive = weak.lock();
                if (!error && alive) {
                    alive->time_out();
                }
            });
    }
    return timer;
}

/// Waits for a load.
asio::awaitable<void> wait_for(const CacheCore::Self& core, const asio::any_io_executor& executor,
                               const std::shared_ptr<Load>& load,
                               const std::shared_ptr<LoadWait>& waiting, TimePoint deadline) {
    const auto timer = end_at(executor, deadline, waiting);
    auto wait = Waited::wait(waiting, [&core, &load](std::shared_ptr<Waited> self) {
        core->loads->wait(load, std::static_pointer_cast<LoadWait>(std::move(self)));
    });
    co_await std::move(wait);
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

LoadProgress::LoadProgress(const CacheCore& core, const LoadDuty& duty, const LoadOrder& order,
                           LoadSteps::Kind kind, const Sight& seen)
    : core_(core),
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
        ++core_.counts->load_waits;
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
    ++core_.counts->loads;
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
        ++core_.counts->load_failures;
        result_.error = error;
        quiet_until_ = now + order_.retry_after_error;
        if (renewal()) {
            core_.observers->log(LogLevel::warning,
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
    core_.counts->late_loads += steps_.too_late() ? 1 : 0;
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
        core_.observers->tell([&](CacheInstrumentation& provider) { provider.record_load(info); });
    }
}

CallOptions LoadGroup::call() const {
    return members_.front()->order.call();
}

void LoadGroup::settle() {
    for (const auto& member : members_) {
        const Step next = member->progress.next();
        const bool has_begun = next == Step::publish || next == Step::defer ||
                               next == Step::give_back || next == Step::done;
        if (!has_begun && member->duty.abandoned()) {
            member->progress.abandon();
        }
        if (member->progress.next() == Step::done) {
            member->progress.finish();
        }
    }
    std::erase_if(members_,
                  [](const auto& member) { return member->progress.next() == Step::done; });
}

LoadGroup::Members LoadGroup::at(Step step) const {
    Members members;
    for (const auto& member : members_) {
        const Step next = member->progress.next();
        if (next == step || (step == Step::give_back && next == Step::defer)) {
            members.push_back(member.get());
        }
    }
    return members;
}

LoadGroup LoadGroup::waiting() {
    LoadGroup others;
    const auto waits = std::stable_partition(
        members_.begin(), members_.end(),
        [](const auto& member) { return member->progress.next() != Step::pause; });
    others.members_.assign(std::make_move_iterator(waits), std::make_move_iterator(members_.end()));
    members_.erase(waits, members_.end());
    return others;
}

std::vector<ClaimOne> LoadGroup::claims(const Members& members) {
    return requests(members, [](Member& member) { return member.progress.claim(); });
}

std::vector<LookAgain> LoadGroup::looks(const Members& members) {
    return requests(members, [](Member& member) { return LookAgain(member.order.key); });
}

std::vector<EndOne> LoadGroup::ends(const Members& members) {
    return requests(members, [](Member& member) { return member.progress.end(); });
}

std::vector<PublishOne> LoadGroup::publications(Members& members) {
    std::vector<PublishOne> all;
    std::erase_if(members, [&](Member* member) {
        auto request = member->progress.publish();
        if (request) {
            all.push_back(std::move(*request));
        }
        return !request;
    });
    return all;
}

std::vector<std::string> LoadGroup::keys(const Members& members) {
    return requests(members, [](Member& member) { return member.order.key; });
}

TimePoint LoadGroup::pause(const Members& members) {
    TimePoint until = TimePoint::max();
    for (Member* const member : members) {
        until = std::min(until, member->progress.pause());
    }
    return until;
}

void LoadGroup::loaded(const Members& members, const std::exception_ptr& error,
                       LoadedValues&& values) {
    for (std::size_t i = 0; i < members.size(); ++i) {
        members[i]->progress.loaded(error, error ? std::nullopt : std::move(values[i]));
    }
}

Creation::Terms::Terms(CreateOptions its_options, ValueReader its_reader, bool its_must_have)
    : options(checked(std::move(its_options))),
      reader(its_reader),
      must_have(its_must_have),
      deadline(options.timeout ? Clock::now() + *options.timeout : TimePoint::max()) {}

CallOptions Creation::Terms::look(const CacheCore& core) const {
    CallOptions look(options.span_name);
    if (options.timeout) {
        const auto left = std::chrono::duration_cast<Duration>(deadline - Clock::now());
        look.timeout = std::clamp(left, Duration(1), core.timeout);
    }
    return look;
}

Creation::Creation(CacheCore::Self core, std::shared_ptr<const Terms> terms, std::string key,
                   std::optional<std::size_t> place)
    : core_(std::move(core)), terms_(std::move(terms)), key_(std::move(key)), place_(place) {
    auto wrong = check_key(key_);
    if (!wrong) {
        wrong = check_tags(terms_->options.tags, key_);
    }
    if (wrong) {
        throw to_error(name(), at_its_place(std::move(*wrong)));
    }
}

std::string_view Creation::name() const noexcept {
    return place_ ? "get_or_create_many" : LookUpOne::name;
}

Failure Creation::at_its_place(Failure failure) const {
    return place_ ? at_place(std::move(failure), "key", *place_) : failure;
}

void Creation::read(boost::json::value&& value) const {
    Failure wrong = read_into(terms_->reader, place_.value_or(0), std::move(value));
    if (wrong.code) {
        throw to_error(name(), at_its_place(std::move(wrong)));
    }
}

Creation::Next Creation::found(Found& found, TimePoint since) const {
    const CreateOptions& options = terms_->options;
    Loads& loads = *core_->loads;
    Next next;
    if (found.sight.state == Sight::State::live) {
        const Duration took = options.early > 0 ? loads.took(key_) : Duration::zero();
        const double random = took > Duration::zero() ? loads.random() : 1.0;
        const Freshness how =
            freshness(found.sight.left, options.stale_for, took, options.early, random);
        if (how == Freshness::stale) {
            const auto error =
                options.stale_on_error ? nullptr : loads.recent_error(key_, Clock::now());
            if (error) {
                std::rethrow_exception(error);
            }
            ++core_->counts->stale_hits;
            core_->observers->tell(
                [](CacheInstrumentation& provider) { provider.record_stale_hit(); });
        }
        if (how != Freshness::fresh) {
            if (auto load = loads.renew(key_, Clock::now(), found.sight.version)) {
                next.renewal.emplace(core_->loads, std::move(load));
            }
        }
        read(std::move(*found.value));
        next.answered = true;
        return next;
    }
    if (found.sight.state == Sight::State::out_of_reach) {
        next.kind = LoadSteps::Kind::uncached;
    }
    Loads::Place place = loads.join(key_, Clock::now(), found.sight.version, since);
    if (place.error) {
        std::rethrow_exception(place.error);
    }
    next.load = place.load;
    if (place.starts) {
        next.duty.emplace(core_->loads, std::move(place.load));
    } else {
        ++core_->counts->load_joins;
    }
    return next;
}

std::optional<bool> Creation::loaded(const LoadWait& waiting) const {
    if (waiting.ending == LoadWait::Ending::cancelled) {
        throw to_error(name(), cancelled_failure());
    }
    if (waiting.ending == LoadWait::Ending::timed_out) {
        throw to_error(name(), Failure(Errc::timed_out,
                                       "the value was not loaded within CreateOptions::timeout"));
    }
    const LoadResult& result = *waiting.result;
    if (result.error) {
        std::rethrow_exception(result.error);
    }
    if (result.value) {
        read(boost::json::value(*result.value));
        return true;
    }
    return result.abandoned || terms_->must_have ? std::nullopt : std::optional(false);
}

Creations::Creations(const CacheCore::Self& core,
                     const std::shared_ptr<const Creation::Terms>& terms,
                     std::vector<std::string> keys)
    : core_(core), there_(keys.size()) {
    open_.reserve(keys.size());
    for (std::size_t place = 0; place < keys.size(); ++place) {
        open_.push_back(
            Open{Creation(core, terms, std::move(keys[place]), place), place, nullptr, nullptr});
    }
}

std::vector<LookUpOne> Creations::look_ups() const {
    std::vector<LookUpOne> all;
    all.reserve(open_.size());
    for (const Open& one : open_) {
        all.emplace_back(one.creation.key());
    }
    return all;
}

void Creations::found(std::vector<Found>&& found, TimePoint since, LoadGroup& to_load,
                      LoadGroup& to_renew) {
    for (std::size_t i = 0; i < open_.size(); ++i) {
        Open& one = open_[i];
        Creation::Next next = one.creation.found(found[i], since);
        if (next.renewal) {
            to_renew.add(*core_, std::move(*next.renewal), one.creation.order(),
                         LoadSteps::Kind::renewal, found[i].sight);
        }
        if (next.answered) {
            there_[one.place] = true;
            continue;
        }
        one.load = next.load;
        one.waits = std::make_unique<CallerPlace>(core_->loads, next.load);
        if (next.duty) {
            to_load.add(*core_, std::move(*next.duty), one.creation.order(), next.kind,
                        found[i].sight);
        }
    }
    std::erase_if(open_, [](const Open& one) { return !one.waits; });
}

std::vector<std::shared_ptr<Load>> Creations::loads() const {
    std::vector<std::shared_ptr<Load>> all;
    for (const Open& one : open_) {
        all.push_back(one.load);
    }
    return all;
}

void Creations::loaded(std::size_t number, const LoadWait& waiting) {
    Open& one = open_[number];
    if (const auto has_value = one.creation.loaded(waiting)) {
        there_[one.place] = *has_value;
        one.load = nullptr;
    }
}

void Creations::next_round() {
    std::erase_if(open_, [](const Open& one) { return !one.load; });
    for (Open& one : open_) {
        one.waits.reset();
    }
}

asio::awaitable<bool> get_or_create_value(CacheCore::Self core, std::string key,
                                          CreateOptions options, AsyncLoader loader,
                                          ValueReader reader, bool must_have) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    const auto terms =
        std::make_shared<const Creation::Terms>(std::move(options), reader, must_have);
    const Creation creation(core, terms, std::move(key));
    for (;;) {
        const TimePoint since = Clock::now();
        auto looking = perform(core, LookUpOne(creation.key()), terms->look(*core));
        Found found = co_await std::move(looking);
        Creation::Next next = creation.found(found, since);
        if (next.renewal) {
            LoadGroup renewal;
            renewal.add(*core, std::move(*next.renewal), creation.order(), LoadSteps::Kind::renewal,
                        found.sight);
            start_loads(core, executor, std::move(renewal), loader);
        }
        if (next.answered) {
            co_return true;
        }
        const CallerPlace its_place(core->loads, next.load);
        if (next.duty) {
            LoadGroup load;
            load.add(*core, std::move(*next.duty), creation.order(), next.kind, found.sight);
            start_loads(core, executor, std::move(load), loader);
        }
        const auto waiting = std::make_shared<LoadWait>();
        auto wait = wait_for(core, executor, next.load, waiting, terms->deadline);
        co_await std::move(wait);
        if (const auto has_value = creation.loaded(*waiting)) {
            co_return *has_value;
        }
    }
}

asio::awaitable<std::vector<bool>> get_or_create_values(CacheCore::Self core,
                                                        std::vector<std::string> keys,
                                                        CreateOptions options, AsyncLoader loader,
                                                        ValueReader reader, bool must_have) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    const auto terms =
        std::make_shared<const Creation::Terms>(std::move(options), reader, must_have);
    Creations creations(core, terms, std::move(keys));
    for (; !creations.done(); creations.next_round()) {
        const TimePoint since = Clock::now();
        auto looking = perform(core, Together<LookUpOne>(creations.look_ups()), terms->look(*core));
        std::vector<Found> found = co_await std::move(looking);
        LoadGroup to_load;
        LoadGroup to_renew;
        creations.found(std::move(found), since, to_load, to_renew);
        if (!to_renew.empty()) {
            start_loads(core, executor, std::move(to_renew), loader);
        }
        if (!to_load.empty()) {
            start_loads(core, executor, std::move(to_load), loader);
        }
        const std::vector<std::shared_ptr<Load>> loads = creations.loads();
        for (std::size_t i = 0; i < loads.size(); ++i) {
            const auto waiting = std::make_shared<LoadWait>();
            auto wait = wait_for(core, executor, loads[i], waiting, terms->deadline);
            co_await std::move(wait);
            creations.loaded(i, *waiting);
        }
    }
    co_return std::move(creations).values();
}

}  // namespace psycache::detail
