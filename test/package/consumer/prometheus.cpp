// The same for psycache::prometheus; what links is shown by a metric that moves.

#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <iostream>
#include <memory>
#include <string>

#include <psycache/instrumentation/prometheus.hpp>

int main() {
    const auto registry = std::make_shared<prometheus::Registry>();
    psycache::PrometheusInstrumentation instrumentation(registry, {{"cache", "a"}});
    instrumentation.start_cache_flush_span()->record_flush(7);

    const auto text = prometheus::TextSerializer().Serialize(registry->Collect());
    const std::string line = "psycache_flushed_entries_sum{cache=\"a\"} 7\n";
    if (text.find(line) == std::string::npos) {
        std::cerr << "missing: " << line << text;
        return 1;
    }
    std::cout << line;
    return 0;
}
