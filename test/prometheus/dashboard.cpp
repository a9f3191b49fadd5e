// The dashboard that comes with the examples: what Grafana takes, and that it shows what there is.

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <catch2/catch.hpp>
#include <cctype>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <psycache/instrumentation/prometheus_statistics.hpp>

#include "scrape.hpp"

using namespace psycache;
using namespace psycache::test;
using Catch::Matchers::Contains;

namespace {

namespace json = boost::json;

// Metrics that no panel shows, on purpose.
const std::set<std::string> not_shown{};

std::string text_of(const json::value& value) {
    return json::value_to<std::string>(value);
}

json::object dashboard() {
    std::ifstream file(PSYCACHE_TEST_SUPPORT "/../../examples/grafana/psycache.json");
    REQUIRE(file);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    return json::parse(text).as_object();
}

/// The panels that show something: all but the rows.
std::vector<json::object> panels() {
    std::vector<json::object> result;
    const auto board = dashboard();
    for (const auto& panel : board.at("panels").as_array()) {
        if (panel.at("type") != "row") {
            result.push_back(panel.as_object());
        }
    }
    return result;
}

/// All words of a query that begin with "psycache_".
std::set<std::string> metrics_in(const std::string& text) {
    const std::string prefix = "psycache_";
    std::set<std::string> names;
    for (auto start = text.find(prefix); start != std::string::npos;
         start = text.find(prefix, start + 1)) {
        auto end = start;
        while (end < text.size() &&
               (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '_')) {
            ++end;
        }
        names.insert(text.substr(start, end - start));
    }
    return names;
}

/// What each series that can be asked for belongs to: "..._bucket", "..._sum" and "..._count" of a
/// histogram, else the metric itself.
std::map<std::string, std::string> exported() {
    Metered metered;
    touch_all(metered.feed());
    auto families = metered.scrape().families();
    CacheStatistics statistics;
    statistics.near_cache.emplace();
    for (auto& family : PrometheusStatistics([&] { return statistics; }).Collect()) {
        families.push_back(std::move(family));
    }
    std::map<std::string, std::string> series;
    for (const auto& family : families) {
        if (family.type == prometheus::MetricType::Histogram) {
            for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
                series[family.name + suffix] = family.name;
            }
        } else {
            series[family.name] = family.name;
        }
    }
    return series;
}

}  // namespace

TEST_CASE("The dashboard asks for what is exported, and shows all of it") {
    const auto known = exported();
    std::set<std::string> shown;
    for (const auto& panel : panels()) {
        CAPTURE(panel.at("title"));
        for (const auto& target : panel.at("targets").as_array()) {
            const auto expression = text_of(target.at("expr"));
            CAPTURE(expression);
            const auto names = metrics_in(expression);
            CHECK_FALSE(names.empty());
            for (const auto& name : names) {
                CAPTURE(name);
                REQUIRE(known.count(name) == 1);
                shown.insert(known.at(name));
            }
        }
    }
    for (const auto& [series, metric] : known) {
        CAPTURE(metric);
        CHECK(shown.count(metric) + not_shown.count(metric) == 1);
    }
    const auto board = dashboard();
    for (const auto& variable : board.at("templating").at("list").as_array()) {
        for (const auto& name : metrics_in(text_of(variable.at("definition")))) {
            CAPTURE(name);
            CHECK(known.count(name) == 1);
        }
    }
}

TEST_CASE("Every query of the dashboard follows its variables") {
    for (const auto& panel : panels()) {
        for (const auto& target : panel.at("targets").as_array()) {
            const auto expression = text_of(target.at("expr"));
            CAPTURE(panel.at("title"), expression);
            CHECK_THAT(expression, Contains("job=~\"$job\", instance=~\"$instance\""));
            // A fixed interval is wrong for some zoom and some scrape interval.
            for (auto start = expression.find('['); start != std::string::npos;
                 start = expression.find('[', start + 1)) {
                CHECK(expression.substr(start, 18) == "[$__rate_interval]");
            }
            CHECK(target.at("datasource").at("uid") == "${DS_PROMETHEUS}");
        }
    }
}

TEST_CASE("The dashboard is fit for import") {
    const auto board = dashboard();
    CHECK(board.at("id").is_null());  // Grafana's own number: another one on every server
    CHECK(board.at("title") == "psycache");
    const auto& inputs = board.at("__inputs").as_array();
    REQUIRE(inputs.size() == 1);
    CHECK(inputs[0].at("name") == "DS_PROMETHEUS");
    CHECK(inputs[0].at("pluginId") == "prometheus");
    std::set<std::string> variables;
    for (const auto& variable : board.at("templating").at("list").as_array()) {
        variables.insert(text_of(variable.at("name")));
        CHECK(variable.at("datasource").at("uid") == "${DS_PROMETHEUS}");
    }
    CHECK(variables == std::set<std::string>{"instance", "job", "span_name"});

    std::set<std::int64_t> ids;
    std::set<std::pair<std::int64_t, std::int64_t>> taken;
    for (const auto& panel : board.at("panels").as_array()) {
        CAPTURE(panel.at("title"));
        CHECK(ids.insert(panel.at("id").as_int64()).second);
        const auto& place = panel.at("gridPos");
        const auto left = place.at("x").as_int64();
        const auto top = place.at("y").as_int64();
        const auto width = place.at("w").as_int64();
        CHECK(left + width <= 24);
        bool free = true;
        for (auto x = left; x < left + width; ++x) {
            for (auto y = top; y < top + place.at("h").as_int64(); ++y) {
                free = taken.insert({x, y}).second && free;
            }
        }
        CHECK(free);
    }
    for (const auto& panel : panels()) {
        CAPTURE(panel.at("title"));
        CHECK(panel.at("datasource").at("uid") == "${DS_PROMETHEUS}");
        CHECK(panel.at("description").as_string().size() > 50);
        std::set<std::string> letters;
        for (const auto& target : panel.at("targets").as_array()) {
            CHECK(letters.insert(text_of(target.at("refId"))).second);
        }
        CHECK_FALSE(letters.empty());
    }
}
