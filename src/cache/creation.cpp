#include "cache/creation.hpp"

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
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

asio::awaitable<void> give_back(CacheCore::Self core, EndOne request, CallOptions options) {
    std::optional<bool> given;
    auto asking = ask(core, std::move(request), options, given);
    static_cast<void>(co_await std::move(asking));
}

asio::awaitable<std::exception_ptr> call_loader(const LoadDuty& duty, const AsyncLoader& loader,
                                                std::optional<boost::json::value>& value) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    std::exception_ptr error;
    try {
        auto token =
            asio::bind_cancellation_slot(duty.load()->cancel_loader.slot(), asio::use_awaitable);
        auto running = asio::co_spawn(executor, loader(), std::move(token));
        value = co_await std::move(running);
    } catch (...) {
        error = std::current_exception();
    }
    co_return error;
}

/// Lets the loader be cancelled, and the lease given back, when nobody waits for it any more. A
/// loader that does not heed its cancellation is not waited for.
void watch_callers(const CacheCore::Self& core, const asio::any_io_executor& executor,
                   const LoadDuty& duty, const LoadOrder& order, const LoadProgress& progress) {
    std::optional<EndOne> release;
    if (progress.holds_lease()) {
        release = progress.give_back();
    }
    duty.loads().on_abandoned(duty.load(), [core, executor, release, options = order.call(),
                                            load = std::weak_ptr<Load>(duty.load())] {
        asio::post(executor, [load] {
            if (const auto alive = load.lock()) {
                alive->cancel_loader.emit(asio::cancellation_type::terminal);
            }
        });
        if (release) {
            asio::co_spawn(executor, give_back(core, *release, options), asio::detached);
        }
    });
}

/// Runs a load to its end.
asio::awaitable<void> run_load(CacheCore::Self core, LoadDuty duty, LoadOrder order,
                               LoadSteps::Kind kind, Sight seen, AsyncLoader loader) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    LoadProgress progress(*core, duty, order, kind, seen);
    const CallOptions options = order.call();
    asio::steady_timer pause(executor);

    while (progress.next() != Step::done) {
        if (progress.next() != Step::give_back && duty.abandoned()) {
            progress.abandon();
            continue;
        }
        switch (progress.next()) {
            case Step::claim: {
                std::optional<Claimed> claimed;
                auto asking = ask(core, progress.claim(), options, claimed);
                const std::exception_ptr error = co_await std::move(asking);
                progress.claimed(error, claimed);
                break;
            }
            case Step::look: {
                std::optional<Found> found;
                auto asking = ask(core, LookAgain(order.key), options, found);
                const std::exception_ptr error = co_await std::move(asking);
                progress.looked(error, found);
                break;
            }
            case Step::pause:
                pause.expires_at(progress.pause());
                co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
                progress.paused();
                break;
            case Step::load: {
                progress.loading();
                watch_callers(core, executor, duty, order, progress);
                std::optional<boost::json::value> value;
                auto loading = call_loader(duty, loader, value);
                const std::exception_ptr error = co_await std::move(loading);
                if (duty.abandoned()) {
                    co_return;  // its lease is given back already
                }
                progress.loaded(error, std::move(value));
                break;
            }
            case Step::publish:
                if (auto request = progress.publish()) {
                    std::optional<bool> stored;
                    auto asking = ask(core, std::move(*request), options, stored);
                    const std::exception_ptr error = co_await std::move(asking);
                    progress.published(error, stored);
                }
                break;
            case Step::defer:
            case Step::give_back: {
                auto giving = give_back(core, progress.end(), options);
                co_await std::move(giving);
                progress.given_back();
                break;
            }
            case Step::done:
                break;
        }
    }
    progress.finish();
}

