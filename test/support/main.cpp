#define CATCH_CONFIG_RUNNER
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "run_coro.hpp"
#include "server.hpp"

namespace {

char current_test[256];
std::size_t tests_run = 0;
std::vector<std::string> failed_tests;

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
    void testCaseEnded(const Catch::TestCaseStats& stats) override {
        ::alarm(0);
        ++tests_run;
        if (stats.totals.assertions.failed > 0) {
            failed_tests.push_back(stats.testInfo.name);
        }
    }

  private:
    static unsigned limit() {
        const char* text = std::getenv("PSYCACHE_TEST_WATCHDOG");
        if (text != nullptr) {
            return static_cast<unsigned>(std::strtoul(text, nullptr, 10));
        }
        return psycache::test::slowness == 1 ? 110 : 340;  // less than CTest's patience
    }
};

/// Becomes a process that runs only what has failed, PSYCACHE_TEST_RETRIES times: where one process
/// runs hundreds of tests, a machine that stands still for a moment must not fail all of them.
void run_failed_again(char* program) {
    const char* text = std::getenv("PSYCACHE_TEST_RETRIES");
    const long retries = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
    if (retries <= 0 || failed_tests.empty()) {
        return;
    }
    ::setenv("PSYCACHE_TEST_RETRIES", std::to_string(retries - 1).c_str(), 1);
    std::string tests;
    for (const auto& name : failed_tests) {
        tests += tests.empty() ? "" : ",";
        for (const char c : name) {
            if (std::strchr("\\,[]\"", c) != nullptr) {
                tests += '\\';
            }
            tests += c;
        }
    }
    ::setenv("PSYCACHE_TEST_AGAIN", std::to_string(failed_tests.size()).c_str(), 1);
    std::cout << "Running once more: " << tests << std::endl;
    char* const arguments[] = {program, tests.data(), nullptr};
    ::execv("/proc/self/exe", arguments);
}

}  // namespace

CATCH_REGISTER_LISTENER(Watchdog)

int main(int argc, char** argv) {
    if (argc > 2 && std::string_view(argv[1]) == "--psycache-child") {
        return psycache::test::child_main(std::vector<std::string>(argv + 2, argv + argc));
    }
    const int result = Catch::Session().run(argc, argv);
    const char* again = std::getenv("PSYCACHE_TEST_AGAIN");
    if (again != nullptr && std::to_string(tests_run) != again) {
        std::cerr << "of the tests that have failed not all were run once more\n";
        return 1;
    }
    if (result != 0) {
        run_failed_again(argv[0]);
    }
    return result;
}
