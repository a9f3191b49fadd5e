#pragma once

#include <utility>

namespace psycache::detail {

/// Calls a function when it is destroyed, unless it was dismissed.
///
/// Moved into a coroutine's frame or into a handler, it is how the rest of the library learns that
/// the frame went away with its io_context before it could finish: a context that is destroyed
/// destroys what it still holds without resuming it.
template <class F>
class AtEnd {
  public:
    explicit AtEnd(F function) : function_(std::move(function)) {}
    AtEnd(AtEnd&& other) noexcept
        : function_(std::move(other.function_)), armed_(std::exchange(other.armed_, false)) {}
    AtEnd& operator=(AtEnd&&) = delete;
    ~AtEnd() {
        if (armed_) {
            function_();
        }
    }

    /// What had to be done has been done otherwise.
    void dismiss() noexcept { armed_ = false; }
    bool dismissed() const noexcept { return !armed_; }

  private:
    F function_;
    bool armed_ = true;
};

}  // namespace psycache::detail
