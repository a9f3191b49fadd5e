#pragma once

#include <cstdint>

#include "operations/claim_load.hpp"

namespace psycache::detail {

/// What one load does, step by step: the protocol by which the processes that share a table load
/// each value once, and store nothing that was loaded before a change. Without I/O and without a
/// clock; a driver does what next() says and tells what came of it.
class LoadSteps {
  public:
    enum class Kind {
        of_absent,  ///< there is no live entry; its callers wait
        renewal,    ///< of a live entry; no caller waits
        uncached    ///< the server is out of reach: load, and store nothing
    };
    enum class Step {
        claim,      ///< the lease
        look,       ///< at what became of the key
        pause,      ///< before the next look: another process loads
        load,       ///< call the loader
        publish,    ///< store what was loaded
        give_back,  ///< the lease
        defer,      ///< the lease, for a while: the loader has failed
        done
    };
    enum class Loaded { value, nothing, failure };

    /// @param kind    see Kind.
    /// @param seen    what the first look-up has found.
    LoadSteps(Kind kind, const Sight& seen);

    Step next() const noexcept { return step_; }

    void claimed(const Claimed& answer);
    /// @param seen what the look has found; a live entry is the result.
    void looked(const Sight& seen);
    void paused() { step_ = Step::look; }
    void loaded(Loaded what);
    void published(bool stored);
    void given_back() { step_ = Step::done; }
    /// No caller waits for the result any more, and none will.
    void abandon();
    /// The cache has failed in a step: what was loaded, if anything, is the result all the same.
    void failed();
    /// A claim is sent: from now on a stub may be there.
    void claiming() noexcept { has_claimed_ = true; }

    /// @returns the expiry that the row must have when the value is stored.
    std::int64_t version() const noexcept { return version_; }
    /// @returns whether the lease is held.
    bool holds_lease() const noexcept { return holds_lease_; }
    /// @returns whether the row was changed while the value was loaded, which was not stored then.
    bool too_late() const noexcept { return too_late_; }
    /// @returns whether another one loads, or has loaded, the value.
    bool elsewhere() const noexcept { return elsewhere_; }

  private:
    const Kind kind_;
    Step step_;
    std::int64_t version_;
    bool has_claimed_ = false;
    bool holds_lease_ = false;
    bool too_late_ = false;
    bool elsewhere_ = false;
};

}  // namespace psycache::detail
