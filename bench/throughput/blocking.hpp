// Callers that block, a thread for each.
#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "throughput/contender.hpp"
#include "throughput/data.hpp"

namespace bench {

/// A blocking client, used by one thread at a time.
class Session {
  public:
    Session() = default;
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    virtual ~Session() = default;

    /// Looks a key up as far as the contender goes: with or without reading the JSON.
    virtual bool get(const std::string& key) = 0;
    /// The whole value, for comparison.
    virtual std::optional<json::object> read(const std::string& key) = 0;
    virtual void put(const std::string& key, const json::object& value) = 0;
    /// @returns how many of the keys were found.
    virtual std::size_t get_many(const std::vector<std::string>& keys);
    virtual void put_many(const std::vector<std::string>& keys, const json::object& value);
};

/// Runs one thread for every session, or this thread if there is only one.
std::unique_ptr<Contender> blocking_contender(const Data& data, const Workload& workload,
                                              ServerCpu server,
                                              std::vector<std::unique_ptr<Session>> sessions);

}  // namespace bench
