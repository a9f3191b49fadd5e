#define CATCH_CONFIG_RUNNER
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "run_coro.hpp"
#include "server.hpp"

namespace {

char current_test[256];

extern "C" void out_of_time(int) {
    static const char text[] = "\nhangs: ";
    (void)!::write(STDERR_FILENO, text, sizeof text - 1);
    (void)!::write(STDERR_FILENO, current_test, std::strlen(current_test));
    (void)!::write(STDERR_FILENO, "\n", 1);
    std::abort();
}

/// No test case may hang: it is aborted, with its name.
class Watchdog : public Catch::TestEventListenerBase {
  public:
    using TestEventListenerBase::TestEventListenerBase;

    void testCaseStarting(const Catch::TestCaseInfo& info) override {
        std::strncpy(current_test, info.name.c_str(), sizeof current_test - 1);
        std::signal(SIGALRM, out_of_time);
        ::alarm(limit());
    }
    void testCaseEnded(const Catch::TestCaseStats&) override { ::alarm(0); }

  private:
    static unsigned limit() {
        const char* text = std::getenv("PSYCACHE_TEST_WATCHDOG");
        if (text != nullptr) {
            return static_cast<unsigned>(std::strtoul(text, nullptr, 10));
        }
        return psycache::test::slowness == 1 ? 110 : 340;  // less than CTest's patience
    }
};

}  // namespace

CATCH_REGISTER_LISTENER(Watchdog)

int main(int argc, char** argv) {
    if (argc > 2 && std::string_view(argv[1]) == "--psycache-child") {
        return psycache::test::child_main(std::vector<std::string>(argv + 2, argv + argc));
    }
    return Catch::Session().run(argc, argv);
}
