#pragma once

/// @file
/// The series that PrometheusInstrumentation keeps: names, labels, buckets, and how they are made.

#include <prometheus/check_names.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/labels.h>
#include <prometheus/registry.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/error.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <psycache/error.hpp>
#include <psycache/instrumentation/prometheus.hpp>
#include <shared_mutex>
#include <stdexcept>
#include <utility>

namespace psycache::detail {

using ::prometheus::Counter;
using ::prometheus::Family;
using ::prometheus::Gauge;
using ::prometheus::Histogram;
using ::prometheus::Labels;
using ::prometheus::Registry;
using Buckets = Histogram::BucketBoundaries;
using Clock = std::chrono::steady_clock;

constexpr std::string_view span_name_label = "span_name";
constexpr std::string_view operation_label = "operation";
constexpr std::string_view kind_label = "kind";
constexpr std::string_view outcome_label = "outcome";
constexpr std::string_view renewal_label = "renewal";

enum Operation : std::size_t {
    op_get,
    op_put,
    op_remove,
    op_flush,
    op_cleanup,
    op_remove_prefix,
    op_remove_tag,
    op_clear
};
constexpr std::array<std::string_view, 8> operations{
    "get", "put", "remove", "flush", "cleanup", "remove_prefix", "remove_tag", "clear"};

enum Kind : std::size_t {
    kind_cancelled,
    kind_timeout,
    kind_outcome_unknown,
    kind_unavailable,
    kind_transient,
    kind_caller_mistake,
    kind_other
};
constexpr std::array<std::string_view, 7> kinds{"cancelled",   "timeout",   "outcome_unknown",
                                                "unavailable", "transient", "caller_mistake",
                                                "other"};

constexpr std::size_t load_outcomes = static_cast<std::size_t>(LoadInfo::Outcome::abandoned) + 1;

// From the narrow to the wide: a lost write is "unavailable" too, and what is unavailable is mostly
// "transient", so in another order some kinds would never be seen.
inline Kind kind_of(const boost::system::error_code& code) noexcept {
    if (code == boost::asio::error::operation_aborted) {
        return kind_cancelled;
    }
    if (code == Condition::timeout) {
        return kind_timeout;
    }
    if (code == Condition::outcome_unknown) {
        return kind_outcome_unknown;
    }
    if (code == Condition::unavailable) {
        return kind_unavailable;
    }
    if (code == Condition::transient) {
        return kind_transient;
    }
    if (code == Condition::caller_mistake) {
        return kind_caller_mistake;
    }
    return kind_other;
}

inline const Buckets& call_duration_buckets() {
    static const Buckets buckets{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10};
    return buckets;
}

inline const Buckets& statement_duration_buckets() {
    static const Buckets buckets{.0001, .00025, .0005, .001, .0025, .005, .01, .025,
                                 .05,   .1,     .25,   .5,   1,     2.5,  5,   10};
    return buckets;
}

inline const Buckets& item_size_buckets() {
    static const Buckets buckets{64, 256, 1024, 4096, 16384, 65536, 262144, 1048576};
    return buckets;
}

inline const Buckets& flushed_entries_buckets() {
    static const Buckets buckets{0, 1, 5, 10, 25, 50, 100, 250, 500, 1000};
    return buckets;
}

inline const Buckets& load_duration_buckets() {
    static const Buckets buckets{.001, .0025, .005, .01, .025, .05, .1, .25,
                                 .5,   1,     2.5,  5,   10,   30,  60};
    return buckets;
}

inline const Buckets& statement_calls_buckets() {
    static const Buckets buckets{1, 2, 4, 8, 16, 32, 64, 128};
    return buckets;
}

inline double seconds(Clock::duration duration) {
    return std::chrono::duration<double>(duration).count();
}

inline Labels with(Labels labels, std::string_view name, std::string_view value) {
    labels.insert_or_assign(std::string(name), std::string(value));
    return labels;
}

inline Labels checked(Labels labels) {
    for (const auto& [name, value] : labels) {
        const bool reserved = name == span_name_label || name == operation_label ||
                              name == kind_label || name == outcome_label ||
                              name == renewal_label || name == "le";
        if (reserved || !::prometheus::CheckLabelName(name)) {
            throw std::invalid_argument("constant_labels: \"" + name +
                                        "\" is no label name, or is reserved");
        }
    }
    return labels;
}

inline Registry& checked(const std::shared_ptr<Registry>& registry) {
    if (!registry) {
        throw std::invalid_argument("registry must not be null");
    }
    return *registry;
}

// Constant labels are put on the series and not on the family: two families of one name are two
// entries in what a scrape reads, and the text format allows but one.
inline Family<Counter>& counters(Registry& registry, const char* name, const char* help) {
    return ::prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
inline Family<Gauge>& gauges(Registry& registry, const char* name, const char* help) {
    return ::prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
inline Family<Histogram>& histograms(Registry& registry, const char* name, const char* help) {
    return ::prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

/// A series that appears when it is first used.
template <class Metric>
class Lazy {
  public:
    template <class... Args>
    Metric& get(Family<Metric>& family, const Labels& labels, const Args&... args) {
        Metric* metric = metric_.load(std::memory_order_acquire);
        if (metric == nullptr) {
            // Of several threads that come here at once, all get the same one.
            metric = &family.Add(labels, args...);
            metric_.store(metric, std::memory_order_release);
        }
        return *metric;
    }

  private:
    std::atomic<Metric*> metric_{nullptr};
};

/// The series of one span name.
struct NamedSeries {
    explicit NamedSeries(Labels all_labels) : labels(std::move(all_labels)) {}

    const Labels labels;
    Lazy<Counter> hits;
    Lazy<Counter> misses;
    Lazy<Histogram> get_duration;
    Lazy<Histogram> put_duration;
    Lazy<Histogram> item_size;
};

/// The series of one operation.
struct OperationSeries {
    std::array<Counter*, kinds.size()> errors{};
    Gauge* in_progress = nullptr;
    Counter* retries = nullptr;
    Histogram* statement_duration = nullptr;
    Histogram* statement_calls = nullptr;
    // Of calls on groups of entries only.
    Histogram* invalidation_duration = nullptr;
    Counter* invalidated_entries = nullptr;
};

/// Makes series that have the constant labels only.
struct PlainSource {
    Registry& registry;
    const Labels& labels;

    Counter& counter(const char* name, const char* help) const {
        return counters(registry, name, help).Add(labels);
    }
    Gauge& gauge(const char* name, const char* help) const {
        return gauges(registry, name, help).Add(labels);
    }
    Histogram& histogram(const char* name, const char* help, const Buckets& buckets) const {
        return histograms(registry, name, help).Add(labels, buckets);
    }
};

/// The series without labels of their own.
struct PlainSeries {
    PlainSource from;
    Histogram& remove_duration =
        from.histogram("psycache_remove_duration_seconds", "Time that a remove took, in seconds.",
                       call_duration_buckets());
    Histogram& flush_duration =
        from.histogram("psycache_flush_duration_seconds", "Time that a flush took, in seconds.",
                       call_duration_buckets());
    Histogram& flushed_entries =
        from.histogram("psycache_flushed_entries", "Rows that a flush deleted, live and expired.",
                       flushed_entries_buckets());
    Gauge& cleanup_last_run =
        from.gauge("psycache_cleanup_last_run_timestamp_seconds",
                   "Unix time at which the last cleanup that worked has ended; 0 for none yet.");
    Gauge& cleanup_deleted = from.gauge("psycache_cleanup_deleted_entries",
                                        "Expired rows that the last cleanup deleted.");
    Histogram& cleanup_duration = from.histogram(
        "psycache_cleanup_duration_seconds",
        "Time that a cleanup took, all its batches together, in seconds.", call_duration_buckets());
    Histogram& connection_wait = from.histogram(
        "psycache_connection_wait_seconds", "Time that was waited for a connection, in seconds.",
        statement_duration_buckets());
    Histogram& load_duration = from.histogram(
        "psycache_load_duration_seconds", "Time that a loader of get_or_create took, in seconds.",
        load_duration_buckets());
    Counter& load_joins =
        from.counter("psycache_load_joins_total",
                     "Callers of get_or_create that got the result of a load they did not start.");
    Counter& load_waits = from.counter("psycache_load_waits_total",
                                       "Loads of get_or_create that waited for another process.");
    Counter& stale_hits = from.counter("psycache_stale_hits_total",
                                       "Calls of get_or_create answered with a stale value.");
    Gauge& pool_open =
        from.gauge("psycache_pool_open_connections", "Open connections, idle and busy.");
    Gauge& pool_idle =
        from.gauge("psycache_pool_idle_connections", "Open connections that are not in use.");
    Gauge& pool_busy =
        from.gauge("psycache_pool_busy_connections", "Open connections that are lent.");
    Gauge& pool_connecting =
        from.gauge("psycache_pool_connecting", "Connections that are being opened.");
    Gauge& pool_waiting =
        from.gauge("psycache_pool_waiting", "Statements, or threads, that wait for a connection.");
};

/// All series, looked up once: a Family would want a map of labels for each look-up.
class PrometheusMetrics {
  public:
    PrometheusMetrics(std::shared_ptr<Registry> registry, Labels constant_labels)
        : registry_(std::move(registry)), constant_labels_(checked(std::move(constant_labels))) {
        make_operations();
        make_loads();
    }

    /// @returns what stays valid as long as this object.
    NamedSeries& named(std::string_view span_name) {
        {
            const std::shared_lock lock(mutex_);
            const auto found = named_.find(span_name);
            if (found != named_.end()) {
                return found->second;
            }
        }
        auto labels = with(constant_labels_, span_name_label, span_name);
        const std::unique_lock lock(mutex_);
        return named_.try_emplace(std::string(span_name), std::move(labels)).first->second;
    }

    const OperationSeries& operation(Operation operation) const { return operations_[operation]; }

    /// @param name of a statement. Those that not everybody sends get their series when they are
    ///             first sent.
    const OperationSeries& operation(std::string_view name) {
        const auto found = std::find(operations.begin(), operations.end(), name);
        if (found != operations.end()) {
            return operations_[static_cast<std::size_t>(found - operations.begin())];
        }
        {
            const std::shared_lock lock(mutex_);
            const auto known = further_operations_.find(name);
            if (known != further_operations_.end()) {
                return known->second;
            }
        }
        const std::unique_lock lock(mutex_);
        const auto [known, is_new] = further_operations_.try_emplace(std::string(name));
        if (is_new) {
            known->second = make_operation(name);
        }
        return known->second;
    }

    /// @param call      as SpanInfo names it; "" where it has none.
    /// @param otherwise the operation then.
    /// @returns the series of the statements that it sends: "get" for "get_raw_many".
    const OperationSeries& operation_of_call(std::string_view call, std::string_view otherwise) {
        if (call.empty()) {
            return operation(otherwise);
        }
        for (const std::string_view form : {"_many", "_raw", "_text"}) {
            if (call.ends_with(form)) {
                call.remove_suffix(form.size());
            }
        }
        return operation(call);
    }

    Counter& loads(LoadInfo::Outcome outcome, bool renewal) const {
        return *loads_of_[static_cast<std::size_t>(outcome)][renewal ? 1 : 0];
    }

    const PlainSeries& plain() const { return plain_; }

    Histogram& get_duration(NamedSeries& series) {
        return series.get_duration.get(get_duration_, series.labels, call_duration_buckets());
    }
    Histogram& put_duration(NamedSeries& series) {
        return series.put_duration.get(put_duration_, series.labels, call_duration_buckets());
    }
    void hit(NamedSeries& series) { series.hits.get(hits_, series.labels).Increment(); }
    void miss(NamedSeries& series) { series.misses.get(misses_, series.labels).Increment(); }
    void item_size(NamedSeries& series, std::size_t size) {
        series.item_size.get(item_size_, series.labels, item_size_buckets())
            .Observe(static_cast<double>(size));
    }

  private:
    OperationSeries make_operation(std::string_view name) {
        const auto labels = with(constant_labels_, operation_label, name);
        OperationSeries series;
        for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
            series.errors[kind] = &errors_.Add(with(labels, kind_label, kinds[kind]));
        }
        series.in_progress = &in_progress_.Add(labels);
        series.retries = &retries_.Add(labels);
        series.statement_duration = &statement_duration_.Add(labels, statement_duration_buckets());
        series.statement_calls = &statement_calls_.Add(labels, statement_calls_buckets());
        return series;
    }

    void make_operations() {
        for (std::size_t i = 0; i < operations.size(); ++i) {
            const auto labels = with(constant_labels_, operation_label, operations[i]);
            OperationSeries& series = operations_[i] = make_operation(operations[i]);
            if (i >= op_remove_prefix) {
                series.invalidation_duration =
                    &invalidation_duration_.Add(labels, call_duration_buckets());
            }
            if (i >= op_remove_prefix && i != op_clear) {
                series.invalidated_entries = &invalidated_entries_.Add(labels);
            }
        }
    }

    void make_loads() {
        for (std::size_t i = 0; i < load_outcomes; ++i) {
            const auto labels =
                with(constant_labels_, outcome_label, name_of(static_cast<LoadInfo::Outcome>(i)));
            loads_of_[i] = {&loads_.Add(with(labels, renewal_label, "false")),
                            &loads_.Add(with(labels, renewal_label, "true"))};
        }
    }

    const std::shared_ptr<Registry> registry_;
    const Labels constant_labels_;

    Family<Counter>& hits_ =
        counters(*registry_, "psycache_hits_total", "Gets that found a live entry.");
    Family<Counter>& misses_ =
        counters(*registry_, "psycache_misses_total", "Gets that found no live entry.");
    Family<Histogram>& get_duration_ = histograms(*registry_, "psycache_get_duration_seconds",
                                                  "Time that a get took, in seconds.");
    Family<Histogram>& put_duration_ = histograms(*registry_, "psycache_put_duration_seconds",
                                                  "Time that a put took, in seconds.");
    Family<Histogram>& item_size_ =
        histograms(*registry_, "psycache_item_size_bytes",
                   "Stored size of the values that were found or put, in bytes.");
    Family<Counter>& errors_ = counters(*registry_, "psycache_errors_total",
                                        "Calls that failed, timed out or were cancelled.");
    Family<Gauge>& in_progress_ =
        gauges(*registry_, "psycache_calls_in_progress", "Calls that run at the moment.");
    Family<Counter>& retries_ = counters(*registry_, "psycache_retries_total",
                                         "Statements that were sent once more, after a connection "
                                         "broke or the server asked to try again.");
    Family<Histogram>& statement_duration_ =
        histograms(*registry_, "psycache_statement_duration_seconds",
                   "Time from sending a statement to its answer, in seconds.");
    Family<Histogram>& statement_calls_ =
        histograms(*registry_, "psycache_statement_calls", "How many calls shared a statement.");
    Family<Histogram>& invalidation_duration_ =
        histograms(*registry_, "psycache_invalidation_duration_seconds",
                   "Time that a call on a group of entries took, in seconds.");
    Family<Counter>& invalidated_entries_ =
        counters(*registry_, "psycache_invalidated_entries_total",
                 "Rows that calls on groups of entries deleted, live and expired.");
    Family<Counter>& loads_ = counters(*registry_, "psycache_loads_total",
                                       "Loads of get_or_create that ended, one for a key.");
    const PlainSeries plain_{PlainSource{*registry_, constant_labels_}};
    std::array<OperationSeries, operations.size()> operations_;
    std::array<std::array<Counter*, 2>, load_outcomes> loads_of_{};

    std::shared_mutex mutex_;
    std::map<std::string, NamedSeries, std::less<>> named_;
    std::map<std::string, OperationSeries, std::less<>> further_operations_;
};

}  // namespace psycache::detail
