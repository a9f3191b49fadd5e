// The library's log lines in the logger that an application has already: spdlog or Boost.Log.
// Without a sink the library is silent.
//
// It is built where CMake finds both (Debian: libspdlog-dev and libboost-log1.81-dev). Each logger
// is shown a connection that is opened, one that the server closes, and a server that is not there.
//
// The database is that of PSYCACHE_DSN, which must not set an application_name.

#include <libpq-fe.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <array>
#include <boost/core/null_deleter.hpp>
#include <boost/log/core.hpp>
#include <boost/log/expressions.hpp>
#include <boost/log/sinks/sync_frontend.hpp>
#include <boost/log/sinks/text_ostream_backend.hpp>
#include <boost/log/trivial.hpp>
#include <boost/smart_ptr/make_shared_object.hpp>
#include <boost/smart_ptr/shared_ptr.hpp>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <psycache/psycache.hpp>

using namespace std::chrono_literals;

namespace {

// ---- the adapters -------------------------------------------------------------------------------

/// A logger on slow sinks is better an asynchronous one (spdlog::create_async): the sink is called
/// where the calls of the cache run.
psycache::LogSink to_spdlog(std::shared_ptr<spdlog::logger> logger) {
    return [logger = std::move(logger)](psycache::LogLevel level, std::string_view line) {
        static constexpr std::array levels{spdlog::level::debug, spdlog::level::info,
                                           spdlog::level::warn, spdlog::level::err};
        logger->log(levels[static_cast<std::size_t>(level)], "{}", line);
    };
}

psycache::LogSink to_boost_log() {
    return [](psycache::LogLevel level, std::string_view line) {
        using namespace boost::log::trivial;
        static constexpr std::array levels{debug, info, warning, error};
        BOOST_LOG_SEV(logger::get(), levels[static_cast<std::size_t>(level)]) << line;
    };
}

// ---- something to log ---------------------------------------------------------------------------

void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

/// What a restart of the server or a firewall does to idle connections.
void end_connections_named(const std::string& name, const std::string& dsn) {
    const std::unique_ptr<PGconn, decltype(&PQfinish)> connection(PQconnectdb(dsn.c_str()),
                                                                  &PQfinish);
    const char* const values[] = {name.c_str()};
    const std::unique_ptr<PGresult, decltype(&PQclear)> result(
        PQexecParams(connection.get(),
                     "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                     " WHERE application_name = $1 AND pid <> pg_backend_pid()",
                     1, nullptr, values, nullptr, nullptr, 0),
        &PQclear);
    expect(PQntuples(result.get()) == 1, "one connection of the cache");
}

void use_cache(const std::string& dsn, const psycache::LogSink& log) {
    // To find them again on the server.
    const std::string name = "psycache_logging_" + std::to_string(std::random_device{}());
    setenv("PGAPPNAME", name.c_str(), 1);

    psycache::PoolOptions pool;
    pool.dsn = dsn;
    pool.log = log;
    psycache::PostgresCache cache(pool);
    cache.get_raw("logging:a");
    end_connections_named(name, dsn);
    cache.get_raw("logging:b");  // notices the loss and is served by a new connection
}

void use_absent_server(const psycache::LogSink& log) {
    psycache::PoolOptions pool;
    pool.dsn = "host=127.0.0.1 port=1 dbname=nowhere";
    pool.log = log;
    psycache::CacheOptions options;
    options.log = log;  // the cache has lines of its own: a cleanup that fails, for example
    psycache::PostgresCache cache(pool, options);
    const psycache::CleanupService cleanup = cache.start_cleanup_thread(1min);
    for (int i = 0; i < 1000 && cache.statistics().cleanup_failures == 0; ++i) {
        std::this_thread::sleep_for(10ms);
    }
    expect(cache.statistics().cleanup_failures == 1, "a cleanup that failed");
}

void make_log_lines(const std::string& dsn, const psycache::LogSink& log) {
    use_cache(dsn, log);
    use_absent_server(log);
}

// ---- the application's loggers ------------------------------------------------------------------

void check(const std::string& lines, const std::string& debug, const std::string& info,
           const std::string& warning, const std::string& error) {
    expect(lines.find(debug + " a connection was opened") != std::string::npos, debug);
    expect(lines.find(info + " an idle connection was closed by the server") != std::string::npos,
           info);
    expect(lines.find(warning + " ") != std::string::npos, warning);
    expect(lines.find(error + " Periodic cache cleanup failed") != std::string::npos, error);
}

void with_spdlog(const std::string& dsn) {
    std::ostringstream kept;
    const auto keep = std::make_shared<spdlog::sinks::ostream_sink_mt>(kept);
    const auto show = std::make_shared<spdlog::sinks::stdout_sink_mt>();
    const auto logger =
        std::make_shared<spdlog::logger>("cache", spdlog::sinks_init_list{show, keep});
    logger->set_pattern("spdlog: [%n] [%l] %v");
    logger->set_level(spdlog::level::debug);  // spdlog's default is info

    make_log_lines(dsn, to_spdlog(logger));
    logger->flush();
    check(kept.str(), "[debug]", "[info]", "[warning]", "[error]");
}

void with_boost_log(const std::string& dsn) {
    namespace expr = boost::log::expressions;
    namespace sinks = boost::log::sinks;
    const auto kept = boost::make_shared<std::ostringstream>();
    const boost::shared_ptr<std::ostream> show(&std::cout, boost::null_deleter());
    const auto sink = boost::make_shared<sinks::synchronous_sink<sinks::text_ostream_backend>>();
    sink->locked_backend()->add_stream(show);
    sink->locked_backend()->add_stream(kept);
    sink->set_formatter(expr::stream << "Boost.Log: [" << boost::log::trivial::severity << "] "
                                     << expr::smessage);
    boost::log::core::get()->add_sink(sink);

    make_log_lines(dsn, to_boost_log());
    boost::log::core::get()->remove_sink(sink);
    sink->flush();
    check(kept->str(), "[debug]", "[info]", "[warning]", "[error]");
}

}  // namespace

int main() {
    try {
        const char* const named = std::getenv("PSYCACHE_DSN");
        const std::string dsn = named != nullptr ? named : "";
        psycache::init_db(dsn);
        with_spdlog(dsn);
        with_boost_log(dsn);
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "logging: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
