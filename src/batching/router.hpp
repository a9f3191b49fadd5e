#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/clock.hpp"
#include "pg/connection.hpp"
#include "pool/pool_core.hpp"

namespace psycache::detail {

/// The way to a part of the table that lies on one server (a shard). No statement names the part:
/// calls whose rows are in it share statements with each other, and with no others.
struct Route {
    explicit Route(std::shared_ptr<PoolCore> leads_to,
                   std::shared_ptr<PoolCore> leads_nowhere_yet = nullptr)
        : pool(std::move(leads_to)), unreached(std::move(leads_nowhere_yet)) {}

    /// Leads to the server where the rows are; null: the cache's own pool leads near enough.
    const std::shared_ptr<PoolCore> pool;
    /// Would lead there, but has no connection yet; null: there is none such.
    const std::shared_ptr<PoolCore> unreached;
};

/// Knows the routes of a table, if it has any, and what to ask the server for that. What it knows
/// may be out of date: statements name the whole table, so that they are right wherever they are
/// sent.
///
/// Safe for several threads.
class Router {
  public:
    /// @param divided whether it is known that the server may divide the table; outlives this.
    explicit Router(const std::atomic<bool>& divided) : divided_(divided) {}
    Router(const Router&) = delete;
    Router& operator=(const Router&) = delete;
    virtual ~Router() = default;

    bool used() const noexcept { return divided_.load(std::memory_order_relaxed); }

    /// @returns the route of a key; null where there is none.
    virtual std::shared_ptr<const Route> route_of(std::string_view key) = 0;

    /// A statement that has no parameter or one, of type text.
    struct Question {
        const pg::Statement* statement;  ///< lives as long as the router
        std::optional<std::string> parameter;
    };
    /// @param shared_read whether calls are about to be sent that a divided table makes dear.
    /// @returns what is to be asked now; until answered() has returned nothing, no other is asked.
    virtual std::optional<Question> ask(bool shared_read, TimePoint now) = 0;
    /// @returns what is to be asked next.
    virtual std::optional<Question> answered(const pg::Answer& answer, TimePoint now) = 0;
    /// The question could not be put.
    virtual void not_asked(TimePoint now) = 0;
    /// A write was refused as the server refuses those that a divided table does not take.
    /// @returns whether that may be the reason: then it is taken for divided until it was asked
    /// again.
    virtual bool suspect(TimePoint now) = 0;
    /// @returns to how many servers routes lead.
    virtual std::size_t servers() const = 0;
    /// A server that a route leads to has refused a statement: it is to be asked soon.
    virtual void doubt(TimePoint now) = 0;

  private:
    const std::atomic<bool>& divided_;
};

}  // namespace psycache::detail
