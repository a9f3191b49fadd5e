#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/failure.hpp"

namespace psycache::detail::pg {

/// Why no host of a DSN could be connected to, each for itself.
class ConnectErrors {
  public:
    /// Takes what libpq has to say of the hosts that it has tried, one after the other.
    void add(std::string_view message);
    /// A reason that is not libpq's. @param host which it is about, for people.
    void add(const std::string& host, std::string reason);

    /// @returns the failure, whose text names the reason of every host. The code is that of the
    /// last one.
    Failure failure() const;

  private:
    struct Reason {
        std::string host;    // "connection to server at "10.0.0.1", port 5432 failed: "
        std::string reason;  // without the server's own words
        bool of_server = false;

        bool operator==(const Reason&) const = default;
    };

    void add(Reason reason);

    std::vector<Reason> reasons_;
    Failure last_;
};

}  // namespace psycache::detail::pg
