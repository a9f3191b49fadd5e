#include "cache/breaker.hpp"

#include <boost/asio/error.hpp>
#include <string>
#include <utility>

#include "core/sqlstate.hpp"

namespace psycache::detail {

namespace {

/// What tells nothing about the server: the caller left, or the call never got as far.
bool is_silent(const boost::system::error_code& code) {
    return code == boost::asio::error::operation_aborted || code == Errc::queue_full ||
           code == Errc::reentrant_call || code == Errc::invalid_key ||
           code == Errc::invalid_value || code == Errc::invalid_ttl;
}

}  // namespace

Breaker::Breaker(unsigned seed, LogSink log)
    : log_(std::move(log)),
      all_(seed, "the server cannot be reached: calls are answered without it (OnOutage::miss)",
           "the server answers again: its calls are no longer answered without it"),
      writes_(seed, "the server takes no writes: they are dropped (OnOutage::miss)",
              "the server takes writes again: they are no longer dropped") {}

Breaker::Pass Breaker::admit(TimePoint now, bool writes) {
    Pass pass;
    if (open()) {
        const std::lock_guard lock(mutex_);
        for (const Circuit* circuit : {&all_, &writes_}) {
            if (circuit->refuses(now) && (writes || circuit == &all_)) {
                pass.refusal_ = circuit->reason;
                return pass;
            }
        }
        pass.probe_ = all_.probing = all_.open;
        if (writes) {
            pass.probe_write_ = writes_.probing = writes_.open;
        }
    }
    pass.breaker_ = shared_from_this();
    pass.successes_before_ = successes_.load(std::memory_order_relaxed);
    pass.writes_ = writes;
    return pass;
}

/// The server has answered a call.
void Breaker::succeeded(Circuit& circuit, bool was_probe) noexcept {
    if (circuit.failures.load(std::memory_order_relaxed) != 0) {
        circuit.failures.store(0, std::memory_order_relaxed);
    }
    if (!was_probe && !circuit.open) {
        return;
    }
    {
        const std::lock_guard lock(mutex_);
        circuit.probing = false;
        if (!circuit.open.exchange(false)) {
            return;
        }
        circuit.failures.store(0);
        circuit.pause.succeeded();
        circuit.reason.reset();
    }
    log(LogLevel::info, circuit.closed);
}

void Breaker::failed(Circuit& circuit, const Failure& failure, bool was_probe,
                     TimePoint now) noexcept {
    if (!was_probe && circuit.failures.fetch_add(1, std::memory_order_relaxed) + 1 < enough) {
        return;
    }
    {
        const std::lock_guard lock(mutex_);
        if (circuit.open && !was_probe) {
            return;
        }
        circuit.probing = false;
        circuit.pause.failed(now, longest_pause);
        try {
            circuit.reason =
                Failure(failure.code,
                        (&circuit == &all_ ? "not tried, since the server could not be reached: "
                                           : "not tried, since the server refused writes: ") +
                            failure.cause);
            circuit.reason->sqlstate = failure.sqlstate;
        } catch (...) {
            return;  // out of memory: the next failure may open it
        }
        if (circuit.open.exchange(true)) {
            return;
        }
    }
    log(LogLevel::warning, circuit.opened);
}

void Breaker::withdrawn(Circuit& circuit, bool was_probe) noexcept {
    if (was_probe) {
        const std::lock_guard lock(mutex_);
        circuit.probing = false;
    }
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
    withdraw();
}

/// It tells nothing.
void Breaker::Pass::withdraw() noexcept {
    if (const auto breaker = std::move(breaker_)) {
        breaker->withdrawn(breaker->all_, probe_);
        breaker->withdrawn(breaker->writes_, probe_write_);
    }
}

void Breaker::Pass::succeeded() noexcept {
    if (const auto breaker = std::move(breaker_)) {
        breaker->successes_.fetch_add(1, std::memory_order_relaxed);
        breaker->succeeded(breaker->all_, probe_);
        if (writes_) {
            breaker->succeeded(breaker->writes_, probe_write_);
        }
    }
}

void Breaker::Pass::failed(const Failure& failure) noexcept {
    if (!breaker_ || is_silent(failure.code)) {
        return withdraw();
    }
    const bool refused_write = writes_ && refuses_writes(failure.sqlstate);
    if (!refused_write && failure.code != Condition::unavailable) {
        return succeeded();  // the server has answered
    }
    const auto now = std::chrono::steady_clock::now();
    const auto breaker = std::move(breaker_);
    if (refused_write) {
        breaker->successes_.fetch_add(1, std::memory_order_relaxed);
        breaker->succeeded(breaker->all_, probe_);
        breaker->failed(breaker->writes_, failure, probe_write_, now);
        return;
    }
    breaker->withdrawn(breaker->writes_, probe_write_);
    // A call that was slow while others were answered met a lock, not an outage.
    if (probe_ || breaker->successes_.load(std::memory_order_relaxed) == successes_before_) {
        breaker->failed(breaker->all_, failure, probe_, now);
    }
}

}  // namespace psycache::detail
