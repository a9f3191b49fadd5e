// Makes calls of one kind for some time, and tells how many and how fast: what bench/harness runs
// in every round, a process for each contender, of this and of other builds of the library.
//
// - bench_calls run JOB: verifies and warms up, says "ready", waits for a line, and prints figures
// - bench_calls fill JOB: makes and fills the job's table
// - bench_calls entries JOB: prints what it is filled with, a line for a key and its value
// - bench_calls sql TEXT: prints the first value that the server answers
// - bench_calls versions
//
// JOB is JSON (calls/job.hpp), and the server that of PSYCACHE_TEST_DSN or PSYCACHE_DSN.

#include <libpq-fe.h>
#include <sys/resource.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_from.hpp>
#include <boost/json/value_to.hpp>
#include <boost/version.hpp>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <thread>

#include <psycache/version.hpp>

#include "calls/contender.hpp"
#include "calls/postgres.hpp"

namespace bench {

double own_cpu_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

namespace {

std::unique_ptr<Contender> contender_of(const Job& job, const Data& data) {
    using Make = std::function<std::unique_ptr<Contender>(const Job&, const Data&)>;
    const std::map<std::string, Make> all{
        {"cache_async", cache_async},   {"cache_blocking", cache_blocking},
        {"cache_memory", cache_memory}, {"libpq", libpq},
        {"libpqxx", libpqxx},           {"hiredis", hiredis}};
    const auto found = all.find(job.contender);
    if (found == all.end()) {
        throw Unavailable("unknown to this program");
    }
    return found->second(job, data);
}

void run(const Job& job, const Data& data) {
    json::object answer;
    try {
        // The C library and reference counts are faster until a process has had a second thread,
        // which servers have: all contenders are measured as if in one.
        std::thread([] {}).join();
        const std::unique_ptr<Contender> contender = contender_of(job, data);
        if (job.verify) {
            contender->verify();
        }
        contender->warm_up(Seconds(job.warm_up));
        std::cout << "ready" << std::endl;
        std::string line;
        std::getline(std::cin, line);
        answer["figures"] = json::value_from(contender->run(Seconds(job.seconds)));
    } catch (const Unavailable& why) {
        answer["skipped"] = why.what();
    }
    std::cout << answer << '\n';
}

void print_entries(const Job& job, const Data& data) {
    for (std::size_t id = 0; id < job.key_count; ++id) {
        std::cout << data.hits()[id] << ' ' << json::serialize(value_of(job.value_size, id)) << '\n'
                  << data.puts()[id] << ' ' << data.put_text() << '\n';
    }
}

void print_versions() {
    const auto version = [](int major, int minor, int patch) {
        return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
    };
    json::object versions;
    versions["library"] =
        version(PSYCACHE_VERSION_MAJOR, PSYCACHE_VERSION_MINOR, PSYCACHE_VERSION_PATCH);
    versions["boost"] =
        version(BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100);
    versions["libpq"] =
        std::to_string(PQlibVersion() / 10000) + "." + std::to_string(PQlibVersion() % 10000);
#ifdef __clang__
    versions["compiler"] = __VERSION__;
#else
    versions["compiler"] = "GCC " __VERSION__;
#endif
#if defined(__OPTIMIZE__) && defined(NDEBUG)
    versions["optimized"] = true;
#else
    versions["optimized"] = false;
#endif
    std::cout << versions << '\n';
}

void perform(const std::string& command, const std::string& argument) {
    if (command == "versions") {
        print_versions();
    } else if (command == "sql") {
        const ResultPtr result = Connection().execute(argument);
        std::cout << (PQntuples(result.get()) > 0 ? PQgetvalue(result.get(), 0, 0) : "") << '\n';
    } else {
        const Job job = json::value_to<Job>(json::parse(argument));
        const Data data(job);
        if (command == "run") {
            run(job, data);
        } else if (command == "fill") {
            fill(job, data);
        } else if (command == "entries") {
            print_entries(job, data);
        } else {
            throw std::invalid_argument("unknown command " + command);
        }
    }
}

}  // namespace

}  // namespace bench

int main(int argc, char** argv) {
    try {
        bench::perform(argc > 1 ? argv[1] : "", argc > 2 ? argv[2] : "");
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "bench_calls: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
