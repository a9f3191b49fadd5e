// The part of Batcher that lets maintenance run beside the calls.

#include "batching/batcher.hpp"

namespace psycache::detail {

bool Batcher::MaintenanceTurn::begin() {
    const std::lock_guard lock(batcher_->mutex_);
    runs_ = batcher_->scheduler_.begin_maintenance(waits_);
    waits_ = !runs_;
    return runs_;
}

Batcher::MaintenanceTurn::~MaintenanceTurn() {
    bool start = false;
    {
        const std::lock_guard lock(batcher_->mutex_);
        if (runs_) {
            batcher_->scheduler_.maintenance_ended();
        } else if (waits_) {
            batcher_->scheduler_.maintenance_gave_up();
        }
        start = batcher_->scheduler_.queued() > 0 && batcher_->scheduler_.call_worker();
    }
    if (start) {
        batcher_->start_worker();
    }
}

}  // namespace psycache::detail
