#include "blocking/creation.hpp"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "cache/creation.hpp"

namespace psycache::detail {

namespace {

using Step = LoadSteps::Step;

/// The keys whose loaders run in this thread, from the innermost outwards.
struct InsideLoader {
    explicit InsideLoader(const BlockingCore& its_core, const std::string& its_key)
        : core(its_core), key(its_key), outer(innermost) {
        innermost = this;
    }
    InsideLoader(const InsideLoader&) = delete;
    InsideLoader& operator=(const InsideLoader&) = delete;
    ~InsideLoader() { innermost = outer; }

    static bool of(const BlockingCore& core, const std::string& key) {
        for (const InsideLoader* one = innermost; one != nullptr; one = one->outer) {
            if (&one->core == &core && one->key == key) {
                return true;
            }
        }
        return false;
    }

    const BlockingCore& core;
    const std::string& key;
    const InsideLoader* const outer;

    static thread_local const InsideLoader* innermost;
};
thread_local const InsideLoader* InsideLoader::innermost = nullptr;

/// Runs one statement of a load. @returns why it failed; the failure has been counted.
template <class Request>
std::exception_ptr ask(BlockingCore& core, Request request, const CallOptions& options,
                       std::optional<typename Request::Value>& answer) {
    try {
        answer.emplace(core.perform(std::move(request), options));
    } catch (...) {
        return std::current_exception();
    }
    return nullptr;
}

/// Runs a load to its end, as run_load() of cache/creation.cpp does in a coroutine. It is never
/// abandoned: the thread that runs it waits for it.
void run_load(BlockingCore& core, const LoadDuty& duty, const LoadOrder& order,
              LoadSteps::Kind kind, const Sight& seen, const Loader& loader) {
    LoadProgress progress(*core.cache(), duty, order, kind, seen);
    while (progress.next() != Step::done) {
        switch (progress.next()) {
            case Step::claim: {
                std::optional<Claimed> claimed;
                const auto error = ask(core, progress.claim(), order.call(), claimed);
                progress.claimed(error, claimed);
                break;
            }
            case Step::look: {
                std::optional<Found> found;
                const auto error = ask(core, LookAgain(order.key), order.call(), found);
                progress.looked(error, found);
                break;
            }
            case Step::pause:
                std::this_thread::sleep_until(progress.pause());
                progress.paused();
                break;
            case Step::load: {
                progress.loading();
                std::optional<boost::json::value> value;
                std::exception_ptr error;
                try {
                    const InsideLoader inside(core, order.key);
                    value = loader();
                } catch (...) {
                    error = std::current_exception();
                }
                progress.loaded(error, std::move(value));
                break;
            }
            case Step::publish:
                if (auto request = progress.publish()) {
                    std::optional<bool> stored;
                    const auto error = ask(core, std::move(*request), order.call(), stored);
                    progress.published(error, stored);
                }
                break;
            case Step::defer:
            case Step::give_back: {
                EndOne request = progress.end();
                std::optional<bool> given;
                static_cast<void>(ask(core, std::move(request), order.call(), given));
                progress.given_back();
                break;
            }
            case Step::done:
                break;
        }
    }
    progress.finish();
}

/// Waits for a load, until @p deadline at most.
void wait_for(Loads& loads, const std::shared_ptr<Load>& load,
              const std::shared_ptr<LoadWait>& waiting, TimePoint deadline) {
    std::mutex mutex;
    std::condition_variable changed;
    bool settled = false;
    waiting->wait_in_thread([&mutex, &changed, &settled] {
        const std::lock_guard lock(mutex);
        settled = true;
        changed.notify_one();
    });
    loads.wait(load, waiting);
    std::unique_lock lock(mutex);
    const auto is_settled = [&] { return settled; };
    if (deadline == TimePoint::max()) {
        changed.wait(lock, is_settled);
    } else if (!changed.wait_until(lock, deadline, is_settled)) {
        lock.unlock();
        waiting->time_out();
        // By this thread, or by another one that was faster.
        lock.lock();
        changed.wait(lock, is_settled);
    }
}

}  // namespace

bool get_or_create_value(BlockingCore& core, std::string key, const CreateOptions& options,
                         Loader loader, ValueReader reader, bool must_have) {
    const Creation creation(core.cache(), std::move(key), options, reader, must_have);
    if (InsideLoader::of(core, creation.key())) {
        throw to_error(LookUpOne::name,
                       Failure(Errc::reentrant_call,
                               "a loader wants the value of its own key, for which it would wait "
                               "for ever"));
    }
    for (;;) {
        Found found = core.perform(LookUpOne(creation.key()), creation.look());
        Creation::Next next = creation.found(found);
        if (next.renewal) {
            auto duty = std::make_shared<LoadDuty>(std::move(*next.renewal));
            core.renewals().start(
                [&core, duty, order = creation.order(), seen = found.sight, loader] {
                    run_load(core, *duty, order, LoadSteps::Kind::renewal, seen, loader);
                });
        }
        if (next.answered) {
            return true;
        }
        const CallerPlace its_place(creation.loads(), next.load);
        if (next.duty) {
            run_load(core, *next.duty, creation.order(), next.kind, found.sight, loader);
        }
        const auto waiting = std::make_shared<LoadWait>();
        wait_for(*creation.loads(), next.load, waiting, creation.deadline());
        if (const auto has_value = creation.loaded(*waiting)) {
            return *has_value;
        }
    }
}

}  // namespace psycache::detail
