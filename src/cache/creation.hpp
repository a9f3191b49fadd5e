#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <psycache/create.hpp>

#include "cache/cache_core.hpp"
#include "loading/freshness.hpp"
#include "loading/load_group.hpp"

namespace psycache::detail {

/// One caller's way to the value of one key.
class Creation {
  public:
    /// What comes after a look-up.
    struct Next {
        bool answered = false;            ///< the reader has the value
        std::optional<LoadDuty> renewal;  ///< to be run beside the caller
        std::shared_ptr<Load> load;       ///< to be waited for, which a CallerPlace is needed for
        std::optional<LoadDuty> duty;     ///< of that load, where the caller is to run it
        LoadSteps::Kind kind = LoadSteps::Kind::of_absent;
    };

    /// What all keys of one call have in common.
    struct Terms {
        /// @param its_reader   gets the values.
        /// @param its_must_have whether a load without a value is no answer.
        /// @throws std::invalid_argument for the options.
        Terms(CreateOptions its_options, ValueReader its_reader, bool its_must_have);

        /// @returns the options of a look-up.
        CallOptions look(const CacheCore& core) const;

        CreateOptions options;
        ValueReader reader;
        bool must_have;
        TimePoint deadline;
    };

    /// @param place of the key in a call of many; none in a call of one.
    /// @throws Error for key and tags.
    Creation(CacheCore::Self core, std::shared_ptr<const Terms> terms, std::string key,
             std::optional<std::size_t> place = {});

    const std::string& key() const noexcept { return key_; }
    /// @returns whether the reader has the value, since memory has a fresh one. @throws Error.
    bool found_in_memory() const;
    /// @returns the look-up, which begins now.
    LookUpOne look_up();
    LoadOrder order() const { return {key_, terms_->options}; }

    /// @param since when the look-up started.
    /// @throws Error, or what the last loader threw.
    Next found(Found& found, TimePoint since) const;
    /// The wait for a load is over. @returns whether there is a value; nothing if it is to be
    /// looked up again. @throws Error, or what the loader threw.
    std::optional<bool> loaded(const LoadWait& waiting) const;

  private:
    std::string_view name() const noexcept;
    Failure at_its_place(Failure failure) const;
    Freshness how_fresh(Duration left) const;
    void read_and_keep(Found& found) const;
    void read(boost::json::value&& value) const;

    CacheCore::Self core_;
    std::shared_ptr<const Terms> terms_;
    std::string key_;
    std::optional<std::size_t> place_;
    std::optional<NearCache::Ticket> ticket_;  // of the last look-up
};

/// The way of a call of many keys: those that still have no value, and where they wait.
class Creations {
  public:
    /// @throws Error for a key or tags.
    Creations(const CacheCore::Self& core, const std::shared_ptr<const Creation::Terms>& terms,
              std::vector<std::string> keys);

    bool done() const noexcept { return open_.empty(); }
    /// Those that memory has fresh values of get these.
    void find_in_memory();
    /// @returns the look-ups of all others, which begin now.
    std::vector<LookUpOne> look_ups();
    /// Takes what was found. @p to_load and @p to_renew become what the call is to run.
    void found(std::vector<Found>&& found, TimePoint since, LoadGroup& to_load,
               LoadGroup& to_renew);
    /// What is to be waited for, one after the other: the load of each key that has no value yet.
    std::vector<std::shared_ptr<Load>> loads() const;
    /// The wait for load @p number is over.
    void loaded(std::size_t number, const LoadWait& waiting);
    /// All have been waited for: callers' places are given up, and what has no value is open again.
    void next_round();
    /// @returns whether each key has a value.
    std::vector<bool> values() && { return std::move(there_); }

  private:
    struct Open {
        Creation creation;
        std::size_t place;
        std::unique_ptr<CallerPlace> waits;  // null where it has its answer
        std::shared_ptr<Load> load;
    };

    const CacheCore::Self core_;
    std::vector<Open> open_;
    std::vector<bool> there_;
};

}  // namespace psycache::detail
