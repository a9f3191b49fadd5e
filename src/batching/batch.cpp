#include "batching/batch.hpp"

#include "batching/batcher.hpp"

namespace psycache::detail {

void Call::cancelled(asio::cancellation_type type) {
    if (const auto batcher = batcher_.lock()) {
        batcher->abandon(*this, type);
    }
}

void Batch::call_done() {
    if (--open_ == 0) {
        settle_with([] {});
    }
}

void Batch::cancelled(asio::cancellation_type type) {
    for (const auto& call : calls_) {
        batcher_->abandon(*call, type);
    }
}

}  // namespace psycache::detail
