#include "cache/cache_core.hpp"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <random>
#include <thread>

#include "cache/call_checks.hpp"
#include "pool/borrow.hpp"
#include "pool/lease_state.hpp"

namespace psycache::detail {

namespace {

/// @returns how many processors this thread may use, 0 if nobody knows.
std::size_t usable_processors() noexcept {
#ifdef __linux__
    // hardware_concurrency() counts those of the machine.
    cpu_set_t usable;
    if (sched_getaffinity(0, sizeof(usable), &usable) == 0) {
        return static_cast<std::size_t>(CPU_COUNT(&usable));
    }
#endif
    return std::thread::hardware_concurrency();
}

Batcher::Settings batcher_settings(const CacheOptions& options, const AsyncCachePool& pool,
                                   CacheCore::Serves serves) {
    Batcher::Settings settings;
    std::size_t connections = GroupLimits::most_workers;
    if (const auto* own = dynamic_cast<const ConnectionPool*>(&pool)) {
        connections = own->statistics().max_size;
        settings.most_writing = std::max<std::size_t>(connections, 2) - 1;
    }
    settings.limits = serves == CacheCore::Serves::one_call
                          ? one_at_a_time()
                          : group_limits(usable_processors(), connections);
    settings.capacity = options.max_queued_calls;
    // A statement belongs to many callers: it gets twice the patience of one before it costs its
    // connection.
    settings.statement_timeout = std::max<Duration>(2 * options.timeout, std::chrono::seconds(2));
    settings.replay_writes = options.replay_writes;
    return settings;
}

/// @returns whether the server cannot name a row by its place: on a view, or a distributed table.
bool has_no_places(const Failure& failure) {
    return failure.sqlstate == "42703" || failure.sqlstate == "0A000";
}

}  // namespace

CacheCore::CacheCore(std::shared_ptr<AsyncCachePool> pool, const CacheOptions& options,
                     std::shared_ptr<Telemetry> telemetry, std::shared_ptr<Breaker> breaker,
                     Serves serves)
    : pool_(std::move(pool)),
      telemetry_(std::move(telemetry)),
      breaker_(std::move(breaker)),
      statements_(std::make_shared<const TableStatements>(
          options.schema, !telemetry_->observers.empty(),
          std::chrono::duration_cast<std::chrono::milliseconds>(options.timeout))),
      batcher_(std::make_shared<Batcher>(
          pool_, statements_, batcher_settings(options, *pool_, serves),
          std::shared_ptr<BatchCounters>(telemetry_, &telemetry_->batches),
          std::shared_ptr<const Observers>(telemetry_, &telemetry_->observers))),
      timeout_(options.timeout),
      maintenance_timeout_(options.maintenance_timeout),
      on_outage_(options.on_outage),
      serves_(serves) {}

std::shared_ptr<Breaker> CacheCore::make_breaker(const CacheOptions& options,
                                                 const std::shared_ptr<Telemetry>& telemetry) {
    if (options.on_outage != OnOutage::miss) {
        return nullptr;
    }
    return std::make_shared<Breaker>(std::random_device()(),
                                     [telemetry](LogLevel level, std::string_view line) {
                                         telemetry->observers.log(level, line);
                                     });
}

bool CacheCore::answered_blocking(const std::shared_ptr<Call>& call) const {
    return batcher_->perform_blocking(CallSpan(&call, 1));
}

asio::awaitable<Result<std::uint64_t>> CacheCore::perform_job(
    Self self, Job<std::uint64_t>::OnCancel on_cancel, JobBody<std::uint64_t> body) {
    asio::any_io_executor executor = self->pool_executor();
    if (!executor) {
        executor = co_await asio::this_coro::executor;
    }
    co_return co_await run_job<std::uint64_t>(std::move(executor), on_cancel, std::move(body));
}

/// @param mistake in the call's arguments, if there is one.
/// @returns the call's beginning; what is to be answered is left to be put in.
template <class Span>
LoneCall<Span> CacheCore::begin(Spans<Span> spans, std::optional<Failure> mistake,
                                Begun<Span>& begun) const {
    LoneCall<Span> lone(std::move(spans), admit(begun));
    if (!mistake) {
        mistake = obstacle(begun, lone.pass);
    }
    if (mistake) {
        lone.failure = std::move(*mistake);
    }
    return lone;
}

/// @returns the answer; none where the caller is to hear of no failure. @throws Error otherwise.
template <class Span>
CallAnswer* CacheCore::end(LoneCall<Span>& lone, std::string_view operation) const {
    if (lone.call) {
        if (!lone.call->settled()) {
            lone.failure = Failure(Errc::protocol_error);
        } else if (Result<CallAnswer>& result = lone.call->value()) {
            lone.pass.succeeded();
            return &*result;
        } else {
            lone.failure = result.error();
        }
    }
    if (failed(lone.spans, lone.pass, lone.failure)) {
        return nullptr;
    }
    throw to_error(operation, lone.failure);
}

LoneCall<CacheGetSpan> CacheCore::begin_get(Form form, std::string key, std::string_view span_name,
                                            Begun<CacheGetSpan> begun) const {
    auto spans = begun.spans ? std::move(*begun.spans)
                             : open_get_spans(telemetry_->observers, key, span_name);
    auto lone = begin(std::move(spans), check_key(key), begun);
    if (!lone.failure.code) {
        lone.call =
            std::make_shared<Call>(CallKind::get, std::move(key), begun.until.value_or(deadline()));
        lone.call->as_text = form == Form::text;
    }
    return lone;
}

CallAnswer* CacheCore::end_get(LoneCall<CacheGetSpan>& lone, std::string_view operation) const {
    CallAnswer* answer = end(lone, operation);
    if (answer == nullptr) {
        telemetry_->outage_miss();
    } else if (answer->value || answer->text) {
        telemetry_->hit();
        lone.spans.record([&](CacheGetSpan& span) { span.record_cache_hit(answer->size); });
    } else {
        telemetry_->miss();
        lone.spans.record([](CacheGetSpan& span) { span.record_cache_miss(); });
    }
    return answer;
}

std::optional<json::object> CacheCore::end_get_raw(LoneCall<CacheGetSpan>& lone) const {
    CallAnswer* answer = end_get(lone, "get_raw");
    return answer != nullptr ? std::move(answer->value) : std::nullopt;
}

std::optional<std::string> CacheCore::end_get_text(LoneCall<CacheGetSpan>& lone) const {
    CallAnswer* answer = end_get(lone, "get_text");
    return answer != nullptr ? std::move(answer->text) : std::nullopt;
}

LoneCall<CachePutSpan> CacheCore::begin_put(std::string key, Result<std::string> jsonb,
                                            Duration ttl, std::string_view span_name,
                                            Begun<CachePutSpan> begun) const {
    auto spans = begun.spans ? std::move(*begun.spans)
                             : open_put_spans(telemetry_->observers, key, span_name);
    std::optional<Failure> mistake = check_key(key);
    if (!mistake) {
        mistake = check_ttl(ttl);
    }
    if (!mistake && !jsonb) {
        mistake = jsonb.error();
    }
    auto lone = begin(std::move(spans), std::move(mistake), begun);
    if (!lone.failure.code) {
        lone.call =
            std::make_shared<Call>(CallKind::put, std::move(key), begun.until.value_or(deadline()));
        lone.call->jsonb = std::move(*jsonb);
        lone.call->ttl = ttl;
    }
    return lone;
}

void CacheCore::end_put(LoneCall<CachePutSpan>& lone, Form form) const {
    if (form == Form::text && lone.call && lone.call->settled() && !lone.call->value()) {
        lone.call->value() = explain_text(lone.call->value().error());
    }
    const CallAnswer* answer = end(lone, form == Form::text ? "put_text" : "put_raw");
    if (answer == nullptr) {
        telemetry_->dropped_write();
        return;
    }
    telemetry_->put();
    lone.spans.record([&](CachePutSpan& span) { span.record_put(answer->size); });
}

LoneCall<CacheRemoveSpan> CacheCore::begin_remove(std::string key,
                                                  Begun<CacheRemoveSpan> begun) const {
    auto spans =
        begun.spans ? std::move(*begun.spans) : open_remove_spans(telemetry_->observers, key);
    auto lone = begin(std::move(spans), check_key(key), begun);
    if (!lone.failure.code) {
        lone.call = std::make_shared<Call>(CallKind::remove, std::move(key),
                                           begun.until.value_or(deadline()));
    }
    return lone;
}

bool CacheCore::end_remove(LoneCall<CacheRemoveSpan>& lone) const {
    const CallAnswer* answer = end(lone, "remove");
    if (answer == nullptr) {
        telemetry_->dropped_write();
        return false;
    }
    telemetry_->removed();
    lone.spans.record([](CacheRemoveSpan& span) { span.record_removed(); });
    return answer->existed;
}

asio::awaitable<void> CacheCore::answer(Self self, std::shared_ptr<Call> call) {
    auto answer =
        Batcher::perform(self->batcher_, std::move(call), co_await asio::this_coro::executor);
    co_await std::move(answer);
}

asio::awaitable<std::optional<json::object>> CacheCore::get(Self self, std::string key,
                                                            std::string span_name) {
    auto lone = self->begin_get(Form::object, std::move(key), span_name);
    if (lone.call) {
        auto answer =
            Batcher::perform(self->batcher_, lone.call, co_await asio::this_coro::executor);
        co_await std::move(answer);
    }
    co_return self->end_get_raw(lone);
}

asio::awaitable<std::optional<std::string>> CacheCore::get_text(Self self, std::string key,
                                                                std::string span_name) {
    auto lone = self->begin_get(Form::text, std::move(key), span_name);
    if (lone.call) {
        auto answer =
            Batcher::perform(self->batcher_, lone.call, co_await asio::this_coro::executor);
        co_await std::move(answer);
    }
    co_return self->end_get_text(lone);
}

asio::awaitable<void> CacheCore::put(Self self, Form form, std::string key,
                                     Result<std::string> jsonb, Duration ttl,
                                     std::string span_name) {
    auto lone = self->begin_put(std::move(key), std::move(jsonb), ttl, span_name);
    if (lone.call) {
        auto answer =
            Batcher::perform(self->batcher_, lone.call, co_await asio::this_coro::executor);
        co_await std::move(answer);
    }
    self->end_put(lone, form);
}

asio::awaitable<bool> CacheCore::remove(Self self, std::string key) {
    auto lone = self->begin_remove(std::move(key));
    if (lone.call) {
        auto answer =
            Batcher::perform(self->batcher_, lone.call, co_await asio::this_coro::executor);
        co_await std::move(answer);
    }
    co_return self->end_remove(lone);
}

asio::awaitable<Result<std::uint64_t>> CacheCore::delete_with(DeleteJob job,
                                                              const pg::Statement& statement,
                                                              std::string_view operation,
                                                              bool repeatable) {
    const Observers& observers = telemetry_->observers;
    const pg::Parameters none;
    bool again = false;
    for (Tries tries;; again = true) {
        Result<ConnectionLease> lease = co_await borrow(*pool_, observers);
        if (!lease) {
            co_return lease.error();
        }
        if (!job->begin_step()) {
            co_return cancelled_failure();
        }
        telemetry_->batches.retries += again ? 1 : 0;
        const StatementWatch watch(observers, operation, 1, again);
        pg::Answer answer = co_await lease->state().connection().execute(
            statement, none, std::chrono::steady_clock::now() + maintenance_timeout_);
        watch.ended(answer ? boost::system::error_code() : answer.error().failure.code);
        job->end_step();
        if (answer) {
            co_return answer->affected();
        }
        const pg::StatementFailure failed = answer.error();
        switch (judge(failed, CallKind::remove, 1, repeatable, tries)) {
            case Verdict::retry:
            case Verdict::retry_later:
                break;
            case Verdict::one_by_one:
            case Verdict::fail:
                co_return statements_->explain(failed.failure);
            case Verdict::fail_as_unknown:
                // Who may repeat it need not know whether it was done.
                co_return repeatable ? failed.failure : Failure(Errc::outcome_unknown);
        }
    }
}

asio::awaitable<Result<std::uint64_t>> CacheCore::delete_all(Self self, DeleteJob job) {
    co_return co_await self->delete_with(std::move(job), self->statements_->flush, "flush", false);
}

asio::awaitable<std::uint64_t> CacheCore::flush(Self self, Begun<CacheFlushSpan> begun) {
    Spans<CacheFlushSpan> spans =
        begun.spans ? std::move(*begun.spans) : open_flush_spans(self->telemetry_->observers);
    JobBody<std::uint64_t> body = [self](DeleteJob job) {
        return delete_all(self, std::move(job));
    };
    Result<std::uint64_t> result = 0;
    if (begun.obstacle) {
        result = std::move(*begun.obstacle);
    } else {
        result = co_await perform_job(self, Job<std::uint64_t>::OnCancel::leave, std::move(body));
    }
    if (!result) {
        self->telemetry_->failed(spans, result.error());
        throw to_error("flush", result.error());
    }
    spans.record([&](CacheFlushSpan& span) { span.record_flush(*result); });
    co_return *result;
}

asio::awaitable<Result<std::uint64_t>> CacheCore::delete_batch(Self self, DeleteJob job) {
    const TableStatements& statements = *self->statements_;
    if (!self->cleanup_by_key_) {
        Result<std::uint64_t> deleted =
            co_await self->delete_with(job, statements.cleanup, "cleanup", true);
        if (deleted || !has_no_places(deleted.error())) {
            co_return deleted;
        }
    }
    Result<std::uint64_t> deleted =
        co_await self->delete_with(job, statements.cleanup_by_key, "cleanup", true);
    if (deleted) {
        self->cleanup_by_key_ = true;
    }
    co_return deleted;
}

asio::awaitable<Result<std::uint64_t>> CacheCore::delete_expired(Self self, DeleteJob job) {
    std::uint64_t total = 0;
    for (;;) {
        Result<std::uint64_t> batch = co_await delete_batch(self, job);
        if (!batch) {
            co_return batch;
        }
        total += *batch;
        if (*batch < TableStatements::cleanup_batch_size) {
            break;
        }
    }
    if (job->stop_requested()) {
        co_return cancelled_failure();
    }
    co_return total;
}

asio::awaitable<std::uint64_t> CacheCore::cleanup_expired(Self self,
                                                          Begun<CacheCleanupSpan> begun) {
    Spans<CacheCleanupSpan> spans =
        begun.spans ? std::move(*begun.spans) : open_cleanup_spans(self->telemetry_->observers);
    JobBody<std::uint64_t> body = [self](DeleteJob job) {
        return delete_expired(self, std::move(job));
    };
    Result<std::uint64_t> result = 0;
    if (begun.obstacle) {
        result = std::move(*begun.obstacle);
    } else {
        result = co_await perform_job(self, Job<std::uint64_t>::OnCancel::wait_for_the_end,
                                      std::move(body));
    }
    if (!result) {
        self->telemetry_->failed(spans, result.error());
        throw to_error("cleanup_expired", result.error());
    }
    spans.record([&](CacheCleanupSpan& span) { span.record_cleanup(*result); });
    co_return *result;
}

asio::awaitable<void> CacheCore::run_cleanup(Self self, Duration interval) {
    // What stops the loop is for its caller to say; a spawned coroutine lets only "terminal"
    // through.
    co_await asio::this_coro::reset_cancellation_state(asio::enable_total_cancellation());
    asio::steady_timer pause(co_await asio::this_coro::executor);
    for (;;) {
        std::exception_ptr thrown;
        try {
            co_await cleanup_expired(self);
        } catch (...) {
            thrown = std::current_exception();
        }
        auto state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() == asio::cancellation_type::none) {
            if (thrown) {
                self->telemetry_->cleanup_failed(to_failure(thrown, Errc::protocol_error).cause);
            }
            pause.expires_after(interval);
            co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
            state = co_await asio::this_coro::cancellation_state;
        }
        if (state.cancelled() != asio::cancellation_type::none) {
            throw to_error("run_cleanup", cancelled_failure());
        }
    }
}

std::optional<PoolStatistics> CacheCore::pool_statistics() const {
    if (const auto* pool = dynamic_cast<const ConnectionPool*>(pool_.get())) {
        return pool->statistics();
    }
    return std::nullopt;
}

CacheStatistics CacheCore::statistics() const {
    CacheStatistics now = telemetry_->statistics();
    now.queued = batcher_->queued();
    now.circuit_open = breaker_ && breaker_->open();
    return now;
}

}  // namespace psycache::detail
