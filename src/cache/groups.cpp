#include "cache/groups.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <iterator>
#include <random>
#include <string_view>
#include <vector>

#include "cache/table_job.hpp"
#include "core/backoff.hpp"

namespace psycache::detail {

namespace {

/// How many keys whose rows are locked are kept in mind before the others go on.
constexpr std::size_t most_held = 10'000;

// Between two looks at rows that are locked, and between two tries to have the table alone: the
// latter make everybody wait, so that the pauses are to be longer than the tries.
constexpr std::chrono::milliseconds shortest_look{10};
constexpr std::chrono::milliseconds longest_look{80};
constexpr std::chrono::milliseconds shortest_wait{2 * Clear::wait};
constexpr std::chrono::milliseconds longest_wait{10 * Clear::wait};

/// A call on a group of entries, while its batches run.
class Sweeper {
  public:
    Sweeper(const CacheCore& core, std::shared_ptr<TableJob> job, std::string_view operation,
            TimePoint deadline)
        : core_(core), job_(std::move(job)), operation_(operation), deadline_(deadline) {}

    /// Runs one batch: counts what it has removed, and keeps the keys that it left.
    asio::awaitable<Result<Sweep>> run(const pg::Statement& statement,
                                       const pg::Parameters& parameters) {
        auto running = run_on_table(core_, job_,
                                    TableStatement{statement, parameters, operation_, true,
                                                   std::max(Duration::zero(), left()), deadline_});
        const Result<pg::Rows> rows = co_await std::move(running);
        if (!rows) {
            co_return rows.error();
        }
        Sweep sweep(*rows);
        // It may have left more than it names.
        sweep.more = sweep.more || sweep.held.size() >= sweep_size;
        entries_ += sweep.entries;
        held_.insert(held_.end(), std::make_move_iterator(sweep.held.begin()),
                     std::make_move_iterator(sweep.held.end()));
        sweep.held.clear();
        co_return sweep;
    }

    /// Waits for what was left, and removes it. @param again makes a statement of its keys.
    /// @returns nothing, or why it could not be.
    template <class Again>
    asio::awaitable<Failure> run_held(Again again) {
        asio::steady_timer pause(co_await asio::this_coro::executor);
        Backoff backoff{std::random_device()(), shortest_look};
        while (!held_.empty()) {
            backoff.failed(Clock::now(), longest_look);
            if (backoff.next_attempt() >= deadline_) {
                co_return still_held();
            }
            pause.expires_at(backoff.next_attempt());
            co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
            std::vector<std::string> keys;
            keys.swap(held_);
            for (auto next = keys.begin(); next != keys.end();) {
                const auto end = next + std::min<std::ptrdiff_t>(sweep_size, keys.end() - next);
                pg::ArrayBuilder array(pg::Oid::text, static_cast<std::size_t>(end - next));
                for (; next != end; ++next) {
                    array.add(*next);
                }
                auto running = again(*this, array.take());
                const Result<Sweep> sweep = co_await std::move(running);
                if (!sweep) {
                    co_return sweep.error().code == Errc::timed_out ? still_held() : sweep.error();
                }
            }
        }
        co_return Failure();
    }

    bool holds_many() const noexcept { return held_.size() >= most_held; }
    std::uint64_t entries() const noexcept { return entries_; }
    Duration left() const { return std::chrono::duration_cast<Duration>(deadline_ - Clock::now()); }

  private:
    static Failure still_held() {
        return {Errc::timed_out,
                "other transactions have entries of the group locked (maintenance_timeout)"};
    }

