#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

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
    void claimed(const std::exception_ptr& error, const Claimed& answer);
    void looked(const std::exception_ptr& error, Found found);
    /// @returns until when to wait.
    TimePoint pause();
    void paused();
    void loading();
    void loaded(const std::exception_ptr& error, std::optional<boost::json::value> value);
    /// @returns nothing where what was loaded cannot be stored.
    std::optional<PublishOne> publish();
    void published(const std::exception_ptr& error, bool stored);
    /// The lease is to be given back. Callers hear the result before that.
    EndOne end();
    void given_back() { steps_.given_back(); }
    void abandon() { steps_.abandon(); }
    /// All is done: callers and observers hear the result, once.
    void finish();
    /// No caller waits for it any more, and its loader has been cancelled.
    void finish_abandoned();

    /// @returns what gives the lease back at once, whatever step the load is in.
    EndOne give_back() const { return end_after(Duration::zero()); }

  private:
    bool renewal() const noexcept { return kind_ == LoadSteps::Kind::renewal; }
    std::string stub_key() const;
    EndOne end_after(Duration later) const;
    LoadInfo::Outcome outcome() const noexcept;
    void tell(LoadInfo::Outcome outcome, std::size_t callers);
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
    TimePoint asked_;
    TimePoint began_;
    Duration took_{0};
    TimePoint waits_since_;
    Duration waited_{0};
    Backoff backoff_;
    bool has_waited_ = false;
    bool has_loaded_ = false;
    bool stored_ = false;
    bool told_ = false;
};

/// Loads that one caller has started together: one call of its loader serves all that may load at
/// the same time.
class LoadGroup {
  public:
    using Step = LoadSteps::Step;

    /// One of them. It stays where it is.
    struct Member {
        Member(const CacheCore& core, LoadDuty its_duty, LoadOrder its_order, LoadSteps::Kind kind,
               const Sight& seen)
            : duty(std::move(its_duty)),
              order(std::move(its_order)),
              progress(core, duty, order, kind, seen) {}

        LoadDuty duty;
        LoadOrder order;
        LoadProgress progress;
    };
    using Members = std::vector<Member*>;

    void add(const CacheCore& core, LoadDuty duty, LoadOrder order, LoadSteps::Kind kind,
             const Sight& seen) {
        members_.push_back(
            std::make_unique<Member>(core, std::move(duty), std::move(order), kind, seen));
    }
    bool empty() const noexcept { return members_.empty(); }
    /// @returns the options of their statements.
    CallOptions call() const;

    /// Lets callers hear the results of those that are done, which leave the group. Those that
    /// no caller waits for any more, and that do not load yet, are given up.
    void settle();
    /// @returns those whose next step is this one. Both ways to give a lease back are one.
    Members at(Step step) const;
    /// @returns those that wait for other processes, as a group of their own.
    LoadGroup waiting();

    /// @returns the requests of a step, made by @p make of each member.
    template <class Make>
    static auto requests(const Members& members, const Make& make) {
        std::vector<decltype(make(*members.front()))> all;
        all.reserve(members.size());
        for (Member* const member : members) {
            all.push_back(make(*member));
        }
        return all;
    }
    static std::vector<ClaimOne> claims(const Members& members);
    static std::vector<LookAgain> looks(const Members& members);
    static std::vector<EndOne> ends(const Members& members);
    /// Those whose values cannot be stored go on without it. @p members become those that remain.
    static std::vector<PublishOne> publications(Members& members);
    static std::vector<std::string> keys(const Members& members);
    /// @returns until when to wait.
    static TimePoint pause(const Members& members);
    static void loaded(const Members& members, const std::exception_ptr& error,
                       LoadedValues&& values);

  private:
    std::vector<std::unique_ptr<Member>> members_;
};

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
    void read(boost::json::value&& value) const;

    CacheCore::Self core_;
    std::shared_ptr<const Terms> terms_;
    std::string key_;
    std::optional<std::size_t> place_;
};

/// The way of a call of many keys: those that still have no value, and where they wait.
class Creations {
  public:
    /// @throws Error for a key or tags.
    Creations(const CacheCore::Self& core, const std::shared_ptr<const Creation::Terms>& terms,
              std::vector<std::string> keys);

    bool done() const noexcept { return open_.empty(); }
    std::vector<LookUpOne> look_ups() const;
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

/// See AsyncPostgresCache::get_or_create. @returns whether there is a value.
asio::awaitable<bool> get_or_create_value(CacheCore::Self core, std::string key,
                                          CreateOptions options, AsyncLoader loader,
                                          ValueReader reader, bool must_have);

/// See AsyncPostgresCache::get_or_create_many. @returns whether each key has a value.
asio::awaitable<std::vector<bool>> get_or_create_values(CacheCore::Self core,
                                                        std::vector<std::string> keys,
                                                        CreateOptions options, AsyncLoader loader,
                                                        ValueReader reader, bool must_have);

}  // namespace psycache::detail