void start_load(const CacheCore::Self& core, const asio::any_io_executor& executor, LoadDuty duty,
                LoadOrder order, LoadSteps::Kind kind, const Sight& seen, AsyncLoader loader) {
    // A strand: the loader is cancelled from any thread.
    asio::co_spawn(asio::make_strand(executor),
                   run_load(core, std::move(duty), std::move(order), kind, seen, std::move(loader)),
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
    ClaimOne claim;
    claim.key = stub_key();
    claim.stub = order_.stub;
    claim.lease = order_.lease;
    claim.tagged = order_.key;
    claim.tags = order_.tags;
    return claim;
}

void LoadProgress::claimed(const std::exception_ptr& error, const std::optional<Claimed>& answer) {
    if (error) {
        failed(error, true);
    } else {
        steps_.claimed(*answer);
    }
}

void LoadProgress::looked(const std::exception_ptr& error, std::optional<Found>& found) {
    if (error) {
        failed(error, true);
        return;
    }
    steps_.looked(found->sight);
    lease_left_ = found->sight.left;
    result_.value = std::move(found->value);
}

TimePoint LoadProgress::pause() {
    if (!std::exchange(has_waited_, true)) {
        ++core_.counts->load_waits;
    }
    const TimePoint now = Clock::now();
    backoff_.failed(now, last_look);
    return std::min(backoff_.next_attempt(), now + lease_left_);
}

void LoadProgress::loading() {
    ++core_.counts->loads;
    began_ = Clock::now();
}

void LoadProgress::loaded(const std::exception_ptr& error,
                          std::optional<boost::json::value> value) {
    const TimePoint now = Clock::now();
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
    duty_.loads().loaded(order_.key, std::chrono::duration_cast<Duration>(now - began_));
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

void LoadProgress::published(const std::exception_ptr& error, const std::optional<bool>& stored) {
    if (error) {
        // The value is there, and its callers want it.
        failed(error, false);
        return;
    }
    steps_.published(*stored);
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
    duty_.loads().end(duty_.load(), std::move(result_), quiet_until_);
}

Creation::Creation(CacheCore::Self core, std::string key, CreateOptions options, ValueReader reader,
                   bool must_have)
    : core_(std::move(core)),
      key_(std::move(key)),
      options_(checked(std::move(options))),
      reader_(reader),
      must_have_(must_have),
      deadline_(options_.timeout ? Clock::now() + *options_.timeout : TimePoint::max()) {
    auto wrong = check_key(key_);
    if (!wrong) {
        wrong = check_tags(options_.tags, key_);
    }
    if (wrong) {
        throw to_error(LookUpOne::name, *wrong);
    }
}

CallOptions Creation::look() const {
    CallOptions look(options_.span_name);
    if (options_.timeout) {
        const auto left = std::chrono::duration_cast<Duration>(deadline_ - Clock::now());
        look.timeout = std::clamp(left, Duration(1), core_->timeout);
    }
    return look;
}

void Creation::read(boost::json::value&& value) const {
    const Failure wrong = read_into(reader_, 0, std::move(value));
    if (wrong.code) {
        throw to_error(LookUpOne::name, wrong);
    }
}

Creation::Next Creation::found(Found& found) const {
    Loads& loads = *core_->loads;
    Next next;
    if (found.sight.state == Sight::State::live) {
        const Duration took = options_.early > 0 ? loads.took(key_) : Duration::zero();
        const double random = took > Duration::zero() ? loads.random() : 1.0;
        const Freshness how =
            freshness(found.sight.left, options_.stale_for, took, options_.early, random);
        if (how == Freshness::stale) {
            ++core_->counts->stale_hits;
            const auto error =
                options_.stale_on_error ? nullptr : loads.recent_error(key_, Clock::now());
            if (error) {
                std::rethrow_exception(error);
            }
        }
        if (how != Freshness::fresh) {
            if (auto load = loads.renew(key_, Clock::now())) {
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
    Loads::Place place = loads.join(key_, Clock::now());
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
        throw to_error(LookUpOne::name, cancelled_failure());
    }
    if (waiting.ending == LoadWait::Ending::timed_out) {
        throw to_error(
            LookUpOne::name,
            Failure(Errc::timed_out, "the value was not loaded within CreateOptions::timeout"));
    }
    const LoadResult& result = *waiting.result;
    if (result.error) {
        std::rethrow_exception(result.error);
    }
    if (result.value) {
        read(boost::json::value(*result.value));
        return true;
    }
    return result.abandoned || must_have_ ? std::nullopt : std::optional(false);
}

asio::awaitable<bool> get_or_create_value(CacheCore::Self core, std::string key,
                                          CreateOptions options, AsyncLoader loader,
                                          ValueReader reader, bool must_have) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    const Creation creation(core, std::move(key), std::move(options), reader, must_have);
    for (;;) {
        auto looking = perform(core, LookUpOne(creation.key()), creation.look());
        Found found = co_await std::move(looking);
        Creation::Next next = creation.found(found);
        if (next.renewal) {
            start_load(core, executor, std::move(*next.renewal), creation.order(),
                       LoadSteps::Kind::renewal, found.sight, loader);
        }
        if (next.answered) {
            co_return true;
        }
        const CallerPlace its_place(core->loads, next.load);
        if (next.duty) {
            start_load(core, executor, std::move(*next.duty), creation.order(), next.kind,
                       found.sight, loader);
        }
        const auto waiting = std::make_shared<LoadWait>();
        const auto timer = end_at(executor, creation.deadline(), waiting);
        auto wait = Waited::wait(waiting, [&core, &next](std::shared_ptr<Waited> self) {
            core->loads->wait(next.load, std::static_pointer_cast<LoadWait>(std::move(self)));
        });
        co_await std::move(wait);
        if (const auto has_value = creation.loaded(*waiting)) {
            co_return *has_value;
        }
    }
}

}  // namespace psycache::detail
