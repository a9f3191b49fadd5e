#include "pool/attempts.hpp"

namespace psycache::detail {

namespace {

constexpr std::chrono::milliseconds shortest_pause{50};
constexpr std::chrono::milliseconds longest_pause{1000};
/// The same where trying again cannot help before the set-up is changed.
constexpr std::chrono::milliseconds longest_pause_for_setup{5000};

bool is_wrong_setup(const Failure& failure) {
    return failure.code == Errc::authentication_failed || failure.sqlstate == "3D000";
}

}  // namespace

Attempts::Attempts(unsigned seed) : backoff_(seed, shortest_pause) {}

void Attempts::succeeded() noexcept {
    backoff_.succeeded();
    failure_.reset();
    wrong_setup_ = false;
}

void Attempts::failed(TimePoint began, const Failure& failure, TimePoint now) {
    const bool beside_another = failure_ && began < failed_at_;
    failure_ = std::make_shared<const Failure>(failure);
    wrong_setup_ = is_wrong_setup(failure);
    if (!beside_another) {
        failed_at_ = now;
        backoff_.failed(now, wrong_setup_ ? longest_pause_for_setup : longest_pause);
    }
}

bool Attempts::waiting_is_in_vain(TimePoint now) const noexcept {
    return wrong_setup_ && now < next();
}

}  // namespace psycache::detail
