#include "cache/creation.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "core/option_checks.hpp"

namespace psycache::detail {

namespace {

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

}  // namespace

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

Freshness Creation::how_fresh(Duration left) const {
    const CreateOptions& options = terms_->options;
    const Duration took = options.early > 0 ? core_->loads->took(key_) : Duration::zero();
    const double random = took > Duration::zero() ? core_->loads->random() : 1.0;
    return freshness(left, options.stale_for, took, options.early, random);
}

bool Creation::found_in_memory() const {
    const NearCache::Found found = core_->near ? core_->near->find(key_) : NearCache::Found();
    if (found.value == nullptr) {
        return false;
    }
    const Duration left = found.expires == TimePoint::max()
                              ? no_expiry
                              : std::chrono::duration_cast<Duration>(found.expires - Clock::now());
    if (how_fresh(left) != Freshness::fresh) {
        return false;  // what is to be loaded anew is the table's affair
    }
    auto spans =
        open_get_spans(*core_->observers, key_, SpanName{terms_->options.span_name, name()});
    spans.record([](CacheGetSpan& span) { span.record_cache_hit(0); });
    read(boost::json::value(*found.value));
    return true;
}

LookUpOne Creation::look_up() {
    if (core_->near) {
        ticket_ = core_->near->begin(key_);
    }
    return LookUpOne(key_);
}

void Creation::read_and_keep(Found& found) const {
    if (!ticket_) {
        return read(std::move(*found.value));
    }
    const auto kept = std::make_shared<const boost::json::value>(std::move(*found.value));
    core_->near->keep(*ticket_, key_, kept, found.sight.left);
    read(boost::json::value(*kept));
}

Creation::Next Creation::found(Found& found, TimePoint since) const {
    const CreateOptions& options = terms_->options;
    Loads& loads = *core_->loads;
    Next next;
    if (found.sight.state == Sight::State::live) {
        const Freshness how = how_fresh(found.sight.left);
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
        read_and_keep(found);
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

void Creations::find_in_memory() {
    if (core_->near) {
        std::erase_if(open_, [&](const Open& one) {
            const bool found = one.creation.found_in_memory();
            there_[one.place] = found;
            return found;
        });
    }
}

std::vector<LookUpOne> Creations::look_ups() {
    std::vector<LookUpOne> all;
    all.reserve(open_.size());
    for (Open& one : open_) {
        all.push_back(one.creation.look_up());
    }
    return all;
}

void Creations::found(std::vector<Found>&& found, TimePoint since, LoadGroup& to_load,
                      LoadGroup& to_renew) {
    for (std::size_t i = 0; i < open_.size(); ++i) {
        Open& one = open_[i];
        Creation::Next next = one.creation.found(found[i], since);
        if (next.renewal) {
            to_renew.add(core_->shown(), std::move(*next.renewal), one.creation.order(),
                         LoadSteps::Kind::renewal, found[i].sight);
        }
        if (next.answered) {
            there_[one.place] = true;
            continue;
        }
        one.load = next.load;
        one.waits = std::make_unique<CallerPlace>(core_->loads, next.load);
        if (next.duty) {
            to_load.add(core_->shown(), std::move(*next.duty), one.creation.order(), next.kind,
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

}  // namespace psycache::detail
