#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <psycache/typed.hpp>

#include "cache/cache_core.hpp"
#include "operations/look_up.hpp"

namespace psycache::detail {

/// What callers share: a value, the JSON object that it is, or what their type has made of it.
using Shared = std::shared_ptr<const void>;

/// @returns the object of a value that is in memory; null if there is none, or it is no object.
std::shared_ptr<const boost::json::object> peek(const CacheCore& core,
                                                std::string_view key) noexcept;
/// @param wanted of which type; null for the value itself.
/// @returns what is in memory already.
Shared peek(const CacheCore& core, std::string_view key, const std::type_info* wanted) noexcept;

/// Looks a key up in memory as a call that instrumentations hear of. @returns null for a miss.
/// @throws Error if what is there cannot be read.
Shared find_shared(const CacheCore& core, std::string_view key, const SharedReader& reader,
                   const CallOptions& options);

/// A look-up of the table whose answer memory may keep.
class SharedLookUp {
  public:
    SharedLookUp(const CacheCore& core, std::string_view key, const SharedReader& reader);

    GetShared request() const { return GetShared(key_, reader_); }
    /// @returns what was found, which memory keeps from now on if it may.
    Shared found(FoundShared found) const;

  private:
    NearCache* const near_;
    const std::string key_;
    const SharedReader reader_;
    const std::optional<NearCache::Ticket> ticket_;
};

/// @tparam T what the reader makes, or void.
template <class T>
asio::awaitable<std::shared_ptr<const T>> get_shared(CacheCore::Self core, std::string key,
                                                     SharedReader reader, CallOptions options);

}  // namespace psycache::detail
