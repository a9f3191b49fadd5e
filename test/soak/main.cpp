// Many callers of every kind of cache against a server, a network and a table that fail at random.
// Every answer is judged by what the writer of its key was told.

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "soak/census.hpp"
#include "soak/chaos.hpp"
#include "soak/load.hpp"
#include "soak/options.hpp"
#include "soak/report.hpp"
#include "soak/sabotage.hpp"
#include "soak/site.hpp"
#include "soak/stage.hpp"

namespace psycache::soak {

namespace {

using namespace std::chrono_literals;

constexpr int skipped = 77;
// With so many calls per second two cores are busy and not overrun.
constexpr std::size_t calls_per_second = 2500 / test::slowness;
constexpr int faults_between_calms = 6;
constexpr auto calm = 3s;

extern "C" void out_of_time(int) {
    static const char text[] = "\nthe soak hangs\n";
    (void)!::write(STDERR_FILENO, text, sizeof text - 1);
    std::abort();
}

void limit_time(std::chrono::seconds length) {
    std::signal(SIGALRM, out_of_time);
    ::alarm(static_cast<unsigned>((length + 180s * test::slowness).count()));
}

/// A thread that watches the callers.
class Watchman {
  public:
    Watchman(Load& load, Pacer& pacer)
        : thread_([this, &load, &pacer] {
              while (!stopping_) {
                  load.watch();
                  pacer.look();
                  std::this_thread::sleep_for(100ms);
              }
          }) {}
    Watchman(const Watchman&) = delete;
    Watchman& operator=(const Watchman&) = delete;
    ~Watchman() {
        stopping_ = true;
        thread_.join();
    }

  private:
    std::atomic<bool> stopping_ = false;
    std::thread thread_;
};

void run_chaos(Chaos& chaos, Time end) {
    for (int fault = 1; Clock::now() < end; ++fault) {
        chaos.one_fault();
        std::this_thread::sleep_for(chaos.random_time(200, 2000));
        if (fault % faults_between_calms == 0) {
            chaos.calm();
            std::this_thread::sleep_for(calm);
        }
    }
}

/// Lets everything happen, and ends all that was begun.
void play(const Options& options, Site& site, Report& report, std::shared_ptr<OpenSpans>& spans) {
    Circumstances circumstances;
    Keys keys(Load::slots(options.callers), circumstances);
    const Duration mean_pause = Duration(1s) * options.callers / calls_per_second;
    Pacer pacer;
    Field field{keys, circumstances, report, pacer, mean_pause};
    Stage stage(site);
    for (auto* loop : stage.loops()) {
        pacer.add(*loop);
    }
    spans = stage.spans();
    const auto begun = Clock::now();
    const auto warm = begun + options.length * 15 / 100;
    {
        Load load(stage, field, options.callers, options.seed);
        const Watchman watchman(load, pacer);
        Chaos chaos(site, stage, load, pacer, circumstances, report, options.seed);
        std::optional<Sabotage> sabotage;
        if (options.sabotage.empty()) {
            load.flood();
            run_chaos(chaos, warm);
        } else {
            std::this_thread::sleep_until(warm);
        }
        const auto memory = settled_memory();
        if (options.sabotage.empty()) {
            run_chaos(chaos, begun + options.length);
        } else {
            sabotage.emplace(options.sabotage, site, stage, keys);
            std::this_thread::sleep_until(begun + options.length);
        }
        chaos.calm();
        report_growth(memory, settled_memory(), report.violations);
        if (!load.stop()) {
            report.violations.report("not all callers end");
        }
    }
    if (!stage.finish()) {
        report.violations.report("not all threads and cleanup loops end");
    }
}

bool server_available() {
    try {
        return test::PrivateServer::available();
    } catch (const std::exception&) {
        return false;  // Catch2's warning is made for test cases
    }
}

int soak(const Options& options) {
    if (!server_available()) {
        std::printf("skipped: no server of PostgreSQL can be started\n");
        return skipped;
    }
    limit_time(options.length);
    std::printf("seed %u, %zu callers, %lld s\n", options.seed, options.callers,
                static_cast<long long>(options.length.count()));
    std::fflush(stdout);
    Report report(options.quiet);
    Site site;
    std::shared_ptr<OpenSpans> spans;
    const Census before = Census::take(site);
    play(options, site, report, spans);
    report_leaks(before, site, *spans, report.violations);
    print_summary(report);
    return report.violations.count() == 0 ? 0 : 1;
}

}  // namespace

}  // namespace psycache::soak

int main(int argc, char** argv) {
    if (argc > 2 && std::string_view(argv[1]) == "--psycache-child") {
        return psycache::test::child_main(std::vector<std::string>(argv + 2, argv + argc));
    }
    int status = 0;
    const auto options = psycache::soak::read_options(argc, argv, status);
    if (!options) {
        return status;
    }
    try {
        return psycache::soak::soak(*options);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "the soak failed: %s\n", error.what());
        return 1;
    }
}
