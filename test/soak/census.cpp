#include "soak/census.hpp"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <thread>

namespace psycache::soak {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t mebibyte = std::size_t{1} << 20U;
// What comes and goes: values under way, fragments that malloc keeps, the model's own counts.
constexpr std::size_t growth_allowed = 20 * mebibyte;

std::size_t memory() {
    std::ifstream file("/proc/self/statm");
    std::size_t all = 0;
    std::size_t resident = 0;
    file >> all >> resident;
    return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

void expect_none(std::int64_t count, const char* what, Violations& violations) {
    if (count != 0) {
        violations.report(std::to_string(count) + " " + what + " at the end");
    }
}

}  // namespace

Census Census::take(const Site& site) {
    // ThreadSanitizer starts a thread of its own along with the first one.
    std::thread([] {}).join();
    Census census;
    {
        auto admin = site.admin();
        census.connections =
            admin.number("SELECT count(*) FROM pg_stat_activity WHERE usename = '" +
                         std::string(Site::role) + "'");
    }
    census.descriptors = test::open_descriptors();
    census.threads = test::thread_names().size();
    return census;
}

std::string Census::text() const {
    return std::to_string(descriptors) + " descriptors, " + std::to_string(threads) + " threads, " +
           std::to_string(connections) + " connections";
}

void report_leaks(const Census& before, const Site& site, const OpenSpans& spans,
                  Violations& violations) {
    Census after;
    const auto same = [&] {
        after = Census::take(site);
        return after == before;
    };
    if (!test::eventually(same, 5s * test::slowness)) {
        violations.report("a leak: " + after.text() + " at the end, " + before.text() +
                          " at the beginning");
    }
    expect_none(spans.spans(), "open spans", violations);
    expect_none(spans.connections(), "connections counted as open", violations);
    expect_none(spans.waiting(), "callers counted as waiting", violations);
}

std::size_t settled_memory() {
    std::size_t least = std::numeric_limits<std::size_t>::max();
    for (int look = 0; look < 5; ++look) {
        ::malloc_trim(0);
        least = std::min(least, memory());
        std::this_thread::sleep_for(50ms);
    }
    return least;
}

void report_growth(std::size_t before, std::size_t after, Violations& violations) {
    std::printf("memory: %zu MiB after the warm-up, %zu MiB at the end\n", before / mebibyte,
                after / mebibyte);
    if (test::slowness == 1 && after > before + growth_allowed) {
        violations.report("memory has grown from " + std::to_string(before / mebibyte) + " to " +
                          std::to_string(after / mebibyte) + " MiB");
    }
}

}  // namespace psycache::soak
