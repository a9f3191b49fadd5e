#include "blocking/cleanup_thread.hpp"

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>

#include "cache/cleanup_task.hpp"
#include "cache/maintenance.hpp"

namespace psycache::detail {

CleanupThread::CleanupThread(PoolSource& pools, const CacheOptions& options,
                             const Telemetry& telemetry, Duration interval)
    : core_(std::make_shared<CacheCore>(pools.make_cleanup_pool(context_.get_executor()), options,
                                        telemetry, CacheCore::Blocking{nullptr, pools.blocks()},
                                        nullptr)) {
    asio::co_spawn(context_, run_cleanup(core_, interval),
                   asio::bind_cancellation_slot(stop_signal_.slot(), asio::detached));
    thread_ = std::thread([this] { run(); });
}

CleanupThread::~CleanupThread() {
    stop(std::nullopt);
    thread_.join();
}

void CleanupThread::run() noexcept {
#ifdef __linux__
    // Fifteen characters of it are kept.
    ::prctl(PR_SET_NAME, "psycache-cleanup", 0, 0, 0);
#endif
    try {
        context_.run();
    } catch (...) {
        core_->observers->log(LogLevel::error, "the cleanup thread ended by an exception");
    }
    const std::lock_guard lock(mutex_);
    ended_ = true;
    ended_changed_.notify_all();
}

bool CleanupThread::stop(std::optional<Duration> timeout) {
    asio::post(context_, [this] { stop_signal_.emit(asio::cancellation_type::terminal); });
    std::unique_lock lock(mutex_);
    const auto ended = [this] { return ended_; };
    if (!timeout) {
        ended_changed_.wait(lock, ended);
        return true;
    }
    if (ended_changed_.wait_for(lock, *timeout, ended)) {
        return true;
    }
    lock.unlock();
    core_->observers->log(LogLevel::warning,
                          "Cleanup thread did not stop within timeout=" + in_seconds(*timeout));
    return false;
}

}  // namespace psycache::detail
