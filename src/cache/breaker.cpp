#include "cache/breaker.hpp"

#include <boost/asio/error.hpp>
#include <string>
#include <utility>

namespace psycache {

namespace {

/// What tells nothing about the server: the caller left, or the call never got as far.
bool is_silent(const boost::system::error_code& code) {
    return code == boost::asio::error::operation_aborted || code == Errc::queue_full ||
           code == Errc::reentrant_call || code == Errc::invalid_key ||
           code == Errc::invalid_value || code == Errc::invalid_ttl;
}

}  // namespace

Breaker::Breaker(unsigned seed, LogSink log) : log_(std::move(log)), pause_(seed, shortest_pause) {}

Breaker::Pass Breaker::admit(TimePoint now) {
    Pass pass;
    if (open()) {
        const std::lock_guard lock(mutex_);
        if (open() && (probing_ || now < pause_.next_attempt())) {
            pass.refusal_ = reason_;
            return pass;
        }
        pass.probe_ = probing_ = open();
    }
    pass.breaker_ = shared_from_this();
    pass.successes_before_ = successes_.load(std::memory_order_relaxed);
    return pass;
}

void Breaker::succeeded(bool was_probe) noexcept {
    successes_.fetch_add(1, std::memory_order_relaxed);
    if (failures_.load(std::memory_order_relaxed) != 0) {
        failures_.store(0, std::memory_order_relaxed);
    }
    if (was_probe || open()) {
        close();
    }
}

void Breaker::failed(const Failure& failure, std::uint64_t successes_before, bool was_probe,
                     TimePoint now) noexcept {
    if (failure.code != Condition::unavailable) {
        if (!is_silent(failure.code)) {
            succeeded(was_probe);  // the server has answered
        } else if (was_probe) {
            probe_withdrawn();
        }
        return;
    }
    // A call that was slow while others were answered met a lock, not an outage.
    if (!was_probe && successes_.load(std::memory_order_relaxed) != successes_before) {
        return;
    }
    if (!was_probe && failures_.fetch_add(1, std::memory_order_relaxed) + 1 < enough) {
        return;
    }
    {
        const std::lock_guard lock(mutex_);
        if (open() && !was_probe) {
            return;
        }
        probing_ = false;
        pause_.failed(now, longest_pause);
        try {
            reason_ = Failure(failure.code,
                              "not tried, since the server could not be reached: " + failure.cause);
            reason_->sqlstate = failure.sqlstate;
        } catch (...) {
            return;  // out of memory: the next failure may open it
        }
        if (open_.exchange(true)) {
            return;
        }
    }
    log(LogLevel::warning,
        "the server cannot be reached: calls are answered without it (OnOutage::miss)");
}

void Breaker::probe_withdrawn() noexcept {
    const std::lock_guard lock(mutex_);
    probing_ = false;
}

void Breaker::close() noexcept {
    {
        const std::lock_guard lock(mutex_);
        probing_ = false;
        if (!open_.exchange(false)) {
            return;
        }
        failures_.store(0);
        pause_.succeeded();
        reason_.reset();
    }
    log(LogLevel::info, "the server answers again: its calls are no longer answered without it");
}

void Breaker::log(LogLevel level, std::string_view line) const noexcept {
    try {
        if (log_) {
            log_(level, line);
        }
    } catch (...) {
        // As LogSink says.
    }
}

Breaker::Pass::~Pass() {
    if (breaker_ && probe_) {
        breaker_->probe_withdrawn();
    }
}

void Breaker::Pass::succeeded() noexcept {
    if (const auto breaker = std::move(breaker_)) {
        breaker->succeeded(probe_);
    }
}

void Breaker::Pass::failed(const Failure& failure) noexcept {
    if (const auto breaker = std::move(breaker_)) {
        breaker->failed(failure, successes_before_, probe_, std::chrono::steady_clock::now());
    }
}

}  // namespace psycache
