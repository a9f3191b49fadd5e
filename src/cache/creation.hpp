#pragma once

#include <boost/asio/awaitable.hpp>
#include <optional>
#include <string>

#include <psycache/create.hpp>

#include "cache/cache_core.hpp"
#include "core/backoff.hpp"
#include "loading/load_steps.hpp"
#include "loading/loads.hpp"

namespace psycache::detail {

/// What a load needs, beside its loader, of the options of the caller that starts it.
struct LoadOrder {
    /// @param options checked already.
    LoadOrder(std::string its_key, const CreateOptions& options);

    CallOptions call() const { return CallOptions(span_name); }

    std::string key;
    std::string stub;
    Duration ttl;  // as it is stored
    Duration lease;
    Duration retry_after_error;
    Tags tags;
    std::string span_name;
};

/// A load on its way: what is asked of the server in each of its steps, what came of it, and what
/// counters and callers hear. The driver, a coroutine or a thread, does what next() says.
class LoadProgress {
  public:
    LoadProgress(const CacheCore& core, const LoadDuty& duty, const LoadOrder& order,
                 LoadSteps::Kind kind, const Sight& seen);

    LoadSteps::Step next() const noexcept { return steps_.next(); }
    bool holds_lease() const noexcept { return steps_.holds_lease(); }

    ClaimOne claim();
    void claimed(const std::exception_ptr& error, const std::optional<Claimed>& answer);
    void looked(const std::exception_ptr& error, std::optional<Found>& found);
    /// @returns until when to wait.
    TimePoint pause();
    void paused() { steps_.paused(); }
    void loading();
    void loaded(const std::exception_ptr& error, std::optional<boost::json::value> value);
    /// @returns nothing where what was loaded cannot be stored.
    std::optional<PublishOne> publish();
    void published(const std::exception_ptr& error, const std::optional<bool>& stored);
    /// The lease is to be given back. Callers hear the result before that.
    EndOne end();
    void given_back() { steps_.given_back(); }
    void abandon() { steps_.abandon(); }
    /// All is done: callers hear the result.
    void finish();

    /// @returns what gives the lease back at once, whatever step the load is in.
    EndOne give_back() const { return end_after(Duration::zero()); }

  private:
    bool renewal() const noexcept { return kind_ == LoadSteps::Kind::renewal; }
    std::string stub_key() const;
    EndOne end_after(Duration later) const;
    /// A statement has failed. @param matters whether callers are to hear of it.
    void failed(const std::exception_ptr& error, bool matters);

    const CacheCore& core_;
    const LoadDuty& duty_;
    const LoadOrder& order_;
    const LoadSteps::Kind kind_;
    LoadSteps steps_;
    Duration lease_left_;
    LoadResult result_;
    TimePoint quiet_until_ = TimePoint::min();
    TimePoint began_;
    Backoff backoff_;
    bool has_waited_ = false;
};

/// One caller's way to a value.
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

    /// @param reader    gets the value.
    /// @param must_have whether a load without a value is no answer.
    /// @throws std::invalid_argument for the options, Error for key and tags.
    Creation(CacheCore::Self core, std::string key, CreateOptions options, ValueReader reader,
             bool must_have);

    const std::string& key() const noexcept { return key_; }
    const std::shared_ptr<Loads>& loads() const noexcept { return core_->loads; }
    TimePoint deadline() const noexcept { return deadline_; }
    LoadOrder order() const { return {key_, options_}; }
    /// @returns the options of a look-up.
    CallOptions look() const;

    /// @throws Error, or what the last loader threw.
    Next found(Found& found) const;
    /// The wait for a load is over. @returns whether there is a value; nothing if it is to be
    /// looked up again. @throws Error, or what the loader threw.
    std::optional<bool> loaded(const LoadWait& waiting) const;

  private:
    void read(boost::json::value&& value) const;

    const CacheCore::Self core_;
    const std::string key_;
    const CreateOptions options_;
    const ValueReader reader_;
    const bool must_have_;
    const TimePoint deadline_;
};

/// See AsyncPostgresCache::get_or_create. @returns whether there is a value.
asio::awaitable<bool> get_or_create_value(CacheCore::Self core, std::string key,
                                          CreateOptions options, AsyncLoader loader,
                                          ValueReader reader, bool must_have);

}  // namespace psycache::detail
