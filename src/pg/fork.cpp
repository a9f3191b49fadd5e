#include "pg/fork.hpp"

#include <pthread.h>

#include <atomic>

namespace psycache::detail::pg {

namespace {

std::atomic<unsigned> forks_so_far{0};

}  // namespace

unsigned forks() noexcept {
    [[maybe_unused]] static const int registered = ::pthread_atfork(
        nullptr, nullptr, +[] { forks_so_far.fetch_add(1); });
    return forks_so_far.load(std::memory_order_relaxed);
}

}  // namespace psycache::detail::pg
