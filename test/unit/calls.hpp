#pragma once

/// @file
/// Calls without a server, for unit tests of what is decided about them.

#include <chrono>
#include <memory>
#include <string>

#include "batching/call.hpp"
#include "batching/lock_retry.hpp"
#include "batching/operation.hpp"

namespace psycache::test {

/// An operation that is only told from others.
class NamedOperation final : public psycache::detail::Operation {
  public:
    using Operation::Operation;
    const psycache::detail::pg::Statement& bind(const psycache::detail::Group&,
                                                psycache::detail::pg::Parameters&) const override {
        return none_;
    }
    void answer(const psycache::detail::Group&, const psycache::detail::pg::Rows&,
                psycache::detail::Resume) const override {}
    psycache::detail::Failure explain(psycache::detail::Failure failure) const override {
        return failure;
    }
    const psycache::detail::pg::Statement& looks_for_locks() const override { return none_; }
    psycache::detail::LockSight lock_sight(const psycache::detail::pg::Rows&) const override {
        return {};
    }

  private:
    const psycache::detail::pg::Statement none_{"", {}};
};

inline const NamedOperation reading{"get", false};
inline const NamedOperation storing{"put", true};
inline const NamedOperation removing{"remove", true};

inline std::shared_ptr<psycache::detail::Call> call(const psycache::detail::Operation& operation,
                                                    const std::string& key,
                                                    psycache::detail::TimePoint until = {},
                                                    std::size_t payload = 0) {
    return std::make_shared<psycache::detail::Call>(operation, key, until, payload);
}

inline std::shared_ptr<psycache::detail::Call> settled_call(const std::string& key) {
    auto gone = call(storing, key);
    gone->fail(psycache::detail::cancelled_failure());
    return gone;
}

/// When a test begins.
inline const psycache::detail::TimePoint the_start{std::chrono::hours(1)};

/// @returns the first letters of the calls' keys.
inline std::string keys_of(const psycache::detail::Calls& calls) {
    std::string keys;
    for (const auto& one : calls) {
        keys += one->key.substr(0, 1);
    }
    return keys;
}

}  // namespace psycache::test
