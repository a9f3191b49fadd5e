#include <prometheus/check_names.h>
#include <chrono>
#include <exception>
#include <psycache/instrumentation/prometheus_statistics.hpp>
#include <stdexcept>
#include <utility>

namespace psycache {

namespace {

using ::prometheus::ClientMetric;
using ::prometheus::MetricFamily;
using ::prometheus::MetricType;

using ConstantLabels = std::vector<ClientMetric::Label>;

class Families {
  public:
    explicit Families(ConstantLabels labels) : labels_(std::move(labels)) {}

    void counter(const char* name, const char* help, std::uint64_t count) {
        ClientMetric metric;
        metric.counter.value = static_cast<double>(count);
        add(name, help, MetricType::Counter, std::move(metric));
    }
    void gauge(const char* name, const char* help, double value) {
        ClientMetric metric;
        metric.gauge.value = value;
        add(name, help, MetricType::Gauge, std::move(metric));
    }
    std::vector<MetricFamily> take() { return std::move(families_); }

  private:
    void add(const char* name, const char* help, MetricType type, ClientMetric metric) {
        metric.label = labels_;
        families_.push_back(MetricFamily{name, help, type, {std::move(metric)}});
    }

    const ConstantLabels labels_;
    std::vector<MetricFamily> families_;
};

void add_near_cache(const NearStatistics& near, Families& families) {
    families.counter("psycache_near_hits_total", "Look-ups answered from memory.", near.hits);
    families.counter("psycache_near_misses_total",
                     "Look-ups of the table, since memory had no answer.", near.misses);
    families.counter("psycache_near_evictions_total",
                     "Entries in memory that made room for others.", near.evictions);
    families.counter("psycache_near_invalidations_total",
                     "Entries in memory that were dropped, since they may have changed.",
                     near.invalidations);
    families.gauge("psycache_near_entries", "Entries in memory.",
                   static_cast<double>(near.entries));
    families.gauge("psycache_near_bytes", "Bytes that entries in memory take.",
                   static_cast<double>(near.bytes));
    families.gauge("psycache_near_listening", "Whether it was proven that changes are heard of.",
                   near.listening ? 1 : 0);
    families.gauge("psycache_near_lag_seconds",
                   "Time that the last proof took that changes are heard of, in seconds.",
                   std::chrono::duration<double>(near.lag).count());
}

}  // namespace

PrometheusStatistics::PrometheusStatistics(std::function<CacheStatistics()> statistics,
                                           std::map<std::string, std::string> constant_labels)
    : statistics_(std::move(statistics)), constant_labels_(std::move(constant_labels)) {
    if (!statistics_) {
        throw std::invalid_argument("statistics must not be empty");
    }
    for (const auto& label : constant_labels_) {
        if (!::prometheus::CheckLabelName(label.first)) {
            throw std::invalid_argument("constant_labels: \"" + label.first +
                                        "\" is no label name, or is reserved");
        }
    }
}

PrometheusStatistics::~PrometheusStatistics() = default;

std::vector<MetricFamily> PrometheusStatistics::Collect() const {
    CacheStatistics now;
    try {
        now = statistics_();
    } catch (const std::exception&) {
        return {};
    }
    ConstantLabels labels;
    for (const auto& [name, value] : constant_labels_) {
        labels.push_back(ClientMetric::Label{name, value});
    }
    Families families(std::move(labels));
    families.gauge("psycache_queued_calls", "Calls that wait for a statement.",
                   static_cast<double>(now.queued));
    families.gauge("psycache_circuit_open", "Whether calls are answered without the server.",
                   now.circuit_open ? 1 : 0);
    families.counter("psycache_outage_misses_total",
                     "Keys that were answered as misses since the server was away.",
                     now.outage_misses);
    families.counter("psycache_dropped_writes_total",
                     "Writes that were dropped since the server was away.", now.dropped_writes);
    families.counter("psycache_evictions_total",
                     "Live entries that cleanups have deleted, since the table was too large.",
                     now.evictions);
    families.counter("psycache_cleanup_failures_total", "Runs of a cleanup loop that failed.",
                     now.cleanup_failures);
    if (now.near_cache) {
        add_near_cache(*now.near_cache, families);
    }
    return families.take();
}

}  // namespace psycache
