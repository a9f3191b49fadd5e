#pragma once

/// @file
/// The questions that commands which report ask of a server.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/place.hpp"
#include "cli/session.hpp"
#include "cli/table_facts.hpp"

namespace psycache::cli {

/// Runs a part of what is asked. What the server refuses is noted in @p unseen, and no reason not
/// to ask the rest; a connection that broke is.
void look(const Session& session, std::vector<Unseen>& unseen, const std::string& what,
          const std::function<void()>& ask);

std::int64_t to_integer(const std::optional<std::string>& text);
double to_number(const std::optional<std::string>& text);
bool to_bool(const std::optional<std::string>& text);
/// @returns the span of so many seconds; nothing for none.
std::optional<Duration> to_duration(const std::optional<std::string>& seconds);

/// @param relation "psycache" or "psycache_tags". @returns nothing where there is no such table.
std::optional<TableFacts> look_at_table(Session& session, const Place& place,
                                        const std::string& relation, std::vector<Unseen>& unseen);

/// @returns the cache's table. @throws psycache::Error: Errc::table_missing.
TableFacts look_for_table(Session& session, const Place& place, std::vector<Unseen>& unseen);

/// How many sessions of clients the server has, and how many of them call themselves psycache.
struct Sessions {
    std::int64_t clients = 0;
    std::int64_t psycache = 0;
};
Sessions look_at_sessions(Session& session);

}  // namespace psycache::cli
