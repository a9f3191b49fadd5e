#include "cache/get_or_create.hpp"

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
#include <utility>

#include "cache/creation.hpp"
#include "cache/perform.hpp"

namespace psycache::detail {

namespace {

using Step = LoadSteps::Step;

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
    const auto pause = std::make_shared<asio::steady_timer>(executor);
    std::unique_ptr<ChangeWaits::Wait> changes;  // by those who load meanwhile
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
            if (changes) {
                changes->looks();
            } else if (core->near) {
                changes = core->near->wait_for(LoadGroup::keys(members), [executor, pause] {
                    asio::post(executor, [pause] { pause->cancel(); });
                });
            }
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
            pause->expires_at(LoadGroup::pause(members));
            if (!changes || !changes->changed()) {
                co_await pause->async_wait(asio::as_tuple(asio::use_awaitable));
            }
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

asio::awaitable<bool> get_or_create_value(CacheCore::Self core, std::string key,
                                          CreateOptions options, AsyncLoader loader,
                                          ValueReader reader, bool must_have) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    const auto terms =
        std::make_shared<const Creation::Terms>(std::move(options), reader, must_have);
    Creation creation(core, terms, std::move(key));
    if (creation.found_in_memory()) {
        co_return true;
    }
    for (;;) {
        const TimePoint since = Clock::now();
        auto looking = perform(core, creation.look_up(), terms->look(*core));
        Found found = co_await std::move(looking);
        Creation::Next next = creation.found(found, since);
        if (next.renewal) {
            LoadGroup renewal;
            renewal.add(core->shown(), std::move(*next.renewal), creation.order(),
                        LoadSteps::Kind::renewal, found.sight);
            start_loads(core, executor, std::move(renewal), loader);
        }
        if (next.answered) {
            co_return true;
        }
        const CallerPlace its_place(core->loads, next.load);
        if (next.duty) {
            LoadGroup load;
            load.add(core->shown(), std::move(*next.duty), creation.order(), next.kind,
                     found.sight);
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
    creations.find_in_memory();
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
