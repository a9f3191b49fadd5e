#pragma once

/// @file
/// What a registry holds, as a test can compare it.

#include <prometheus/registry.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/instrumentation/prometheus.hpp>
#include <psycache/options.hpp>

namespace psycache::test {

/// Values by "name{label=value,...}"; the braces are left out when there are no labels.
using Values = std::map<std::string, double>;

/// Everything that a registry tells at one moment: counters, gauges, and "_count", "_sum" and
/// "_bucket" of histograms.
class Scrape {
  public:
    explicit Scrape(const prometheus::Registry& registry) : families_(registry.Collect()) {
        for (const auto& family : families_) {
            for (const auto& metric : family.metric) {
                add(family, metric);
            }
        }
    }

    const std::vector<prometheus::MetricFamily>& families() const { return families_; }
    const Values& values() const { return values_; }

    bool has(const std::string& series) const { return values_.count(series) != 0; }
    /// @returns 0 for a series that is not there.
    double operator[](const std::string& series) const {
        const auto found = values_.find(series);
        return found == values_.end() ? 0 : found->second;
    }

    /// What has changed since @p before, and by how much; without buckets, and without sums of
    /// seconds, of which no test knows how much they grow.
    Values since(const Scrape& before) const {
        Values changes;
        for (const auto& [series, value] : values_) {
            const bool vague = series.find("_bucket{") != std::string::npos ||
                               series.find("_seconds_sum") != std::string::npos;
            if (!vague && value != before[series]) {
                changes[series] = value - before[series];
            }
        }
        return changes;
    }

  private:
    static std::string name_of(const std::string& name,
                               std::vector<prometheus::ClientMetric::Label> labels) {
        std::sort(labels.begin(), labels.end());
        std::string text;
        for (const auto& label : labels) {
            text += (text.empty() ? "{" : ",") + label.name + "=" + label.value;
        }
        return name + text + (text.empty() ? "" : "}");
    }

    void add(const prometheus::MetricFamily& family, const prometheus::ClientMetric& metric) {
        switch (family.type) {
            case prometheus::MetricType::Counter:
                values_[name_of(family.name, metric.label)] = metric.counter.value;
                return;
            case prometheus::MetricType::Gauge:
                values_[name_of(family.name, metric.label)] = metric.gauge.value;
                return;
            default:
                break;
        }
        values_[name_of(family.name + "_count", metric.label)] =
            static_cast<double>(metric.histogram.sample_count);
        values_[name_of(family.name + "_sum", metric.label)] = metric.histogram.sample_sum;
        for (const auto& bucket : metric.histogram.bucket) {
            auto labels = metric.label;
            labels.push_back({"le", std::to_string(bucket.upper_bound)});
            values_[name_of(family.name + "_bucket", std::move(labels))] =
                static_cast<double>(bucket.cumulative_count);
        }
    }

    std::vector<prometheus::MetricFamily> families_;
    Values values_;
};

/// An instrumentation with a registry of its own.
struct Metered {
    explicit Metered(std::map<std::string, std::string> constant_labels = {})
        : instrumentation(
              std::make_shared<PrometheusInstrumentation>(registry, std::move(constant_labels))) {}

    Scrape scrape() const { return Scrape(*registry); }
    CacheInstrumentation& feed() const { return *instrumentation; }
    /// @returns options of a cache that is metered.
    CacheOptions options(CacheOptions base) const {
        base.instrumentations.push_back(instrumentation);
        return base;
    }

    std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
    std::shared_ptr<PrometheusInstrumentation> instrumentation;
};

/// Lets every metric have a series, under the span name "name".
inline void touch_all(CacheInstrumentation& instrumentation) {
    const SpanInfo info{{}, "name"};
    instrumentation.start_cache_get_span(info)->record_cache_hit(1);
    instrumentation.start_cache_get_span(info)->record_cache_miss();
    instrumentation.start_cache_put_span(info)->record_put(1);
}

}  // namespace psycache::test
