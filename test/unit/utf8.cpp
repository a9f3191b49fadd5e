#include "values/utf8.hpp"

#include <catch2/catch.hpp>
#include <string>

using psycache::detail::is_storable_text;

namespace {

std::string encoded(unsigned point) {
    std::string bytes;
    if (point < 0x80) {
        bytes += static_cast<char>(point);
    } else if (point < 0x800) {
        bytes += static_cast<char>(0xc0 | (point >> 6));
        bytes += static_cast<char>(0x80 | (point & 0x3f));
    } else if (point < 0x10000) {
        bytes += static_cast<char>(0xe0 | (point >> 12));
        bytes += static_cast<char>(0x80 | ((point >> 6) & 0x3f));
        bytes += static_cast<char>(0x80 | (point & 0x3f));
    } else {
        bytes += static_cast<char>(0xf0 | (point >> 18));
        bytes += static_cast<char>(0x80 | ((point >> 12) & 0x3f));
        bytes += static_cast<char>(0x80 | ((point >> 6) & 0x3f));
        bytes += static_cast<char>(0x80 | (point & 0x3f));
    }
    return bytes;
}

}  // namespace

TEST_CASE("every character but NUL is storable, and no surrogate is", "[utf8]") {
    unsigned wrong = 0;
    for (unsigned point = 0; point < 0x120000; ++point) {
        const bool character = point != 0 && point < 0x110000 && (point < 0xd800 || point > 0xdfff);
        wrong += is_storable_text("a" + encoded(point) + "z") == character ? 0 : 1;
    }
    CHECK(wrong == 0);
}

TEST_CASE("every cut and every overlong form is refused", "[utf8]") {
    for (const unsigned point : {0xe4u, 0x20acu, 0x1f600u}) {
        const std::string whole = encoded(point);
        for (std::size_t length = 1; length < whole.size(); ++length) {
            CHECK_FALSE(is_storable_text(whole.substr(0, length)));
            CHECK_FALSE(is_storable_text(whole.substr(0, length) + "a"));
            CHECK_FALSE(is_storable_text(whole.substr(length)));
        }
    }
    for (const char* overlong : {"\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xe0\x9f\xbf",
                                 "\xf0\x80\x80\xaf", "\xf0\x8f\xbf\xbf", "\xf8\x88\x80\x80\x80"}) {
        CHECK_FALSE(is_storable_text(overlong));
    }
    CHECK(is_storable_text(""));
}
