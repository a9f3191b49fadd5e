#pragma once

#include <exception>
#include <optional>
#include <string>

#include <psycache/create.hpp>

#include "core/backoff.hpp"
#include "core/telemetry.hpp"
#include "loading/load_steps.hpp"
#include "loading/loads.hpp"
#include "operations/look_up.hpp"
#include "operations/publish_load.hpp"
#include "operations/release_load.hpp"

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
    LoadProgress(const Telemetry& shown, const LoadDuty& duty, const LoadOrder& order,
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

    const Telemetry shown_;
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

}  // namespace psycache::detail
