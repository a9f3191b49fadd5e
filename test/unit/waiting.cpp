// A value that one coroutine waits for: where its waiter goes on.

#include "core/waiting.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <catch2/catch.hpp>
#include <stdexcept>
#include <thread>

#include "core/job.hpp"

using namespace psycache;
using namespace psycache::detail;

namespace {

class Number final : public Completion<int> {
    void cancelled(asio::cancellation_type /*type*/) override { settle(-1); }
};

struct NoStart {
    void operator()(const std::shared_ptr<Waited>& /*waited*/) const {}
};

asio::awaitable<void> wait_for(std::shared_ptr<Number> number, int& seen) {
    auto waiting = Waited::wait(number, NoStart());
    co_await std::move(waiting);
    seen = number->value();
}

asio::awaitable<void> wait_and_throw(std::shared_ptr<Number> number) {
    auto waiting = Waited::wait(std::move(number), NoStart());
    co_await std::move(waiting);
    throw std::runtime_error("the waiter's own");
}

void rethrow(const std::exception_ptr& thrown) {
    if (thrown) {
        std::rethrow_exception(thrown);
    }
}

}  // namespace

TEST_CASE("A waiter goes on inside of settle() only where that runs on its io_context") {
    asio::io_context context;
    const auto number = std::make_shared<Number>();
    int seen = 0;

    SECTION("it was asked for, and it does") {
        asio::co_spawn(context, wait_for(number, seen), asio::detached);
        asio::post(context, [&] {
            CHECK(number->settle(5, Resume::inside));
            CHECK(seen == 5);
            CHECK_FALSE(number->settle(6, Resume::inside));
        });
        context.run();
    }
    SECTION("it was not asked for") {
        asio::co_spawn(context, wait_for(number, seen), asio::detached);
        asio::post(context, [&] {
            CHECK(number->settle(5));
            CHECK(seen == 0);
        });
        context.run();
    }
    SECTION("the settler runs elsewhere") {
        asio::co_spawn(context, wait_for(number, seen), asio::detached);
        context.poll();
        CHECK(number->settle(5, Resume::inside));
        CHECK(seen == 0);
        context.run();
    }
    SECTION("the settler runs on another io_context") {
        asio::co_spawn(context, wait_for(number, seen), asio::detached);
        context.poll();
        asio::io_context another;
        asio::post(another, [&] {
            CHECK(number->settle(5, Resume::inside));
            CHECK(seen == 0);
        });
        another.run();
        context.run();
    }
    SECTION("the waiter is on a strand") {
        asio::co_spawn(asio::make_strand(context), wait_for(number, seen), asio::detached);
        asio::post(context, [&] {
            CHECK(number->settle(5, Resume::inside));
            CHECK(seen == 0);
        });
        context.run();
    }
    CHECK(seen == 5);
}

TEST_CASE("What a waiter throws inside of settle() comes out of run(), not of settle()") {
    asio::io_context context;
    const auto number = std::make_shared<Number>();
    asio::co_spawn(context, wait_and_throw(number), rethrow);
    bool settled = false;
    asio::post(context, [&] { settled = number->settle(5, Resume::inside); });
    CHECK_THROWS_WITH(context.run(), "the waiter's own");
    CHECK(settled);
    context.run();
}

TEST_CASE("Work whose time is over before it begins is told from work that is cancelled") {
    using Work = Job<int>;
    Work late(Work::OnCancel::leave);
    CHECK(late.time_out());
    CHECK_FALSE(late.begin_step());
    CHECK(late.stop_failure().code == Errc::timed_out);
    Work begun(Work::OnCancel::leave);
    CHECK(begun.begin_step());
    CHECK_FALSE(begun.time_out());
    CHECK_FALSE(begun.stop_requested());
    CHECK(begun.stop_failure().code == asio::error::operation_aborted);
}
