#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <variant>

#include "async/completion.hpp"
#include "batching/call.hpp"

namespace psycache {

/// Calls that one caller waits for together: done when the last of them is answered.
class Batch final : public Completion<std::monostate>, public CallOwner {
  public:
    Batch(std::shared_ptr<Batcher> batcher, const Calls& calls)
        : batcher_(std::move(batcher)), calls_(calls), open_(calls.size()) {}

    const Calls& calls() const noexcept { return calls_; }

    void call_done() override;

  private:
    void cancelled(asio::cancellation_type type) override;

    const std::shared_ptr<Batcher> batcher_;
    const Calls calls_;
    std::atomic<std::size_t> open_;
};

}  // namespace psycache
