#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/connection_pool.hpp>
#include <psycache/entry.hpp>

#include "async/job.hpp"
#include "batching/batcher.hpp"
#include "cache/breaker.hpp"
#include "cache/lone_call.hpp"
#include "cache/telemetry.hpp"
#include "statements/table_statements.hpp"

namespace psycache::detail {

/// An entry that is ready to be sent.
struct PutItem {
    std::string key;
    std::string jsonb;
    Duration ttl{0};
};

/// Checks and encodes the entries of a put_raw_many; of several with one key only the last stays.
Result<std::vector<PutItem>> put_items(const std::vector<Entry>& entries);

/// What the handles of one cache share: every operation, with its checks, its spans and its counts.
///
/// The facade runs the same operations on its lanes, with its own deadlines.
class CacheCore {
  public:
    using Self = std::shared_ptr<CacheCore>;

    /// What a call brings along that began before it got here, in the facade: its deadline, its
    /// spans, its way past the breaker, and why it cannot go on, if it cannot. By default it has
    /// one time-out from now, opens its spans itself and asks the breaker.
    template <class Span>
    struct Begun {
        Begun() = default;
        Begun(TimePoint deadline, Spans<Span> opened, Breaker::Pass admitted)
            : until(deadline), spans(std::move(opened)), pass(std::move(admitted)) {}

        std::optional<TimePoint> until;
        std::optional<Spans<Span>> spans;
        std::optional<Breaker::Pass> pass;
        std::optional<Failure> obstacle;
    };

    /// What a value is to the caller.
    enum class Form { object, text };

    /// Whom the executor of a core serves.
    enum class Serves {
        many,      ///< callers that must not be held up
        one_call,  ///< one call at a time, which may block
    };

    /// @param options   checked already.
    /// @param telemetry shared with other cores of the same cache.
    /// @param breaker   shared with them too; none where outages are to be heard of.
    CacheCore(std::shared_ptr<AsyncCachePool> pool, const CacheOptions& options,
              std::shared_ptr<Telemetry> telemetry, std::shared_ptr<Breaker> breaker,
              Serves serves = Serves::many);

    /// @returns the breaker of a cache with such options, if it is to have one.
    static std::shared_ptr<Breaker> make_breaker(const CacheOptions& options,
                                                 const std::shared_ptr<Telemetry>& telemetry);

    static asio::awaitable<std::optional<json::object>> get(Self self, std::string key,
                                                            std::string span_name);
    static asio::awaitable<std::optional<std::string>> get_text(Self self, std::string key,
                                                                std::string span_name);
    /// @param form  what the caller gave.
    /// @param jsonb what was made of it: the value itself is not needed any more.
    static asio::awaitable<void> put(Self self, Form form, std::string key,
                                     Result<std::string> jsonb, Duration ttl,
                                     std::string span_name);
    static asio::awaitable<bool> remove(Self self, std::string key);

    /// The same in pieces, for a lane, which needs no coroutine unless there is something to wait
    /// for: what begins has its call answered before it ends.
    LoneCall<CacheGetSpan> begin_get(Form form, std::string key, std::string_view span_name,
                                     Begun<CacheGetSpan> begun = {}) const;
    std::optional<json::object> end_get_raw(LoneCall<CacheGetSpan>& lone) const;
    std::optional<std::string> end_get_text(LoneCall<CacheGetSpan>& lone) const;
    LoneCall<CachePutSpan> begin_put(std::string key, Result<std::string> jsonb, Duration ttl,
                                     std::string_view span_name,
                                     Begun<CachePutSpan> begun = {}) const;
    void end_put(LoneCall<CachePutSpan>& lone, Form form) const;
    LoneCall<CacheRemoveSpan> begin_remove(std::string key,
                                           Begun<CacheRemoveSpan> begun = {}) const;
    bool end_remove(LoneCall<CacheRemoveSpan>& lone) const;
    /// @returns whether the call has been answered in this thread, on a connection that was idle.
    bool answered_blocking(const std::shared_ptr<Call>& call) const;
    /// Waits for the answer.
    static asio::awaitable<void> answer(Self self, std::shared_ptr<Call> call);

    static asio::awaitable<std::uint64_t> cleanup_expired(Self self,
                                                          Begun<CacheCleanupSpan> begun = {});
    static asio::awaitable<std::uint64_t> flush(Self self, Begun<CacheFlushSpan> begun = {});

