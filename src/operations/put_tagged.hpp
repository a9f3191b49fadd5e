#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "operations/put.hpp"
#include "operations/put_if_absent.hpp"
#include "operations/replace.hpp"

namespace psycache::detail {

/// The tags of one put, which all of its calls have in common.
using Tags = std::shared_ptr<const std::vector<std::string>>;

/// A put that gives its entry tags.
template <class ItsPutCall>
struct WithTags final : ItsPutCall {
    WithTags(const Operation& put, std::string its_key, TimePoint until, std::string its_jsonb,
             Duration its_ttl, Tags its_tags)
        : ItsPutCall(put, std::move(its_key), until, std::move(its_jsonb), its_ttl,
                     bytes_of(*its_tags)),
          tags(std::move(its_tags)) {}

    const Tags tags;

  private:
    static std::size_t bytes_of(const std::vector<std::string>& tags) {
        std::size_t bytes = 0;
        for (const std::string& tag : tags) {
            bytes += tag.size();
        }
        return bytes;
    }
};
using PutTaggedCall = WithTags<PutCall>;
using ConditionalPutTaggedCall = WithTags<ConditionalPutCall>;

/// @returns in SQL, what stores the tags of the entries that the common table expression `entries`
/// has stored (key, expires_at, and size if sizes are wanted), and tells of these. @param tags and
/// @param keys name the parameters that are tags and their keys.
inline std::string store_tags(const Table& table, std::string_view told,
                              std::string_view tags = "$4", std::string_view keys = "$5") {
    return concat({", tagged AS (INSERT INTO ", table.tags,
                   " (tag, key, expires_at) SELECT t.tag, e.key, ",
                   Table::look_after("e.expires_at"), " FROM entries AS e JOIN unnest(", tags,
                   "::text[], ", keys,
                   "::text[]) AS t(tag, key)"
                   " ON t.key = e.key ORDER BY e.key COLLATE \"C\", t.tag COLLATE \"C\""
                   " ON CONFLICT (tag, key) DO UPDATE SET expires_at = excluded.expires_at)"
                   " SELECT ",
                   table.sizes ? "key, size" : told, " FROM entries"});
}

/// Adds the tags of a group, those of all calls of a key, and their keys.
template <class ItsCall>
void add_tags(const Group& group, pg::Parameters& parameters) {
    std::vector<std::pair<std::string_view, std::string_view>> pairs;
    std::vector<std::string_view> its_tags;
    for (std::size_t i = 0; i < group.keys(); ++i) {
        its_tags.clear();
        for (const ItsCall& call : group.calls<ItsCall>(i)) {
            its_tags.insert(its_tags.end(), call.tags->begin(), call.tags->end());
        }
        // One statement cannot write a row twice.
        std::sort(its_tags.begin(), its_tags.end());
        its_tags.erase(std::unique(its_tags.begin(), its_tags.end()), its_tags.end());
        for (const std::string_view tag : its_tags) {
            pairs.emplace_back(tag, group.key(i));
        }
    }
    pg::ArrayBuilder tags(pg::Oid::text, pairs.size());
    pg::ArrayBuilder tagged(pg::Oid::text, pairs.size());
    for (const auto& [tag, key] : pairs) {
        tags.add(tag);
        tagged.add(key);
    }
    parameters.own(tags.take());
    parameters.own(tagged.take());
}

/// Stores entries and their tags in one statement. Of several entries with one key the last one is
/// stored, with the tags of all of them: one too many makes remove_tag remove too much, one too few
/// would leave it an entry that it must remove.
///
/// The rows of entries are locked first, in the order of their keys, and those of tags afterwards:
/// sorting them takes all of the entries. So puts cannot deadlock with each other. A row of a tag
/// that is there is always written anew, by which RemoveTag sees that it was put again.
class PutTagged final : public TableOperation {
  public:
    explicit PutTagged(const Table& its_table)
        : TableOperation(its_table, "put", true, Traits{.by_key = false}),
          put_(concat({"WITH entries AS (INSERT INTO ", table.name,
                       " (key, value, expires_at) SELECT e.k, e.v, ", Table::expiry_of("e.ttl"),
                       " FROM ", Table::lock_limit("$6"),
                       ", unnest($1::text[], $2::jsonb[], $3::bigint[]) AS e(k, v, ttl)",
                       Put::conflict, " RETURNING key, expires_at",
                       table.sizes ? ", pg_column_size(value) AS size" : "", ")",
                       store_tags(table, "count(*)")}),
               {pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::int8_array, pg::Oid::text_array,
                pg::Oid::text_array, pg::Oid::text}) {}

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        add_entry_arrays(group, parameters,
                         [&](std::size_t i) -> const PutCall& { return group.last<PutCall>(i); });
        add_tags<PutTaggedCall>(group, parameters);
        return put_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        Put::answer_puts(group, rows, table.sizes, how);
    }

