// A connection whose server says anything: every statement ends in time, with one answer per call.

#include "pg/connection.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <exception>
#include <memory>
#include <utility>

#include "core/sqlstate.hpp"
#include "fuzz/fake_server.hpp"
#include "fuzz/fuzz.hpp"
#include "fuzz/group_calls.hpp"
#include "fuzz/libpq_ledger.hpp"

using namespace psycache;
using namespace psycache::detail;
using namespace std::chrono_literals;
using psycache::fuzz::Input;
using psycache::fuzz::require;
namespace asio = boost::asio;

namespace {

/// How long the library may wait for the server.
constexpr auto time_limit = 100ms;
/// How long everything may take, on a busy machine.
constexpr auto patience = 20s;

TimePoint deadline() {
    return std::chrono::steady_clock::now() + time_limit;
}

/// What is done on the connection, step by step.
struct Step {
    enum class Way { awaited, blocking, adopted, script };

    Way way;
    bool looks_alive;
    Calls calls;
};

const Operations& operations() {
    static const Operations all(std::nullopt, true, std::chrono::seconds(5));
    return all;
}

std::vector<Step> steps_of(Input& input) {
    std::vector<Step> steps(1 + input.below(3));
    for (Step& step : steps) {
        const std::uint8_t how = input.byte();
        step.way = static_cast<Step::Way>(how & 3);
        step.looks_alive = (how & 4) != 0;
        step.calls = fuzz::calls_of(input, operations());
    }
    return steps;
}

/// @returns whether the connection can be used again.
bool check_answer(const pg::Connection& connection, const pg::Answer& answer, const Calls& calls) {
    if (answer) {
        fuzz::answer(calls, *answer);
        return connection.reusable();
    }
    const pg::StatementFailure failure = answer.error();
    require(failure.failure.code.failed(), "a failure has a code");
    require(failure.failure.sqlstate.empty() || pack_sqlstate(failure.failure.sqlstate) > 0,
            "and the SQLSTATE of an error, or none");
    require(failure.connection_lost != connection.reusable(),
            "a failed statement tells whether the connection is lost");
    return connection.reusable();
}

asio::awaitable<pg::Answer> execute(pg::Connection& connection, const Step& step,
                                    const pg::Statement& sql, const pg::Parameters& parameters) {
    if (step.way == Step::Way::blocking) {
        co_return connection.execute_blocking(sql, parameters, deadline());
    }
    if (step.way == Step::Way::script) {
        auto script = connection.execute_script("SELECT 1; SELECT 2", deadline());
        co_return co_await std::move(script);
    }
    auto statement = connection.execute(sql, parameters, deadline());
    co_return co_await std::move(statement);
}

/// @returns whether the connection can be used again.
asio::awaitable<bool> take(pg::Connection& connection, const Step& step) {
    const Group group(step.calls);
    pg::Parameters parameters;
    const pg::Statement& sql = group.operation().bind(group, parameters);
    if (group.operation().writes) {
        parameters.own("100");
    }
    if (step.looks_alive && !connection.alive()) {
        co_return false;
    }
    if (step.way == Step::Way::adopted) {
        auto adopted = pg::Connection::adopt(connection.native());
        if (adopted) {
            auto operation = execute(**adopted, step, sql, parameters);
            const pg::Answer answer = co_await std::move(operation);
            check_answer(**adopted, answer, step.calls);
            (*adopted)->release();
        }
        co_return connection.reusable();
    }
    auto operation = execute(connection, step, sql, parameters);
    const pg::Answer answer = co_await std::move(operation);
    co_return check_answer(connection, answer, step.calls);
}

asio::awaitable<void> run(asio::io_context& context, std::string dsn, std::vector<Step> steps,
                          bool prepares) {
    auto prepare = std::make_shared<std::atomic<bool>>(prepares);
    auto opening = pg::Connection::open(context.get_executor(), pg::Target(std::move(dsn)),
                                        deadline(), prepare);
    const auto opened = co_await std::move(opening);
    if (!opened) {
        require(opened.error().code.failed(), "a failure to connect has a code");
        co_return;
    }
    for (const Step& step : steps) {
        auto taking = take(**opened, step);
        const bool usable = co_await std::move(taking);
        if (!usable) {
            co_return;
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    const bool prepares = input.flag();
    auto steps = steps_of(input);
    {
        const fuzz::FakeServer server({fuzz::session_of(input)});
        asio::io_context context;
        bool done = false;
        asio::co_spawn(context, run(context, server.dsn(), std::move(steps), prepares),
                       [&](std::exception_ptr error) {
                           require(!error, "no exception comes out of a connection");
                           done = true;
                       });
        context.run_for(patience);
        require(done, "everything ends in time");
        require(context.stopped(), "and leaves nothing behind");
    }
    fuzz::require_all_given_back();
    return 0;
}
