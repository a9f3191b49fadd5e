// Times to live of any length: accepted within the bounds, kept by the server's clock, else
// refused.

#include <cmath>

#include "properties/generators.hpp"
#include "properties/property.hpp"
#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Any ttl, those next to a bound more often.
rc::Gen<Duration> ttls() {
    const auto bound = rc::gen::element(min_ttl, max_ttl, Duration::zero(), Duration::min(),
                                        no_expiry, Duration(1h), Duration(-1h));
    const auto near = rc::gen::map(
        rc::gen::pair(bound, rc::gen::inRange<std::int64_t>(-3, 4)), [](const auto& both) {
            // Around the ends of the type, instead of beyond them.
            const auto bits = static_cast<std::uint64_t>(both.first.count()) +
                              static_cast<std::uint64_t>(both.second);
            return Duration(static_cast<std::int64_t>(bits));
        });
    const auto within = rc::gen::map(rc::gen::inRange(min_ttl.count(), max_ttl.count()),
                                     [](std::int64_t count) { return Duration(count); });
    const auto any =
        rc::gen::map(random::int64(), [](std::int64_t count) { return Duration(count); });
    return rc::gen::oneOf(near, within, any, rc::gen::just(no_expiry));
}

bool accepted(Duration ttl) {
    return ttl == no_expiry || (ttl >= min_ttl && ttl <= max_ttl);
}

/// Whether the server's moment of expiry is the one that was asked for.
bool expires_in(TestSchema& schema, Duration ttl) {
    if (ttl == no_expiry) {
        return schema.rows("expires_at = 'infinity'") == 1;
    }
    const double seconds = std::chrono::duration<double>(ttl).count();
    // The server multiplies an interval by a double, which has 53 bits.
    const double tolerance = 60 * slowness + std::fabs(seconds) * 1e-9;
    return std::fabs(schema.expires_in("key") - seconds) < tolerance;
}

}  // namespace

TEST_CASE("Any ttl within the bounds is kept, and any other is refused") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    check_property("put with a ttl", 300, [&] {
        const auto ttl = *ttls();
        const auto way = *rc::gen::inRange(0, 3);
        cache->remove("key");
        const auto failure = failure_of([&] {
            if (way == 0) {
                cache->put("key", numbered(1), ttl);
            } else if (way == 1) {
                cache->put_text("key", R"({"n": 1})", ttl);
            } else {
                cache->put_many({Entry("key", numbered(1), ttl), Entry("key", numbered(1), ttl)});
            }
        });
        if (!accepted(ttl)) {
            RC_ASSERT(failure.typed());
            RC_ASSERT(failure.code() == Errc::invalid_ttl);
            RC_ASSERT(!schema.has("key"));
            return;
        }
        RC_ASSERT(!failure);
        RC_ASSERT(expires_in(schema, ttl));
        // In between it depends on how long the test takes.
        if (ttl <= Duration::zero()) {
            RC_ASSERT(!cache->get("key").has_value());
        } else if (ttl > Duration(patience)) {
            RC_ASSERT(cache->get("key") == numbered(1));
        }
    });
}
