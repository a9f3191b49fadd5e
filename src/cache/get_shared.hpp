#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "cache/cache_core.hpp"
#include "operations/look_up.hpp"

namespace psycache::detail {

using SharedObject = std::shared_ptr<const boost::json::object>;

/// @returns the object of a value that was found in memory; null if it is none.
inline SharedObject object_of(NearCache::Value value) noexcept {
    if (value == nullptr || !value->is_object()) {
        return nullptr;
    }
    const auto* const object = &value->get_object();
    return SharedObject(std::move(value), object);
}

inline SharedObject peek(const CacheCore& core, std::string_view key) noexcept {
    return core.near ? object_of(core.near->find(key).value) : nullptr;
}

/// Looks a key up in memory as a call that instrumentations hear of. @returns null for a miss.
SharedObject find_shared(const CacheCore& core, std::string_view key, const CallOptions& options);

/// A look-up of the table whose answer memory may keep.
class SharedLookUp {
  public:
    SharedLookUp(const CacheCore& core, std::string_view key);

    GetShared request() const { return GetShared(key_); }
    /// @returns what was found, which memory keeps from now on if it may.
    SharedObject found(Found found) const;

  private:
    NearCache* const near_;
    const std::string key_;
    const std::optional<NearCache::Ticket> ticket_;
};

asio::awaitable<SharedObject> get_shared(CacheCore::Self core, std::string key,
                                         CallOptions options);

}  // namespace psycache::detail
