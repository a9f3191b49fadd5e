// Which cores client and server run on.
#pragma once

#include <sys/types.h>

#include <utility>
#include <vector>

namespace bench {

/// Where a lone caller and its server take turns, it matters more where they run than what they do:
/// waking the other one up on another core takes longer than a statement.
enum class Placement { as_scheduled, together, apart };

/// Moves this thread, and what it starts, to one core and servers, and what they start, to the same
/// or to another one; back again at the end.
class Placed {
  public:
    Placed(Placement placement, const std::vector<pid_t>& servers);
    Placed(const Placed&) = delete;
    Placed& operator=(const Placed&) = delete;
    ~Placed();

  private:
    std::vector<std::pair<pid_t, std::vector<int>>> before_;
};

/// Whether those can be moved, and there are cores to choose from.
bool can_place(const std::vector<pid_t>& servers);

}  // namespace bench
