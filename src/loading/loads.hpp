#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include <psycache/duration.hpp>

#include "core/clock.hpp"
#include "core/waiting.hpp"

namespace psycache::detail {

/// What came of a load.
struct LoadResult {
    std::optional<boost::json::value> value;  ///< none: the loader had none, or see below
    std::exception_ptr error;                 ///< what all of its callers are to get
    bool abandoned = false;                   ///< it ended without a result: another one must load
};

/// A caller that waits for a load; settled with its result, or without one if it leaves first.
class LoadWait final : public Waited {
  public:
    enum class Ending { result, cancelled, timed_out };

    Ending ending = Ending::result;
    std::shared_ptr<const LoadResult> result;

    void time_out() { leave(Ending::timed_out); }

  private:
    void cancelled(asio::cancellation_type /*type*/) override { leave(Ending::cancelled); }
    void leave(Ending how) {
        settle_with([&] { ending = how; });
    }
};

/// One run of a loader for a key, for all callers in the process that want its value.
class Load {
  public:
    explicit Load(std::string its_key) : key(std::move(its_key)) {}

    const std::string key;

  private:
    friend class Loads;

    // Under the lock of Loads.
    std::size_t callers_ = 0;
    bool renewal_ = false;
    bool ended_ = false;
    bool abandoned_ = false;
    std::int64_t version_ = 0;
    TimePoint asked_ = TimePoint::max();  // for its lease; no time before it has that
    std::shared_ptr<const LoadResult> result_;
    std::vector<std::shared_ptr<LoadWait>> waiting_;
    std::function<void()> on_abandoned_;
};

/// The loads of a cache that are in progress, one for a key at most, and what is remembered of
/// those before. Safe for several threads.
class Loads {
  public:
    /// How a caller comes to a load.
    struct Place {
        std::shared_ptr<Load> load;  ///< null where the last load failed a moment ago
        bool starts = false;         ///< whether the caller is to run it
        std::exception_ptr error;    ///< of the load that failed
    };

    Loads();

    /// A caller wants to wait for the value of a key. It counts as one of the load's callers until
    /// leave(). A load that began before the caller, and whose row is not what it was, loads what
    /// was before a change that the caller may know of: it is left to those who wait for it
    /// already.
    /// @param version of the row, as the caller has found it.
    /// @param since   when the caller began to look.
    Place join(const std::string& key, TimePoint now, std::int64_t version, TimePoint since);
    /// A live entry wants to be renewed. @returns the load to be run; null where one is in progress
    /// or is not to be tried yet.
    /// @param version of the entry.
    std::shared_ptr<Load> renew(const std::string& key, TimePoint now, std::int64_t version);
    /// The loader of a load is called from now on. @param version of its row.
    /// @param asked   when its lease was asked for.
    void begins(const std::shared_ptr<Load>& load, std::int64_t version, TimePoint asked);
    /// @returns what the last load threw, if that was a moment ago.
    std::exception_ptr recent_error(const std::string& key, TimePoint now);

    /// Settles @p waiting when the load ends, which may be at once.
    void wait(const std::shared_ptr<Load>& load, std::shared_ptr<LoadWait> waiting);
    /// A caller does not wait any more. The last one takes the load away: its loader is cancelled.
    void leave(const std::shared_ptr<Load>& load);
    /// @param tell is called, from any thread, when no caller waits for the load any more.
    void on_abandoned(const std::shared_ptr<Load>& load, std::function<void()> tell);
    bool abandoned(const std::shared_ptr<Load>& load) const;

    /// The load has ended: its callers get the result. Does nothing the second time.
    /// @param quiet_until no renewal begins before; and where it failed, no load.
    /// @returns how many callers it had.
    std::size_t end(const std::shared_ptr<Load>& load, LoadResult result, TimePoint quiet_until);

    /// A value took so long to be loaded.
    void loaded(const std::string& key, Duration took);
    /// @returns how long it took the last time; 0 if that is not known.
    Duration took(const std::string& key) const;
    /// @returns a random number, evenly from ]0, 1].
    double random();

  private:
    /// How many keys are remembered, of each kind.
    static constexpr std::size_t most_remembered = 4096;

    struct Quiet {
        TimePoint until;
        std::exception_ptr error;  // none where another process loads
    };

    const Quiet* quiet(const std::string& key, TimePoint now);
    void forget(const std::shared_ptr<Load>& load);

    mutable std::mutex mutex_;
    std::unordered_map<std::string, std::shared_ptr<Load>> in_progress_;
    std::unordered_map<std::string, Quiet> quiet_;
    std::unordered_map<std::string, Duration> took_;
    std::minstd_rand random_;
};

/// A caller's place among those of a load, which it has joined.
class CallerPlace {
  public:
    CallerPlace(std::shared_ptr<Loads> loads, std::shared_ptr<Load> load)
        : loads_(std::move(loads)), load_(std::move(load)) {}
    CallerPlace(const CallerPlace&) = delete;
    CallerPlace& operator=(const CallerPlace&) = delete;
    ~CallerPlace() { loads_->leave(load_); }

  private:
    const std::shared_ptr<Loads> loads_;
    const std::shared_ptr<Load> load_;
};

/// The duty to end a load; if it goes away undone, its callers hear that it was abandoned.
class LoadDuty {
  public:
    LoadDuty(std::shared_ptr<Loads> loads, std::shared_ptr<Load> load)
        : loads_(std::move(loads)), load_(std::move(load)) {}
    LoadDuty(LoadDuty&&) noexcept = default;
    LoadDuty& operator=(LoadDuty&&) = delete;
    ~LoadDuty() {
        if (load_) {
            LoadResult result;
            result.abandoned = true;
            loads_->end(load_, std::move(result), TimePoint::min());
        }
    }

    Loads& loads() const noexcept { return *loads_; }
    const std::shared_ptr<Load>& load() const noexcept { return load_; }
    bool abandoned() const { return loads_->abandoned(load_); }

  private:
    std::shared_ptr<Loads> loads_;
    std::shared_ptr<Load> load_;
};

}  // namespace psycache::detail
