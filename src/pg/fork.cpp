#include "pg/fork.hpp"

#include <pthread.h>

#include <atomic>

namespace psycache::pg {

namespace {

std::atomic<unsigned> count{0};

}  // namespace

unsigned forks() noexcept {
    [[maybe_unused]] static const int registered = ::pthread_atfork(
        nullptr, nullptr, +[] { count.fetch_add(1); });
    return count.load(std::memory_order_relaxed);
}

}  // namespace psycache::pg
