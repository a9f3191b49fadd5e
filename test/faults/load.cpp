#include "faults/load.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

namespace psycache::test {

namespace {

constexpr std::size_t coroutines = 64;
constexpr std::size_t threads = 16;

/// Every caller pauses for so long after a failure, so that a server that is away is asked by all
/// of them, and not thousands of times.
constexpr Milliseconds after_failure = 5ms;

std::string key_of(std::size_t caller) {
    return "caller" + std::to_string(caller);
}

std::string describe(const Failure& failure) {
    return failure.code().message() + " (" + failure.sqlstate() + "): " + failure.what();
}

}  // namespace

void Expected::put_ended(std::int64_t number, const boost::system::error_code& code) {
    if (!code.failed()) {
        stored_ = number;
    } else if (code == Condition::outcome_unknown) {
        uncertain_.insert(number);
    }
}

bool Expected::may_be(const std::optional<json::object>& value, Entries entries) {
    if (!value) {
        return !stored_ || entries == Entries::vanish;
    }
    const auto number = value->at("n").as_int64();
    return number == stored_ || uncertain_.contains(number);
}

void Record::set_callers(std::size_t callers) {
    const std::lock_guard lock(mutex_);
    good_since_[Operation::get].resize(callers);
    good_since_[Operation::put].resize(callers);
}

void Record::ended(std::size_t caller, Operation operation, Clock::time_point began,
                   const Failure& failure) {
    const auto now = Clock::now();
    const std::lock_guard lock(mutex_);
    slowest_ = std::max(slowest_, now - began);
    if (!failure) {
        good_since_[operation][caller] = began;
        return;
    }
    failed_since_ = std::max(failed_since_, began);
    auto& kind =
        failures_[std::to_string(failure.code().value()) + failure.sqlstate() + failure.what()];
    if (kind.count++ == 0) {
        kind.first = failure;
    }
}

void Record::wrong(const std::string& what) {
    const std::lock_guard lock(mutex_);
    ++wrong_[what];
}

bool Record::all_work(Operation operation, Milliseconds timeout) {
    const auto since = Clock::now();
    return eventually(
        [&] {
            const std::lock_guard lock(mutex_);
            const auto& good = good_since_.at(operation);
            return std::all_of(good.begin(), good.end(),
                               [&](auto began) { return began >= since; });
        },
        timeout);
}

bool Record::some_fail(Milliseconds timeout) {
    const auto since = Clock::now();
    return eventually(
        [&] {
            const std::lock_guard lock(mutex_);
            return failed_since_ >= since;
        },
        timeout);
}

std::string Record::unexpected(std::initializer_list<boost::system::error_code> allowed) const {
    const std::lock_guard lock(mutex_);
    std::string text;
    for (const auto& [name, kind] : failures_) {
        const auto& code = kind.first.code();
        if (!kind.first.typed() ||
            std::find(allowed.begin(), allowed.end(), code) == allowed.end()) {
            text += std::to_string(kind.count) + " x " + describe(kind.first) + "\n";
        }
    }
    for (const auto& [what, count] : wrong_) {
        text += std::to_string(count) + " x " + what + "\n";
    }
    return text;
}

std::size_t Record::count(const boost::system::error_code& code) const {
    const std::lock_guard lock(mutex_);
    std::size_t sum = 0;
    for (const auto& [name, kind] : failures_) {
        sum += kind.first.code() == code ? kind.count : 0;
    }
    return sum;
}

std::size_t Record::count(const std::string& sqlstate) const {
    const std::lock_guard lock(mutex_);
    std::size_t sum = 0;
    for (const auto& [name, kind] : failures_) {
        sum += kind.first.sqlstate() == sqlstate ? kind.count : 0;
    }
    return sum;
}

std::size_t Record::failures() const {
    const std::lock_guard lock(mutex_);
    std::size_t sum = 0;
    for (const auto& [name, kind] : failures_) {
        sum += kind.count;
    }
    return sum;
}

Milliseconds Record::slowest() const {
    const std::lock_guard lock(mutex_);
    return std::chrono::duration_cast<Milliseconds>(slowest_);
}

Load::Load(Flavour flavour, const PoolOptions& pool, const CacheOptions& options) {
    if (flavour == Flavour::async) {
        record_.set_callers(coroutines);
        context_.emplace(2);
        async_.emplace(context_->context().get_executor(), pool, options);
        for (std::size_t i = 0; i < coroutines; ++i) {
            coroutines_.push_back(context_->spawn(call(i)));
        }
    } else {
        record_.set_callers(threads);
        blocking_.emplace(pool, options);
        for (std::size_t i = 0; i < threads; ++i) {
            threads_.emplace_back([this, i] {
                try {
                    call_blocking(i);
                } catch (const std::exception& error) {
                    record_.wrong(std::string("a stranger's exception: ") + error.what());
                }
            });
        }
    }
}

Load::~Load() {
    stop();
    async_.reset();
    if (context_) {
        context_->finish();
    }
}

bool Load::hold() {
    held_ = true;
    const auto callers = coroutines_.size() + threads_.size();
    return eventually([&] { return waiting_ == callers; });
}

void Load::stop() {
    ends_ = true;
    held_ = false;
    for (auto& coroutine : coroutines_) {
        if (coroutine.wait_for(patience) != std::future_status::ready) {
            record_.wrong("a caller does not come back");
            context_->context().stop();
            break;
        }
        try {
            coroutine.get();
        } catch (const std::exception& error) {
            record_.wrong(std::string("a stranger's exception: ") + error.what());
        }
    }
    coroutines_.clear();
    for (auto& thread : threads_) {
        thread.join();
    }
    threads_.clear();
}

std::optional<json::object> Load::get(const std::string& key) {
    return async_ ? context_->run(async_->get_raw(key)) : blocking_->get_raw(key);
}

CacheStatistics Load::statistics() const {
    return async_ ? async_->statistics() : blocking_->statistics();
}

PoolStatistics Load::pool_statistics() const {
    return async_ ? *async_->pool_statistics() : *blocking_->pool_statistics();
}

void Load::check(const std::optional<json::object>& value, Expected& expected, std::size_t caller) {
    if (!expected.may_be(value, entries_)) {
        record_.wrong(key_of(caller) + " got " +
                      (value ? "a value that it had replaced or that was refused" : "a miss"));
    }
}

asio::awaitable<void> Load::call(std::size_t caller) {
    Expected expected;
    const auto released = [this] { return !held_; };
    while (!ends_) {
        if (held_) {
            ++waiting_;
            co_await until(released, patience * 2);
            --waiting_;
        }
        const auto number = expected.next();
        auto began = Clock::now();
        auto failure = co_await failure_of(async_->put_raw(key_of(caller), numbered(number), 1h));
        record_.ended(caller, Operation::put, began, failure);
        expected.put_ended(number, failure.code());
        began = Clock::now();
        std::optional<json::object> value;
        std::exception_ptr thrown;
        try {
            auto get = async_->get_raw(key_of(caller));
            value = co_await std::move(get);
        } catch (const boost::system::system_error&) {
            thrown = std::current_exception();
        }
        const Failure missed(thrown);
        record_.ended(caller, Operation::get, began, missed);
        if (!missed) {
            check(value, expected, caller);
        }
        const auto rest = std::max(pause_.load(), failure || missed ? after_failure : 0ms);
        if (rest != 0ms) {
            co_await pause(rest);
        }
    }
}

void Load::call_blocking(std::size_t caller) {
    Expected expected;
    while (!ends_) {
        if (held_) {
            ++waiting_;
            eventually([this] { return !held_; }, patience * 2);
            --waiting_;
        }
        const auto number = expected.next();
        auto began = Clock::now();
        const auto failure =
            failure_of([&] { blocking_->put_raw(key_of(caller), numbered(number), 1h); });
        record_.ended(caller, Operation::put, began, failure);
        expected.put_ended(number, failure.code());
        began = Clock::now();
        std::optional<json::object> value;
        const auto missed = failure_of([&] { value = blocking_->get_raw(key_of(caller)); });
        record_.ended(caller, Operation::get, began, missed);
        if (!missed) {
            check(value, expected, caller);
        }
        const auto rest = std::max(pause_.load(), failure || missed ? after_failure : 0ms);
        if (rest != 0ms) {
            std::this_thread::sleep_for(rest);
        }
    }
}

Trial::Trial(Flavour flavour, std::string admin, CacheOptions options, const Settings& changes)
    : admin_(std::move(admin)), name_(unique_name("load")), descriptors_(open_descriptors()) {
    if (options.timeout == CacheOptions().timeout) {
        options.timeout = usual_timeout;
    }
    timeout_ = options.timeout;
    Settings settings = changes;
    settings["application_name"] = name_;
    PoolOptions pool;
    pool.dsn = dsn_with(settings, admin_);
    pool.max_size = max_size;
    pool.connect_timeout = 1s * slowness;
    pool.acquire_timeout = 1500ms * slowness;
    load_.emplace(flavour, pool, options);
}

std::int64_t Trial::terminate() const {
    return sql().number(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = " +
        quote_literal(name_));
}

void Trial::finish(std::initializer_list<boost::system::error_code> allowed) {
    load_->stop();
    CHECK(record().unexpected(allowed) == "");
    CHECK(record().slowest() <= std::chrono::duration_cast<Milliseconds>(timeout_) + tolerance);
    const auto idle = [&] {
        const auto pool = load_->pool_statistics();
        return pool.busy == 0 && pool.waiting == 0 && pool.connecting == 0 &&
               pool.open == pool.idle && pool.open <= max_size &&
               static_cast<std::int64_t>(pool.open) == connections();
    };
    CHECK(eventually(idle));
    CHECK(load_->statistics().queued == 0);
    load_.reset();
    CHECK(eventually([&] { return connections() == 0; }));
    CHECK(eventually([&] { return open_descriptors() <= descriptors_; }));
}

}  // namespace psycache::test
