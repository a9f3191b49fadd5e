#include <psycache/cleanup_service.hpp>

#include <utility>

#include "blocking/cleanup_thread.hpp"
#include "cache/cleanup_task.hpp"
#include "core/option_checks.hpp"

namespace psycache {

using namespace detail;

namespace {

asio::awaitable<bool> already_stopped() {
    co_return true;
}

}  // namespace

AsyncCleanupService::AsyncCleanupService() noexcept = default;
AsyncCleanupService::AsyncCleanupService(std::shared_ptr<detail::CleanupTask> task) noexcept
    : task_(std::move(task)) {}
AsyncCleanupService::AsyncCleanupService(AsyncCleanupService&&) noexcept = default;

AsyncCleanupService& AsyncCleanupService::operator=(AsyncCleanupService&& other) noexcept {
    AsyncCleanupService old(std::move(*this));
    task_ = std::move(other.task_);
    return *this;
}

AsyncCleanupService::~AsyncCleanupService() {
    if (task_) {
        task_->request_stop();
    }
}

asio::awaitable<bool> AsyncCleanupService::stop(std::optional<Duration> timeout) {
    check_stop_timeout(timeout);
    return task_ ? detail::CleanupTask::stop(task_, timeout) : already_stopped();
}

CleanupService::CleanupService() noexcept = default;
CleanupService::CleanupService(std::shared_ptr<detail::CleanupThread> thread) noexcept
    : thread_(std::move(thread)) {}
CleanupService::CleanupService(CleanupService&&) noexcept = default;
CleanupService& CleanupService::operator=(CleanupService&&) noexcept = default;
CleanupService::~CleanupService() = default;

bool CleanupService::stop(std::optional<Duration> timeout) {
    check_stop_timeout(timeout);
    return !thread_ || thread_->stop(timeout);
}

}  // namespace psycache
