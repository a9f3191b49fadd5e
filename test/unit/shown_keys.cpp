// Which keys of a call a span of Sentry shows.

#include "instrumentation/shown_keys.hpp"

#include <catch2/catch.hpp>
#include <vector>

using namespace psycache::detail;

TEST_CASE("the first keys are shown, and how many more there are", "[shown_keys]") {
    struct {
        std::size_t keys;
        std::size_t shown;
        std::size_t more;
    } const cases[] = {
        {0, 0, 0}, {1, 1, 0}, {20, 20, 0}, {21, 20, 1}, {1'000'000, 20, 999'980},
    };
    for (const auto& one : cases) {
        CAPTURE(one.keys);
        const std::vector<std::string_view> keys(one.keys, "key");
        const auto shown = shown_keys(keys, true);
        CHECK(shown.keys.size() == one.shown);
        CHECK(shown.keys.data() == keys.data());
        CHECK(shown.more == one.more);
    }
}

TEST_CASE("no key is shown where none may be, nor how many there are", "[shown_keys]") {
    const std::vector<std::string_view> keys(30, "key");
    CHECK(shown_keys(keys, false).keys.empty());
    CHECK(shown_keys(keys, false).more == 0);
}
