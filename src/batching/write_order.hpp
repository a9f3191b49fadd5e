#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>

#include "batching/call.hpp"

namespace psycache::detail {

/// Keeps the writes of each key in order: one that comes while another one of its key is on its way
/// waits until that has ended, whether or not its caller still waits for it. So nothing that was
/// sent before a write can take effect after it. No I/O, no lock, no clock.
class WriteOrder {
  public:
    /// @returns how many calls wait.
    std::size_t size() const noexcept { return waiting_; }
    /// @returns whether a write of this key is on its way.
    bool holds(const std::string& key) const { return keys_.contains(key); }

    /// @returns whether the call has to wait; then it is kept here, behind those of its key.
    bool add_behind(const std::shared_ptr<Call>& call) {
        const auto key = keys_.find(call->key);
        if (key == keys_.end()) {
            return false;
        }
        key->second.behind.push_back(call);
        ++waiting_;
        return true;
    }

    /// The call is on its way.
    void begin(Call& call) {
        ++keys_[call.key].on_their_way;
        call.progress.ordered = true;
    }

    /// The call is no longer on its way. Does nothing for one that did not begin.
    /// @param freed gets those that may go now, in their order.
    void end(Call& call, Calls& freed) {
        if (!call.progress.ordered) {
            return;
        }
        call.progress.ordered = false;
        const auto key = keys_.find(call.key);
        if (--key->second.on_their_way == 0) {
            waiting_ -= key->second.behind.size();
            freed.insert(freed.end(), key->second.behind.begin(), key->second.behind.end());
            keys_.erase(key);
        }
    }

  private:
    struct Key {
        std::size_t on_their_way = 0;
        Calls behind;
    };

    std::unordered_map<std::string, Key> keys_;
    std::size_t waiting_ = 0;
};

}  // namespace psycache::detail
