#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "batching/call.hpp"

namespace psycache::detail {

/// Calls that one caller waits for together: settled when the last of them is.
class Batch final : public Waited, public CallOwner {
  public:
    Batch(std::shared_ptr<Batcher> batcher, CallSpan calls)
        : batcher_(std::move(batcher)), calls_(calls.begin(), calls.end()), open_(calls.size()) {}

    const Calls& calls() const noexcept { return calls_; }

    void call_done() override;

  private:
    void cancelled(asio::cancellation_type type) override;

    const std::shared_ptr<Batcher> batcher_;
    const Calls calls_;
    std::atomic<std::size_t> open_;
};

}  // namespace psycache::detail
