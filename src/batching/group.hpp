#pragma once

#include <boost/container/small_vector.hpp>
#include <cstddef>
#include <optional>
#include <string_view>

#include "batching/call.hpp"

namespace psycache::detail {

/// Calls of one operation that share a statement, sorted by key: writers that lock rows in one
/// order cannot deadlock. No I/O.
class Group {
  public:
    /// @param calls      not empty, of one operation; borrowed.
    /// @param one_server whether their rows lie together on a server to which they are sent.
    explicit Group(CallSpan calls, bool one_server = false);

    const Operation& operation() const noexcept { return calls_.front()->operation; }
    /// @returns whether there is only one call.
    bool lone() const noexcept { return calls_.size() == 1; }
    bool one_server() const noexcept { return one_server_; }
    /// @returns how many different keys there are.
    std::size_t keys() const noexcept { return runs_.size(); }
    std::string_view key(std::size_t number) const noexcept { return at(runs_[number].begin).key; }

    /// @returns the calls of a key in the order in which they came.
    template <class OperationsCall = Call>
    auto calls(std::size_t number) const noexcept {
        return Range<OperationsCall>{*this, runs_[number].begin, runs_[number].end};
    }
    /// @returns the first and the last call of a key.
    template <class OperationsCall = Call>
    OperationsCall& first(std::size_t number) const noexcept {
        return static_cast<OperationsCall&>(at(runs_[number].begin));
    }
    template <class OperationsCall = Call>
    OperationsCall& last(std::size_t number) const noexcept {
        return static_cast<OperationsCall&>(at(runs_[number].end - 1));
    }
    /// @returns the number of a key, if a call wants it.
    std::optional<std::size_t> find(std::string_view key) const noexcept;

  private:
    struct Run {
        std::size_t begin;
        std::size_t end;
    };

    template <class OperationsCall>
    struct Range {
        struct Iterator {
            OperationsCall& operator*() const noexcept {
                return static_cast<OperationsCall&>(group->at(position));
            }
            Iterator& operator++() noexcept {
                ++position;
                return *this;
            }
            bool operator!=(const Iterator& other) const noexcept {
                return position != other.position;
            }
            const Group* group;
            std::size_t position;
        };
        Iterator begin() const noexcept { return {&group, first}; }
        Iterator end() const noexcept { return {&group, last}; }
        std::size_t size() const noexcept { return last - first; }

        const Group& group;
        std::size_t first;
        std::size_t last;
    };

    Call& at(std::size_t position) const noexcept { return *calls_[order_[position]]; }

    const CallSpan calls_;
    const bool one_server_;
    // Room for a lone call without allocating.
    boost::container::small_vector<std::size_t, 1> order_;  // of calls_: by key, then as they came
    boost::container::small_vector<Run, 1> runs_;           // of equal keys
};

}  // namespace psycache::detail
