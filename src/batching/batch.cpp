#include "batching/batch.hpp"

#include "batching/batcher.hpp"

namespace psycache {

void Batch::call_done() {
    if (--open_ == 0) {
        settle(std::monostate());
    }
}

void Batch::cancelled(asio::cancellation_type type) {
    for (const auto& call : calls_) {
        batcher_->abandon(*call, type);
    }
}

}  // namespace psycache
