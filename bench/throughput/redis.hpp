// A private Redis server.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <map>
#include <optional>
#include <string>

#include "throughput/child.hpp"
#include "throughput/data.hpp"

namespace bench {

/// Runs on a Unix socket in a folder of its own, stores nothing on disk and ends with this program.
class Redis {
  public:
    /// Throws Unavailable when there is no server to start.
    Redis();
    Redis(const Redis&) = delete;
    Redis& operator=(const Redis&) = delete;
    ~Redis();

    /// Fills a database of its own with these entries, as JSON text.
    void load(const Data& data);

    std::string socket() const { return (dir_.path() / "redis.sock").string(); }
    int database(std::size_t value_size) const { return databases_.at(value_size); }
    const std::string& version() const { return version_; }
    pid_t process() const { return process_; }
    std::optional<double> cpu_seconds() const;

  private:
    TempDir dir_;
    std::string version_;
    pid_t process_ = -1;
    std::map<std::size_t, int> databases_;
};

}  // namespace bench
