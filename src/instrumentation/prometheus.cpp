#include <psycache/instrumentation/prometheus.hpp>

#include "prometheus_metrics.hpp"

namespace psycache {

using namespace detail;

namespace {

using Metrics = detail::PrometheusMetrics;

/// What all spans have in common; it holds nothing that can fail at its end.
template <class Base>
class Span : public Base {
  public:
    /// @param duration where it is wanted.
    Span(const OperationSeries& operation, Histogram* duration)
        : operation_(operation), duration_(duration), start_(Clock::now()) {
        operation_.in_progress->Increment();
    }
    ~Span() override {
        operation_.in_progress->Decrement();
        try {
            if (duration_ != nullptr) {
                duration_->Observe(seconds(Clock::now() - start_));
            }
        } catch (const std::exception&) {  // its mutex may refuse
        }
    }

    void record_error(const boost::system::error_code& code) override {
        operation_.errors[kind_of(code)]->Increment();
    }

  private:
    const OperationSeries& operation_;
    Histogram* const duration_;
    const Clock::time_point start_;
};

class GetSpan final : public Span<CacheGetSpan> {
  public:
    GetSpan(Metrics& metrics, const SpanInfo& info, NamedSeries& series)
        : Span(metrics.operation_of_call(info.operation, "get"), &metrics.get_duration(series)),
          metrics_(metrics),
          series_(series) {}

    void record_cache_hit(std::size_t size) override {
        metrics_.hit(series_);
        metrics_.item_size(series_, size);
    }
    void record_cache_miss() override { metrics_.miss(series_); }

  private:
    Metrics& metrics_;
    NamedSeries& series_;
};

class PutSpan final : public Span<CachePutSpan> {
  public:
    PutSpan(Metrics& metrics, const SpanInfo& info, NamedSeries& series)
        : Span(metrics.operation_of_call(info.operation, "put"), &metrics.put_duration(series)),
          metrics_(metrics),
          series_(series) {}

    void record_put(std::size_t size) override { metrics_.item_size(series_, size); }

  private:
    Metrics& metrics_;
    NamedSeries& series_;
};

class RemoveSpan final : public Span<CacheRemoveSpan> {
  public:
    explicit RemoveSpan(Metrics& metrics)
        : Span(metrics.operation(op_remove), &metrics.plain().remove_duration) {}
};

class InvalidationSpan final : public Span<CacheInvalidationSpan> {
  public:
    explicit InvalidationSpan(const OperationSeries& series)
        : Span(series, series.invalidation_duration), series_(series) {}

    void record_invalidated(std::uint64_t entries) override {
        if (series_.invalidated_entries != nullptr) {
            series_.invalidated_entries->Increment(static_cast<double>(entries));
        }
    }

  private:
    const OperationSeries& series_;
};

class FlushSpan final : public Span<CacheFlushSpan> {
  public:
    explicit FlushSpan(Metrics& metrics)
        : Span(metrics.operation(op_flush), &metrics.plain().flush_duration), metrics_(metrics) {}

    void record_flush(std::uint64_t entries) override {
        metrics_.plain().flushed_entries.Observe(static_cast<double>(entries));
    }

  private:
    Metrics& metrics_;
};

class CleanupSpan final : public Span<CacheCleanupSpan> {
  public:
    explicit CleanupSpan(Metrics& metrics)
        : Span(metrics.operation(op_cleanup), &metrics.plain().cleanup_duration),
          metrics_(metrics) {}

    void record_cleanup(std::uint64_t entries) override {
        const std::chrono::duration<double> now =
            std::chrono::system_clock::now().time_since_epoch();
        metrics_.plain().cleanup_last_run.Set(now.count());
        metrics_.plain().cleanup_deleted.Set(static_cast<double>(entries));
    }

