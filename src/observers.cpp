#include "observers.hpp"

namespace psycache {

Observers::Observers(std::vector<std::shared_ptr<CacheInstrumentation>> providers, LogSink log)
    : providers_(std::move(providers)),
      log_(std::move(log)),
      complained_(std::make_unique<std::atomic<bool>[]>(providers_.size())) {}

void Observers::complain(std::size_t provider) const noexcept {
    if (!complained_[provider].exchange(true)) {
        log(LogLevel::error,
            "an instrumentation threw an exception; it is ignored, and further ones of the same "
            "instrumentation are not logged");
    }
}

void Observers::log(LogLevel level, std::string_view line) const noexcept {
    if (!log_) {
        return;
    }
    try {
        log_(level, line);
    } catch (...) {
        // A log that fails has no place to say so.
    }
}

}  // namespace psycache
