#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "batching/call.hpp"
#include "core/counts.hpp"
#include "core/observers.hpp"
#include "operations/checks.hpp"

namespace psycache::detail {

/// How many calls of one caller are queued at once, and with how many bytes, so that a large call
/// takes memory and time for a part of it only.
inline constexpr std::size_t slice_size = 1024;
inline constexpr std::size_t slice_bytes = 2 * 1024 * 1024;

/// What a call of many adds to a counter.
using KeyedNumber = std::pair<std::string, std::int64_t>;

/// What becomes of several items of one key within a slice: one call for all of them, that of the
/// first or of the last; or a call for each.
enum class Repeated { first, last, each };

/// Whether a request is made of slices: a call of many keys or entries.
template <class Request>
concept OfMany = requires(Request request) {
    request.drop(slice_size);
};

/// The keys or entries of a call of many, slice by slice: the calls of one are made when those
/// before it are answered; across slices those that come later are later.
template <class Item>
class Many {
  public:
    /// @param items the call's own, which are let go of as they are used up.
    explicit Many(std::vector<Item>&& items) : own_(std::move(items)), all_(own_) {}
    /// @param items outlive the call.
    explicit Many(const std::vector<Item>& items) : all_(items) {}
    Many(Many&&) noexcept = default;
    Many& operator=(Many&&) = delete;
    ~Many() = default;

    std::size_t size() const noexcept { return all_.size(); }
    Failure explain(Failure failure) const { return failure; }

  protected:
    const Item& item(std::size_t place) const noexcept { return all_[place]; }

    /// @returns the keys as instrumentations see them.
    std::vector<std::string_view> keys() const {
        std::vector<std::string_view> keys;
        keys.reserve(size());
        for (const Item& item : all_) {
            keys.push_back(key_of(item));
        }
        return keys;
    }

    /// Makes the calls of the next slice; none when there is no more. @param make makes one.
    template <class ItsCalls, class Make>
    void make_slice(ItsCalls& calls, Repeated counts, Make make) {
        begin_ = end_;
        seen_.clear();
        call_of_.clear();
        std::size_t bytes = 0;
        for (; end_ < size() && end_ - begin_ < slice_size && bytes < slice_bytes; ++end_) {
            std::size_t its_call = calls.size();
            if (counts != Repeated::each) {
                its_call = seen_.try_emplace(key_of(all_[end_]), its_call).first->second;
            }
            call_of_.push_back(its_call);
            if (its_call == calls.size()) {
                calls.push_back(make(all_[end_]));
            } else if (counts == Repeated::last) {
                calls[its_call] = make(all_[end_]);
            }
            bytes += calls[its_call]->bytes;
        }
    }

    /// Calls a function with each item's call and its place, in order, then lets go of the items.
    template <class ItsCall, class Each>
    void take_slice(CallSpan calls, Each each) {
        for (std::size_t i = 0; i < call_of_.size(); ++i) {
            each(static_cast<ItsCall&>(*calls[call_of_[i]]), begin_ + i);
        }
        for (std::size_t i = begin_; i < end_ && i < own_.size(); ++i) {
            empty(own_[i]);
        }
        begin_ = end_;
    }
    /// @returns whether some item of the slice has the call of another.
    bool has_repeated(CallSpan calls) const noexcept { return calls.size() < call_of_.size(); }
    /// @returns how many items have been answered.
    std::size_t answered() const noexcept { return begin_; }

    /// Drops up to so many items from the end. @returns whether some are left.
    bool drop_items(std::size_t count) {
        drop_last(own_, count);
        return !own_.empty();
    }
    template <class Element>
    static void drop_last(std::vector<Element>& elements, std::size_t count) {
        for (std::size_t left = std::min(count, elements.size()); left > 0; --left) {
            elements.pop_back();
        }
    }

  private:
    static std::string_view key_of(const std::string& key) noexcept { return key; }
    template <class Entry>
    static std::string_view key_of(const Entry& entry) noexcept {
        return entry.key;
    }
    static std::string_view key_of(const KeyedNumber& counter) noexcept { return counter.first; }
    static void empty(std::string& key) noexcept { const std::string used = std::move(key); }
    static void empty(KeyedNumber& counter) noexcept { empty(counter.first); }
    template <class Entry>
    static void empty(Entry& entry) noexcept {
        empty(entry.key);
        const auto used = std::move(entry.value);
    }

    std::vector<Item> own_;
    std::span<const Item> all_;
    // Of the slice that is on its way.
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::unordered_map<std::string_view, std::size_t> seen_;
    std::vector<std::size_t> call_of_;
};

/// Requests of one kind, each of one key, that one caller makes together. @tparam One says which
/// spans they open together (`open_spans_of`), and needs nothing but its calls to know its value.
template <class One>
class Together {
  public:
    using Span = typename One::Span;
    static constexpr bool writes = One::writes;
    using Value = std::vector<typename One::Value>;
    static constexpr std::string_view name = One::name;

    explicit Together(std::vector<One>&& requests) : requests_(std::move(requests)) {}

    auto open_spans(const Observers& observers, SpanName span_name) const {
        std::vector<std::string_view> keys;
        if (!observers.empty()) {
            keys.reserve(requests_.size());
            for (const One& request : requests_) {
                keys.push_back(request.key);
            }
        }
        return One::open_spans_of(observers, keys, span_name);
    }
    std::size_t size() const noexcept { return requests_.size(); }
    std::optional<Failure> mistake(std::size_t place) const {
        auto wrong = requests_[place].mistake();
        return wrong ? at_place(std::move(*wrong), "key", place) : wrong;
    }
    Failure explain(Failure failure) const { return failure; }

    template <class Operations, class ItsCalls>
    void make_calls(const Operations& operations, TimePoint until, ItsCalls& calls) {
        for (; made_ < requests_.size() && calls.size() < slice_size; ++made_) {
            requests_[made_].make_calls(operations, until, calls);
        }
    }
    template <class Spans>
    void take(CallSpan calls, Counts& counts, Spans& spans) {
        for (std::size_t i = 0; i < calls.size(); ++i) {
            values_.push_back(One::value(calls.subspan(i, 1), counts, spans));
        }
    }
    template <class Spans>
    Value value(Spans& /*spans*/) {
        return std::move(values_);
    }
    Value outage(Counts& counts) requires requires { One::outage(counts); }
    {
        while (values_.size() < requests_.size()) {
            values_.push_back(One::outage(counts));
        }
        return std::move(values_);
    }
    bool drop(std::size_t /*count*/) { return false; }
    static bool drop_answers(std::size_t /*count*/) { return false; }

  private:
    std::vector<One> requests_;
    std::size_t made_ = 0;
    Value values_;
};

/// The keys of a call that looks something up or removes it.
class ManyKeys : public Many<std::string> {
  public:
    using Many::Many;

    /// @returns why a key cannot be one, and its place, since a key must not be shown.
    std::optional<Failure> mistake(std::size_t place) const {
        auto wrong = check_lookup_key(item(place));
        return wrong ? at_place(std::move(*wrong), "key", place) : wrong;
    }
};

}  // namespace psycache::detail