    /// @returns the value of each key, in their order.
    static asio::awaitable<std::vector<std::optional<json::object>>> get_many(
        Self self, std::vector<std::string> keys, std::string span_name,
        Begun<CacheGetSpan> begun = {});
    static asio::awaitable<void> put_many(Self self, Result<std::vector<PutItem>> items,
                                          std::string span_name, Begun<CachePutSpan> begun = {});
    /// @returns how many entries were there.
    static asio::awaitable<std::uint64_t> remove_many(Self self, std::vector<std::string> keys,
                                                      Begun<CacheRemoveSpan> begun = {});

    /// The cleanup loop; @p interval is checked already.
    static asio::awaitable<void> run_cleanup(Self self, Duration interval);

    /// @returns the deadline of a call that starts now.
    TimePoint deadline() const { return std::chrono::steady_clock::now() + timeout_; }
    /// @returns the pool's executor, empty if it names none.
    asio::any_io_executor pool_executor() const { return pool_->get_executor(); }
    CacheStatistics statistics() const;
    /// @returns the pool's numbers, if it is a ConnectionPool.
    std::optional<PoolStatistics> pool_statistics() const;
    const Observers& observers() const noexcept { return telemetry_->observers; }

  private:
    using DeleteJob = std::shared_ptr<Job<std::uint64_t>>;

    static asio::awaitable<Result<std::uint64_t>> perform_job(
        Self self, Job<std::uint64_t>::OnCancel on_cancel, JobBody<std::uint64_t> body);
    static asio::awaitable<Result<std::uint64_t>> delete_all(Self self, DeleteJob job);
    static asio::awaitable<Result<std::uint64_t>> delete_expired(Self self, DeleteJob job);
    static asio::awaitable<Result<std::uint64_t>> delete_batch(Self self, DeleteJob job);
    /// @param repeatable whether the statement may be sent again when its answer was lost.
    asio::awaitable<Result<std::uint64_t>> delete_with(DeleteJob job,
                                                       const pg::Statement& statement,
                                                       std::string_view operation, bool repeatable);

    template <class Span>
    Breaker::Pass admit(Begun<Span>& begun) const;
    template <class Span>
    static std::optional<Failure> obstacle(Begun<Span>& begun, const Breaker::Pass& pass);
    template <class Span>
    bool failed(Spans<Span>& spans, Breaker::Pass& pass, const Failure& failure) const noexcept;
    void answer_blocking(Calls& calls) const;

    template <class Span>
    LoneCall<Span> begin(Spans<Span> spans, std::optional<Failure> mistake,
                         Begun<Span>& begun) const;
    template <class Span>
    CallAnswer* end(LoneCall<Span>& lone, std::string_view operation) const;
    CallAnswer* end_get(LoneCall<CacheGetSpan>& lone, std::string_view operation) const;
    static asio::awaitable<Failure> perform_all(Self self, Calls calls);

    const std::shared_ptr<AsyncCachePool> pool_;
    const std::shared_ptr<Telemetry> telemetry_;
    const std::shared_ptr<Breaker> breaker_;
    const std::shared_ptr<const TableStatements> statements_;
    const std::shared_ptr<Batcher> batcher_;
    const Duration timeout_;
    const Duration maintenance_timeout_;
    const OnOutage on_outage_;
    const Serves serves_;
    std::atomic<bool> cleanup_by_key_{false};  // the table's rows have no place that can be named
};

template <class Span>
Breaker::Pass CacheCore::admit(Begun<Span>& begun) const {
    if (begun.pass) {
        return std::move(*begun.pass);
    }
    return breaker_ ? breaker_->admit(std::chrono::steady_clock::now()) : Breaker::Pass();
}

/// @returns why a call whose arguments are good is not even tried.
template <class Span>
std::optional<Failure> CacheCore::obstacle(Begun<Span>& begun, const Breaker::Pass& pass) {
    return begun.obstacle ? std::move(begun.obstacle) : pass.refusal();
}

/// Tells everybody of a failed call. @returns whether its caller hears nothing of it.
template <class Span>
bool CacheCore::failed(Spans<Span>& spans, Breaker::Pass& pass,
                       const Failure& failure) const noexcept {
    telemetry_->failed(spans, failure);
    pass.failed(failure);
    return on_outage_ == OnOutage::miss && failure.code == Condition::unavailable;
}

}  // namespace psycache::detail
