#include "pool/attempts.hpp"

namespace psycache::detail {

namespace {

constexpr std::chrono::milliseconds shortest_pause{50};
constexpr std::chrono::milliseconds longest_pause{1000};
/// The same where trying again cannot help before somebody changes something.
constexpr std::chrono::milliseconds longest_hopeless_pause{5000};

bool is_hopeless(const Failure& failure) {
    return failure.code == Errc::authentication_failed || failure.sqlstate == "3D000";
}

}  // namespace

Attempts::Attempts(unsigned seed) : backoff_(seed, shortest_pause) {}

void Attempts::succeeded() noexcept {
    backoff_.succeeded();
    failure_.reset();
    hopeless_ = false;
}

void Attempts::failed(Clock::time_point began, const Failure& failure) {
    const bool beside_another = failure_ && began < failed_at_;
    failure_ = std::make_shared<const Failure>(failure);
    hopeless_ = is_hopeless(failure);
    if (!beside_another) {
        failed_at_ = Clock::now();
        backoff_.failed(failed_at_, hopeless_ ? longest_hopeless_pause : longest_pause);
    }
}

bool Attempts::hopeless() const noexcept {
    return hopeless_ && Clock::now() < next();
}

}  // namespace psycache::detail