    const CacheCore& core_;
    const std::shared_ptr<TableJob> job_;
    const std::string_view operation_;
    const TimePoint deadline_;
    std::uint64_t entries_ = 0;
    std::vector<std::string> held_;
};

asio::awaitable<Result<Sweep>> sweep_prefix_again(Sweeper& sweeper, const pg::Statement& statement,
                                                  std::string keys) {
    pg::Parameters parameters;
    parameters.own(std::move(keys));
    co_return co_await sweeper.run(statement, parameters);
}

asio::awaitable<Result<Sweep>> sweep_tag_again(Sweeper& sweeper, const pg::Statement& statement,
                                               const std::string& tag, std::string keys) {
    pg::Parameters parameters;
    parameters.borrow(tag);
    parameters.own(std::move(keys));
    co_return co_await sweeper.run(statement, parameters);
}

asio::awaitable<Result<std::uint64_t>> sweep_prefix(CacheCore::Self core,
                                                    std::shared_ptr<TableJob> job,
                                                    std::string prefix, TimePoint deadline) {
    const RemovePrefix& operation = core->operations.remove_prefix;
    const std::string pattern = RemovePrefix::pattern(prefix);
    pg::Parameters parameters;
    parameters.borrow(pattern);
    Sweeper sweeper(*core, job, RemovePrefixed::name, deadline);
    for (bool more = true; more;) {
        auto running = sweeper.run(operation.batch, parameters);
        const Result<Sweep> sweep = co_await std::move(running);
        if (!sweep && Cleanup::has_no_places(sweep.error())) {
            auto whole =
                run_on_table(*core, job,
                             TableStatement{operation.whole, parameters, RemovePrefixed::name, true,
                                            sweeper.left(), deadline});
            const Result<pg::Rows> rows = co_await std::move(whole);
            co_return rows ? Result<std::uint64_t>(rows->affected()) : rows.error();
        }
        if (!sweep) {
            co_return sweep.error();
        }
        more = sweep->more;
        auto rest = sweeper.run_held([&](Sweeper& self, std::string keys) {
            return sweep_prefix_again(self, operation.again, std::move(keys));
        });
        const Failure failure = co_await std::move(rest);
        if (failure.code) {
            co_return failure;
        }
    }
    co_return sweeper.entries();
}

asio::awaitable<Result<std::uint64_t>> sweep_tag(CacheCore::Self core,
                                                 std::shared_ptr<TableJob> job, std::string tag,
                                                 TimePoint deadline) {
    const RemoveTag& operation = core->operations.remove_tag;
    Sweeper sweeper(*core, job, RemoveTagged::name, deadline);
    std::string last;
    bool first = true;
    for (bool more = true; more; first = false) {
        pg::Parameters parameters;
        parameters.borrow(tag);
        if (!first) {
            parameters.borrow(last);
        }
        auto running = sweeper.run(first ? operation.first : operation.next, parameters);
        const Result<Sweep> sweep = co_await std::move(running);
        if (!sweep) {
            co_return sweep.error();
        }
        more = sweep->more;
        last = sweep->last;
        if (more && !sweeper.holds_many()) {
            continue;
        }
        auto rest = sweeper.run_held([&](Sweeper& self, std::string keys) {
            return sweep_tag_again(self, operation.again, tag, std::move(keys));
        });
        const Failure failure = co_await std::move(rest);
        if (failure.code) {
            co_return failure;
        }
    }
    co_return sweeper.entries();
}

asio::awaitable<Result<std::uint64_t>> truncate(CacheCore::Self core, std::shared_ptr<TableJob> job,
                                                TimePoint deadline) {
    const pg::Parameters none;
    asio::steady_timer pause(co_await asio::this_coro::executor);
    Backoff backoff{std::random_device()(), shortest_wait};
    for (;;) {
        const Duration patience = std::chrono::duration_cast<Duration>(deadline - Clock::now());
        auto running = run_on_table(*core, job,
                                    TableStatement{core->operations.clear.all, none, ClearAll::name,
                                                   false, patience, deadline});
        const Result<pg::Rows> rows = co_await std::move(running);
        if (rows) {
            co_return std::uint64_t{0};
        }
        if (!Clear::in_use(rows.error())) {
            co_return Clear::explain(rows.error());
        }
        backoff.failed(Clock::now(), longest_wait);
        // A try that cannot wait for its time would be no better, and tell less.
        if (backoff.next_attempt() + Clear::wait >= deadline) {
            co_return Failure(Errc::timed_out,
                              "other transactions use the table (maintenance_timeout)");
        }
        pause.expires_at(backoff.next_attempt());
        co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
    }
}

}  // namespace

asio::awaitable<std::uint64_t> remove_prefix(CacheCore::Self core, std::string prefix,
                                             CallOptions options) {
    JobBody<std::uint64_t> body =
        [core, prefix, patience = core->patience(options)](std::shared_ptr<TableJob> job) {
            return sweep_prefix(core, std::move(job), prefix, Clock::now() + patience);
        };
    return perform_job(std::move(core), RemovePrefixed(std::move(prefix)),
                       TableJob::OnCancel::leave, std::move(body), std::move(options));
}

asio::awaitable<std::uint64_t> remove_tag(CacheCore::Self core, std::string tag,
                                          CallOptions options) {
    JobBody<std::uint64_t> body =
        [core, tag, patience = core->patience(options)](std::shared_ptr<TableJob> job) {
            return sweep_tag(core, std::move(job), tag, Clock::now() + patience);
        };
    return perform_job(std::move(core), RemoveTagged(std::move(tag)), TableJob::OnCancel::leave,
                       std::move(body), std::move(options));
}

asio::awaitable<std::uint64_t> clear(CacheCore::Self core, CallOptions options) {
    JobBody<std::uint64_t> body =
        [core, patience = core->patience(options)](std::shared_ptr<TableJob> job) {
            return truncate(core, std::move(job), Clock::now() + patience);
        };
    return perform_job(std::move(core), ClearAll(), TableJob::OnCancel::leave, std::move(body),
                       std::move(options));
}

}  // namespace psycache::detail
