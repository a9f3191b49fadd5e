#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <utility>

#include <psycache/typed.hpp>

#include "batching/call.hpp"
#include "batching/group.hpp"
#include "core/counts.hpp"
#include "core/observers.hpp"
#include "pg/parameters.hpp"
#include "values/json_codec.hpp"

namespace psycache::detail {

/// What a caller takes a stored value for.
enum class Wanted {
    object,  ///< any other value is unreadable
    value,   ///< any JSON
    text     ///< as it is stored, whatever it holds
};

/// A call whose answer is a stored value.
struct ValueCall : Call {
    ValueCall(const Operation& its_operation, std::string its_key, TimePoint until, Wanted what)
        : Call(its_operation, std::move(its_key), until), wanted(what) {}

    const Wanted wanted;
    std::optional<boost::json::value> value;  // none is a miss
    std::optional<std::string> text;          // none is a miss
    std::size_t size = 0;                     // stored; 0 where it was not asked for

    bool hit() const noexcept { return value || text; }
};

/// Reads a stored value, once for each way in which it is wanted.
class StoredValue {
  public:
    /// @param jsonb as the server sends it; borrowed.
    StoredValue(std::string_view jsonb, std::size_t size) : jsonb_(jsonb), size_(size) {}

    /// Answers a call with the value. @param last whether no further call will ask for it.
    /// @returns whether the call still waited for an answer.
    template <class Fill>
    bool answer(ValueCall& call, bool last, Resume how, Fill fill) {
        if (call.wanted == Wanted::text) {
            if (jsonb_.empty() || jsonb_.front() != pg::jsonb_version) {
                return call.fail(Failure(Errc::protocol_error), how);
            }
        } else {
            if (!value_) {
                value_ = decode_jsonb(jsonb_);
            }
            if (!*value_) {
                return call.fail(value_->error(), how);
            }
            if (call.wanted == Wanted::object && !(*value_)->is_object()) {
                return call.fail(no_object_failure(), how);
            }
        }
        return call.answer(
            [&] {
                if (call.wanted == Wanted::text) {
                    call.text.emplace(jsonb_.substr(1));
                } else {
                    call.value = last ? std::move(**value_) : **value_;
                }
                call.size = size_;
                fill();
            },
            how);
    }
    bool answer(ValueCall& call, bool last, Resume how) {
        return answer(call, last, how, [] {});
    }

    /// Answers all calls of a key.
    void answer_all(const Group& group, std::size_t number, Resume how) {
        std::size_t left = group.calls(number).size();
        for (ValueCall& call : group.calls<ValueCall>(number)) {
            answer(call, --left == 0, how);
        }
    }

  private:
    const std::string_view jsonb_;
    const std::size_t size_;
    std::optional<Result<boost::json::value>> value_;
};

/// Answers all calls of a key with what was found. @param value none where it is not asked for.
/// @param fill stores the rest in a call.
template <class ItsCall, class Fill>
void answer_found(const Group& group, std::size_t number, std::optional<StoredValue>& value,
                  Resume how, Fill fill) {
    std::size_t left = group.calls(number).size();
    for (ItsCall& call : group.calls<ItsCall>(number)) {
        --left;
        if (value) {
            value->answer(call, left == 0, how, [&] { fill(call); });
        } else {
            call.answer([&] { fill(call); }, how);
        }
    }
}

/// Answers all calls of a key with a miss.
inline void answer_miss(const Group& group, std::size_t number, Resume how) {
    for (Call& call : group.calls(number)) {
        call.answer([] {}, how);
    }
}

/// Tells counters and spans of a look-up. @returns the call.
inline ValueCall& told_of(Call& settled, Counts& counts, Spans<CacheGetSpan>& spans) {
    auto& call = static_cast<ValueCall&>(settled);
    if (call.hit()) {
        ++counts.hits;
        spans.record([&](CacheGetSpan& span) { span.record_cache_hit(call.size); });
    } else {
        ++counts.misses;
        spans.record([](CacheGetSpan& span) { span.record_cache_miss(); });
    }
    return call;
}

/// Lets the caller's type read a value. @returns why it cannot.
inline Failure read_into(ValueReader reader, std::size_t place, boost::json::value&& value) {
    std::string wrong = reader.read(reader.into, place, std::move(value));
    return wrong.empty() ? Failure() : Failure(Errc::unreadable_value, std::move(wrong));
}

}  // namespace psycache::detail