  private:
    Metrics& metrics_;
};

// Not by the time alone: a loader may take less than the clock can tell. One that was cancelled may
// come without its time.
bool has_duration(const LoadInfo& load) {
    return load.took > Duration::zero() || (load.outcome != LoadInfo::Outcome::elsewhere &&
                                            load.outcome != LoadInfo::Outcome::abandoned);
}

// The caller that starts a renewal has its answer already and is none of those that wait.
std::size_t joined(const LoadInfo& load) {
    return load.renewal || load.callers == 0 ? load.callers : load.callers - 1;
}

void add(Gauge& gauge, std::ptrdiff_t change) {
    if (change != 0) {
        gauge.Increment(static_cast<double>(change));
    }
}

}  // namespace

PrometheusInstrumentation::PrometheusInstrumentation(
    std::shared_ptr<Registry> registry, std::map<std::string, std::string> constant_labels) {
    checked(registry);
    metrics_ = std::make_unique<Metrics>(std::move(registry), std::move(constant_labels));
}

PrometheusInstrumentation::~PrometheusInstrumentation() = default;

std::string_view PrometheusInstrumentation::error_kind(
    const boost::system::error_code& code) noexcept {
    return kinds[kind_of(code)];
}

std::unique_ptr<CacheGetSpan> PrometheusInstrumentation::start_cache_get_span(
    const SpanInfo& info) {
    return std::make_unique<GetSpan>(*metrics_, info, metrics_->named(info.name));
}

std::unique_ptr<CachePutSpan> PrometheusInstrumentation::start_cache_put_span(
    const SpanInfo& info) {
    return std::make_unique<PutSpan>(*metrics_, info, metrics_->named(info.name));
}

std::unique_ptr<CacheRemoveSpan> PrometheusInstrumentation::start_cache_remove_span(
    const SpanInfo& /*info*/) {
    return std::make_unique<RemoveSpan>(*metrics_);
}

std::unique_ptr<CacheTouchSpan> PrometheusInstrumentation::start_cache_touch_span(
    const SpanInfo& info) {
    return std::make_unique<Span<CacheTouchSpan>>(
        metrics_->operation_of_call(info.operation, "touch"), nullptr);
}

std::unique_ptr<CacheInvalidationSpan> PrometheusInstrumentation::start_cache_invalidation_span(
    const InvalidationInfo& info) {
    return std::make_unique<InvalidationSpan>(metrics_->operation(info.operation));
}

std::unique_ptr<CacheFlushSpan> PrometheusInstrumentation::start_cache_flush_span() {
    return std::make_unique<FlushSpan>(*metrics_);
}

std::unique_ptr<CacheCleanupSpan> PrometheusInstrumentation::start_cache_cleanup_span() {
    return std::make_unique<CleanupSpan>(*metrics_);
}

void PrometheusInstrumentation::record_connection_wait(const ConnectionWait& wait) {
    metrics_->plain().connection_wait.Observe(seconds(wait.waited));
}

void PrometheusInstrumentation::record_statement(const StatementInfo& statement) {
    const OperationSeries& series = metrics_->operation(statement.operation);
    if (statement.retry) {
        series.retries->Increment();
    }
    series.statement_duration->Observe(seconds(statement.took));
    series.statement_calls->Observe(static_cast<double>(statement.calls));
}

void PrometheusInstrumentation::record_load(const LoadInfo& load) {
    const auto& plain = metrics_->plain();
    metrics_->loads(load.outcome, load.renewal).Increment();
    plain.load_joins.Increment(static_cast<double>(joined(load)));
    if (load.waited > Duration::zero()) {
        plain.load_waits.Increment();
    }
    if (has_duration(load)) {
        plain.load_duration.Observe(seconds(load.took));
    }
}

void PrometheusInstrumentation::record_stale_hit() {
    metrics_->plain().stale_hits.Increment();
}

void PrometheusInstrumentation::record_pool_change(const PoolChange& change) {
    const auto& plain = metrics_->plain();
    add(plain.pool_open, change.open);
    add(plain.pool_idle, change.idle);
    add(plain.pool_busy, change.busy);
    add(plain.pool_connecting, change.connecting);
    add(plain.pool_waiting, change.waiting);
}

}  // namespace psycache
