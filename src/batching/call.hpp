#pragma once

#include <atomic>
#include <boost/json/object.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <psycache/duration.hpp>

#include "async/completion.hpp"
#include "failure.hpp"

namespace psycache {

using TimePoint = std::chrono::steady_clock::time_point;

/// What calls can share a statement: those of one kind.
enum class CallKind { get, put, remove };

/// @returns the kind's name, as StatementInfo has it.
constexpr std::string_view operation_name(CallKind kind) noexcept {
    switch (kind) {
        case CallKind::get:
            return "get";
        case CallKind::put:
            return "put";
        case CallKind::remove:
            return "remove";
    }
    return "";
}

/// How often a group has failed so far, by what may be done about it.
struct Tries {
    unsigned unsent = 0;      ///< the connection broke, certainly without effect
    unsigned unanswered = 0;  ///< the connection broke after sending
    unsigned conflicts = 0;   ///< the server rolled the statement back for a conflict

    bool any() const noexcept { return unsent + unanswered + conflicts > 0; }
};

/// The answer to any call; each kind uses its part.
struct CallAnswer {
    CallAnswer() = default;

    std::optional<boost::json::object> value;  // get: none is a miss
    std::optional<std::string> text;           // get of a text: none is a miss
    std::size_t size = 0;                      // get, put: the stored size, where it was asked for
    bool existed = false;                      // remove
};

class Batcher;

/// Who waits for several calls at once.
class CallOwner {
  public:
    CallOwner() = default;
    CallOwner(const CallOwner&) = delete;
    CallOwner& operator=(const CallOwner&) = delete;
    virtual ~CallOwner() = default;
    /// One of its calls has been answered; called where the call was settled.
    virtual void call_done() = 0;
};

/// One get, put or remove on its way: queued, then part of a group, then answered.
class Call final : public Completion<Result<CallAnswer>> {
  public:
    Call(CallKind which, std::string its_key, TimePoint until)
        : kind(which), key(std::move(its_key)), deadline(until) {}

    const CallKind kind;
    const std::string key;
    bool as_text = false;  // get: the stored text is wanted, not an object
    std::string jsonb;     // put: the encoded value
    Duration ttl{0};       // put
    const TimePoint deadline;
    Tries tries;                       // of a statement of its own, before it came to the batcher
    std::shared_ptr<CallOwner> owner;  // of a call that nobody awaits alone; let go of at the end
    // The same owner for whoever keeps its calls together: it stays, and is never looked into.
    const CallOwner* together = nullptr;

    std::size_t bytes() const noexcept { return key.size() + jsonb.size(); }

  private:
    friend class Batcher;
    friend class DeadlineList;

    void cancelled(asio::cancellation_type type) override;
    void delivered() override {
        if (const auto its = std::move(owner)) {
            its->call_done();
        }
    }

    std::weak_ptr<Batcher> batcher_;  // set when it is submitted
    bool sent_ = false;               // these six are the batcher's, under its lock
    bool left_ = false;               // its caller is being told that it has ended
    bool locked_ = false;             // its row was found locked by somebody else
    bool linked_ = false;
    Call* earlier_ = nullptr;
    Call* later_ = nullptr;
};

using Calls = std::vector<std::shared_ptr<Call>>;
using CallSpan = std::span<const std::shared_ptr<Call>>;

}  // namespace psycache
