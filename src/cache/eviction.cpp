#include "cache/eviction.hpp"

#include <algorithm>

namespace psycache::detail {

namespace {

/// A table that has no statistics or places of its own: a view, a partitioned table.
bool cannot_be_bounded(const Failure& failure) {
    return Cleanup::has_no_places(failure) || failure.sqlstate == "42809" ||
           failure.sqlstate == "42601";
}

void complain(const CacheCore& core) {
    if (!core.operations.evict.complained.exchange(true)) {
        core.observers->log(LogLevel::warning,
                            "max_entries and max_bytes are not kept: the cache's table is a view, "
                            "partitioned or distributed, and the server has no estimate of its "
                            "size");
    }
}

/// What the server knows of the table.
struct SizeSight {
    TableEstimate estimate;
    std::int64_t shown = 0;      ///< how many entries its statistics show
    bool shows_at_once = false;  ///< whether they can be told to
};

/// @returns nothing where it does not know enough.
asio::awaitable<Result<std::optional<SizeSight>>> look(const CacheCore& core,
                                                       std::shared_ptr<TableJob> job,
                                                       Duration patience) {
    const Evict& evict = core.operations.evict;
    const pg::Parameters none;
    const Result<pg::Rows> rows = co_await run_on_table(
        core, std::move(job),
        TableStatement{core.limits.bytes ? evict.entries_and_bytes : evict.entries, none, "cleanup",
                       true, patience});
    if (!rows && !cannot_be_bounded(rows.error())) {
        co_return rows.error();
    }
    if (!rows || rows->size() != 1 || rows->integer(0, 0) < 0) {
        complain(core);
        co_return std::optional<SizeSight>();
    }
    co_return SizeSight{{static_cast<std::uint64_t>(rows->integer(0, 0)),
                         static_cast<std::uint64_t>(rows->integer(0, 1))},
                        rows->integer(0, 2),
                        rows->integer(0, 3) != 0};
}

/// @returns how many were deleted.
asio::awaitable<Result<std::uint64_t>> evict_batch(const CacheCore& core,
                                                   std::shared_ptr<TableJob> job,
                                                   const SizeSight& sight, std::uint64_t most,
                                                   Duration patience) {
    const Evict& evict = core.operations.evict;
    pg::Parameters parameters;
    parameters.int8(static_cast<std::int64_t>(most));
    // Another cleaner that was quicker has deleted more than a few removes do meanwhile.
    parameters.int8(sight.shown - static_cast<std::int64_t>(most / 2));
    const Result<pg::Rows> gone =
        co_await run_on_table(core, std::move(job),
                              TableStatement{sight.shows_at_once ? evict.batch_shown : evict.batch,
                                             parameters, "cleanup", true, patience});
    if (core.near) {
        core.near->forget_all();
    }
    if (gone) {
        const auto deleted = static_cast<std::uint64_t>(gone->integer(0, 0));
        core.counts->evictions += deleted;
        co_return deleted;
    }
    if (!cannot_be_bounded(gone.error())) {
        co_return gone.error();
    }
    complain(core);
    co_return 0;
}

}  // namespace

asio::awaitable<Result<std::uint64_t>> evict_excess(const CacheCore& core,
                                                    std::shared_ptr<TableJob> job,
                                                    Duration patience) {
    if (!core.limits.any()) {
        co_return 0;
    }
    auto looking = look(core, job, patience);
    Result<std::optional<SizeSight>> sight = co_await std::move(looking);
    std::uint64_t total = 0;
    std::uint64_t left = sight && *sight ? excess(core.limits, (*sight)->estimate) : 0;
    while (left > 0) {
        const std::uint64_t most = first_batch((*sight)->estimate, left);
        auto deleting = evict_batch(core, job, **sight, most, patience);
        const Result<std::uint64_t> deleted = co_await std::move(deleting);
        if (!deleted) {
            co_return deleted.error();
        }
        total += *deleted;
        if (*deleted < most) {
            break;
        }
        if ((*sight)->shows_at_once) {
            auto looking_again = look(core, job, patience);
            sight = co_await std::move(looking_again);
            left = sight && *sight ? excess(core.limits, (*sight)->estimate) : 0;
        } else {
            left -= most;
            (*sight)->estimate.entries -= most;
            (*sight)->shown -= static_cast<std::int64_t>(most);
        }
    }
    if (!sight) {
        co_return sight.error();
    }
    co_return total;
}

}  // namespace psycache::detail