  private:
    const pg::Statement put_;
};

/// Stores entries that meet a condition, and the tags of those that are stored. Several with one
/// key go one after the other: the tags of one that stores nothing are not those of the entry.
class ConditionalPutTagged final : public TableOperation {
  public:
    /// @param entries in SQL, the entries, up to what they return.
    ConditionalPutTagged(const Table& its_table, std::string_view its_name, bool replayable,
                         std::string_view entries)
        : TableOperation(its_table, its_name, true,
                         Traits{.replayable = replayable, .keys_apart = true, .by_key = false}),
          put_(concat({entries, " RETURNING t.key, t.expires_at",
                       table.sizes ? ", pg_column_size(t.value) AS size" : "", ")",
                       store_tags(table, "key")}),
               {pg::Oid::text_array, pg::Oid::jsonb_array, pg::Oid::int8_array, pg::Oid::text_array,
                pg::Oid::text_array, pg::Oid::text}) {}

    /// @returns the entries of put_if_absent, and those of replace.
    static std::string absent(const Table& table) {
        return concat({"WITH entries AS (INSERT INTO ", table.name,
                       " AS t (key, value, expires_at) SELECT e.k, e.v, ",
                       Table::expiry_of("e.ttl"), " FROM ", Table::lock_limit("$6"),
                       ", unnest($1::text[], $2::jsonb[], $3::bigint[]) AS e(k, v, ttl)",
                       PutIfAbsent::conflict});
    }
    static std::string live(const Table& table) {
        return concat({table.live_keys("$1", "$6"), ", entries AS (UPDATE ", table.name,
                       " AS t SET value = e.v, expires_at = ", Table::expiry_of("e.ttl"),
                       " FROM live JOIN unnest($1::text[], $2::jsonb[], $3::bigint[])"
                       " AS e(k, v, ttl) ON e.k = live.key WHERE t.key = live.key"});
    }

    const pg::Statement& bind(const Group& group, pg::Parameters& parameters) const override {
        add_entry_arrays(group, parameters,
                         [&](std::size_t i) -> const PutCall& { return group.first<PutCall>(i); });
        add_tags<ConditionalPutTaggedCall>(group, parameters);
        return put_;
    }

    void answer(const Group& group, const pg::Rows& rows, Resume how) const override {
        const StoredRows stored(group, rows, table.sizes);
        for (std::size_t number = 0; number < group.keys(); ++number) {
            answer_stored<ConditionalPutCall>(
                group, number, stored.size(number), how,
                [&](const ConditionalPutCall& /*call*/) { return stored.stored(number); });
        }
    }

  private:
    const pg::Statement put_;
};

/// A put of one entry, @p Put, that gives it tags.
template <class Put>
struct Tagged : Put {
    Tagged(Put put, Tags its_tags) : Put(std::move(put)), tags(std::move(its_tags)) {}

    std::optional<Failure> mistake() const {
        auto wrong = Put::mistake();
        return wrong ? wrong : check_tags(*tags, this->key);
    }
    template <class Operations, class Calls>
    void make_calls(const Operations& operations, TimePoint until, Calls& calls) {
        calls.push_back(std::make_shared<WithTags<typename Put::Kind::ItsCall>>(
            Put::Kind::tagged(operations), std::move(this->key), until, std::move(*this->jsonb),
            this->ttl, tags));
    }

    Tags tags;
};

/// The same of many entries.
template <OfMany Put>
struct Tagged<Put> : Put {
    Tagged(Put put, Tags its_tags) : Put(std::move(put)), tags(std::move(its_tags)) {}

    std::optional<Failure> mistake(std::size_t place) const {
        auto wrong = Put::mistake(place);
        if (!wrong) {
            wrong = check_tags(*tags, this->item(place).key);
            wrong = wrong ? at_place(std::move(*wrong), "entry", place) : wrong;
        }
        return wrong;
    }
    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        this->template make_puts<WithTags<typename Put::Kind::ItsCall>>(
            Put::Kind::tagged(operations), until, calls, tags);
    }

    Tags tags;
};

/// Calls @p perform with the request, or where there are tags with the one that writes them.
template <class Request, class Perform>
auto with_tags(Request put, std::vector<std::string> tags, Perform perform) {
    if (tags.empty()) {
        return perform(std::move(put));
    }
    auto shared = std::make_shared<const std::vector<std::string>>(std::move(tags));
    return perform(Tagged<Request>(std::move(put), std::move(shared)));
}

}  // namespace psycache::detail
