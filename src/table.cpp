#include <psycache/table.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>
#include <stdexcept>
#include <utility>

#include "core/failure.hpp"
#include "core/job.hpp"
#include "core/option_checks.hpp"
#include "operations/table.hpp"
#include "operations/table_ddl.hpp"
#include "pg/connection.hpp"
#include "pg/conninfo.hpp"
#include "pool/borrow.hpp"
#include "pool/lease_state.hpp"

namespace psycache {

using namespace detail;

namespace {

constexpr std::string_view init_operation = "init_db";
constexpr std::string_view drop_operation = "drop_notify";
constexpr auto statement_timeout = std::chrono::minutes(1);
constexpr auto connect_timeout = std::chrono::seconds(10);

struct Created {};

/// The failure, about this schema rather than about some statement.
Failure explain(Failure failure, const TableOptions& options) {
    const std::string place =
        options.schema ? "schema " + quoted_identifier(*options.schema) : "the default schema";
    if (failure.sqlstate == "3F000") {
        failure.cause = place + " does not exist: create it first";
    } else if (failure.code == Errc::permission_denied) {
        failure.cause = "permission denied: the role may not create tables in " + place +
                        ", or does not own the table that is there";
    }
    return failure;
}

asio::awaitable<Result<Created>> run_script(pg::Connection& connection, std::string script,
                                            const TableOptions& options) {
    auto running = connection.execute_script(std::move(script),
                                             std::chrono::steady_clock::now() + statement_timeout);
    pg::Answer answer = co_await std::move(running);
    if (!answer) {
        co_return explain(answer.error().failure, options);
    }
    co_return Created{};
}

asio::awaitable<Result<Created>> create_table_with(AsyncCachePool& pool,
                                                   std::shared_ptr<Job<Created>> job,
                                                   TableOptions options) {
    // One step from the beginning: the pool is promised only for as long as the caller waits.
    if (!job->begin_step()) {
        co_return cancelled_failure();
    }
    const Observers unobserved({}, nullptr);
    Result<ConnectionLease> lease = co_await borrow(pool, unobserved);
    if (!lease) {
        co_return lease.error();
    }
    if (job->stop_requested()) {
        co_return cancelled_failure();
    }
    auto creating = run_script(lease->state().connection(), table_script(options), options);
    auto result = co_await std::move(creating);
    if (result && job->stop_requested()) {
        co_return cancelled_failure();
    }
    co_return result;
}

asio::awaitable<void> init_db_with(AsyncCachePool& pool, TableOptions options) {
    asio::any_io_executor executor = pool.get_executor();
    if (!executor) {
        executor = co_await asio::this_coro::executor;
    }
    JobBody<Created> body = [&pool, options](std::shared_ptr<Job<Created>> job) {
        return create_table_with(pool, std::move(job), options);
    };
    auto result =
        co_await run_job<Created>(std::move(executor), Job<Created>::OnCancel::wait_for_the_end,
                                  std::nullopt, std::move(body));
    if (!result) {
        throw to_error(init_operation, result.error());
    }
}

asio::awaitable<void> run_script_at(std::string dsn, std::string script, TableOptions options,
                                    std::string_view operation) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    auto opening =
        pg::Connection::open(executor, pg::Target(std::move(dsn)),
                             std::chrono::steady_clock::now() + connect_timeout, nullptr);
    auto opened = co_await std::move(opening);
    if (!opened) {
        throw to_error(operation, opened.error());
    }
    auto running = run_script(**opened, std::move(script), options);
    auto result = co_await std::move(running);
    if (!result) {
        throw to_error(operation, result.error());
    }
}

/// The same, blocking.
void run_script_blocking(const std::string& dsn, std::string script, const TableOptions& options,
                         std::string_view operation) {
    pg::check_dsn(dsn, "dsn");
    asio::io_context context(1);
    std::exception_ptr thrown;
    asio::co_spawn(context, run_script_at(dsn, std::move(script), options, operation),
                   [&](std::exception_ptr error) { thrown = error; });
    context.run();
    if (thrown) {
        std::rethrow_exception(thrown);
    }
}

}  // namespace

std::string init_db_sql(const TableOptions& options) {
    check_schema(options.schema);
    return table_sql(options);
}

asio::awaitable<void> init_db(AsyncCachePool& pool, TableOptions options) {
    check_schema(options.schema);
    return init_db_with(pool, std::move(options));
}

void init_db(pg_conn* connection, const TableOptions& options) {
    check_schema(options.schema);
    if (connection == nullptr) {
        throw std::invalid_argument("init_db: connection must not be null");
    }
    const auto result = pg::execute_blocking(connection, table_script(options));
    if (!result) {
        throw to_error(init_operation, explain(result.error(), options));
    }
}

void init_db(const std::string& dsn, const TableOptions& options) {
    check_schema(options.schema);
    run_script_blocking(dsn, table_script(options), options, init_operation);
}

std::string drop_notify_sql(const TableOptions& options) {
    check_schema(options.schema);
    return notify_removal_sql(options);
}

void drop_notify(const std::string& dsn, const TableOptions& options) {
    check_schema(options.schema);
    run_script_blocking(dsn, notify_removal_script(options), options, drop_operation);
}

}  // namespace psycache
