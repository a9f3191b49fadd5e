#include "cli/duration_text.hpp"

#include <catch2/catch.hpp>
#include <utility>
#include <vector>

using namespace psycache;
using namespace psycache::cli;
using namespace std::chrono_literals;

TEST_CASE("a span of time is read as people type it", "[duration_text]") {
    const std::vector<std::pair<std::string, Duration>> good = {
        {"1h", 1h},         {"90s", 90s},     {"1h30m", 90min},
        {"1h30min", 90min}, {"250ms", 250ms}, {"7us", 7us},
        {"7d", 168h},       {"2w", 336h},     {"1d2h3m4s5ms6us", 26h + 3min + 4s + 5ms + 6us},
        {"0h5s", 5s},       {"007s", 7s},     {"forever", no_expiry},
    };
    for (const auto& [text, duration] : good) {
        CAPTURE(text);
        CHECK(parse_duration(text) == duration);
    }
}

TEST_CASE("what is no span of time is refused", "[duration_text]") {
    for (const char* text : {"",
                             "1",
                             "h",
                             "1h30",
                             "1 h",
                             " 1h",
                             "1h ",
                             "-1h",
                             "+1h",
                             "1.5h",
                             "1h-30m",
                             "30m1h",
                             "1h1h",
                             "1y",
                             "1H",
                             "0s",
                             "0",
                             "for ever",
                             "Forever",
                             "1hforever",
                             "1e3s",
                             "inf",
                             "99999999999999999999s",
                             "9223372036854775807w",
                             "300000000d",
                             "s1",
                             "1s\n"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_duration(text));
    }
    CHECK_FALSE(parse_duration(std::string_view("1s\0", 3)));
    const std::string longest = std::to_string(max_ttl.count());
    CHECK(parse_duration(longest + "us") == max_ttl);
    CHECK_FALSE(parse_duration(std::to_string(max_ttl.count() + 1) + "us"));
}

TEST_CASE("a span of time is shown by its two largest units", "[duration_text]") {
    const std::vector<std::pair<Duration, std::string>> shown = {
        {0s, "0 s"},
        {1us, "1 us"},
        {250ms, "250 ms"},
        {1s, "1 s"},
        {90s, "1 min 30 s"},
        {90min + 7s, "1 h 30 min"},
        {1h + 7s, "1 h"},
        {24h * 400 + 2h, "400 d 2 h"},
        {-90s, "-1 min 30 s"},
        {no_expiry, "forever"},
        {Duration::min(), "-106751991 d 4 h"},
    };
    for (const auto& [duration, text] : shown) {
        CHECK(duration_text(duration) == text);
    }
}
