// What test/support calls of Catch2. The soak is one long run with a main() of its own.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
