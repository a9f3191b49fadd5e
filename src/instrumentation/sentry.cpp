#include <psycache/instrumentation/sentry.hpp>

#include <sentry.h>

#include <algorithm>
#include <boost/asio/error.hpp>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/error.hpp>

#include "instrumentation/shown_keys.hpp"

namespace {

/// Stands in where the SDK has no function of this name: before 0.10, which gives no version number
/// that a preprocessor could compare. The SDK's own one is no template, hence preferred. A double
/// holds every whole number up to 2^53.
template <class Integer>
sentry_value_t sentry_value_new_int64(Integer value) {
    return sentry_value_new_double(static_cast<double>(value));
}

}  // namespace

namespace psycache {

namespace {

/// Held while the SDK changes a transaction. Never destroyed: a span may outlive static objects.
std::mutex& turns() {
    static auto& mutex = *new std::mutex;
    return mutex;
}

/// How many bytes at the beginning of @p text are one well-formed character of UTF-8; 0 if none.
std::size_t character_length(std::string_view text) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    if (byte(0) < 0x80) {
        return 1;
    }
    std::size_t length = 0;
    unsigned code = 0;
    unsigned least = 0;  // of what needs this length
    if ((byte(0) & 0xe0) == 0xc0) {
        length = 2;
        code = byte(0) & 0x1fu;
        least = 0x80;
    } else if ((byte(0) & 0xf0) == 0xe0) {
        length = 3;
        code = byte(0) & 0x0fu;
        least = 0x800;
    } else if ((byte(0) & 0xf8) == 0xf0) {
        length = 4;
        code = byte(0) & 0x07u;
        least = 0x10000;
    }
    if (length == 0 || text.size() < length) {
        return 0;
    }
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (byte(i) & 0x3fu);
    }
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    return code < least || code > 0x10ffff || surrogate ? 0 : length;
}

/// Lends a text as UTF-8. The SDK writes bytes to its envelope as they are, and one that is not
/// UTF-8 would cost the whole transaction.
class Utf8 {
  public:
    explicit Utf8(std::string_view text) : view_(text) {
        std::size_t good = 0;
        while (good < text.size()) {
            const std::size_t length = character_length(text.substr(good));
            if (length == 0) {
                repair(text, good);
                return;
            }
            good += length;
        }
    }
    Utf8(const Utf8&) = delete;
    Utf8& operator=(const Utf8&) = delete;

    std::string_view view() const noexcept { return view_; }

  private:
    void repair(std::string_view text, std::size_t good) {
        repaired_ = text.substr(0, good);
        for (std::size_t i = good; i < text.size();) {
            const std::size_t length = character_length(text.substr(i));
            repaired_ += length == 0 ? "\xEF\xBF\xBD" : text.substr(i, length);
            i += std::max<std::size_t>(length, 1);
        }
        view_ = repaired_;
    }

    std::string_view view_;
    std::string repaired_;
};

sentry_value_t text_value(std::string_view text) {
    const Utf8 utf8(text);
    return sentry_value_new_string_n(utf8.view().data(), utf8.view().size());
}

sentry_value_t list_of(std::span<const std::string_view> keys) {
    const sentry_value_t list = sentry_value_new_list();
    try {
        for (const std::string_view key : keys) {
            sentry_value_append(list, text_value(key.substr(0, max_key_size)));
        }
    } catch (...) {
        sentry_value_decref(list);
        throw;
    }
    return list;
}

sentry_value_t number_value(std::uint64_t number) {
    return sentry_value_new_int64(static_cast<std::int64_t>(number));
}

sentry_span_status_t status_of(const boost::system::error_code& code) {
    if (code == boost::asio::error::operation_aborted) {
        return SENTRY_SPAN_STATUS_CANCELLED;
    }
    // Codes match several conditions; what says most about the call goes first.
    if (code == Errc::permission_denied) {
        return SENTRY_SPAN_STATUS_PERMISSION_DENIED;
    }
    if (code == Errc::authentication_failed) {
        return SENTRY_SPAN_STATUS_UNAUTHENTICATED;
    }
    if (code == Condition::timeout) {
        return SENTRY_SPAN_STATUS_DEADLINE_EXCEEDED;
    }
    if (code == Condition::outcome_unknown) {
        return SENTRY_SPAN_STATUS_UNKNOWN;
    }
    if (code == Condition::unavailable) {
        return SENTRY_SPAN_STATUS_UNAVAILABLE;
    }
    if (code == Condition::caller_mistake) {
        return SENTRY_SPAN_STATUS_INVALID_ARGUMENT;
    }
    if (code == Condition::transient) {
        return SENTRY_SPAN_STATUS_ABORTED;
    }
    return SENTRY_SPAN_STATUS_INTERNAL_ERROR;
}

/// A span of the SDK, finished when it goes.
class Handle {
  public:
    /// @param span null for none.
    explicit Handle(sentry_span_t* span) noexcept : span_(span) {}
    Handle(Handle&& other) noexcept : span_(std::exchange(other.span_, nullptr)) {}
    Handle& operator=(Handle&&) = delete;
    ~Handle() {
        if (span_ != nullptr) {
            const std::lock_guard lock(turns());
            sentry_span_finish(span_);
        }
    }

    explicit operator bool() const noexcept { return span_ != nullptr; }

    // A span that has not been finished belongs to its call alone: no lock for these.
    void set(std::string_view name, sentry_value_t value) noexcept {
        sentry_span_set_data_n(span_, name.data(), name.size(), value);
    }
    void set_status(sentry_span_status_t status) noexcept { sentry_span_set_status(span_, status); }

  private:
    sentry_span_t* span_;
};

Handle start_span(const SentryParent& parent, std::string_view op, std::string_view description) {
    const Utf8 text(description);
    const std::string_view utf8 = text.view();
    const std::lock_guard lock(turns());
    if (const auto* transaction = std::get_if<sentry_transaction_s*>(&parent)) {
        if (*transaction != nullptr) {
            return Handle(sentry_transaction_start_child_n(*transaction, op.data(), op.size(),
                                                           utf8.data(), utf8.size()));
        }
    } else if (const auto* span = std::get_if<sentry_span_s*>(&parent)) {
        if (*span != nullptr) {
            return Handle(
                sentry_span_start_child_n(*span, op.data(), op.size(), utf8.data(), utf8.size()));
        }
    }
    return Handle(nullptr);
}

/// The part that is the same for every operation.
template <class Base>
class Span : public Base {
  public:
    explicit Span(Handle handle) noexcept : handle_(std::move(handle)) {}
    ~Span() override {
        if (!ended_) {
            end(SENTRY_SPAN_STATUS_CANCELLED);
        }
    }

    void record_error(const boost::system::error_code& code) override { end(status_of(code)); }

  protected:
    void set(std::string_view name, sentry_value_t value) noexcept { handle_.set(name, value); }
    void succeed() noexcept { end(SENTRY_SPAN_STATUS_OK); }

  private:
    void end(sentry_span_status_t status) noexcept {
        ended_ = true;
        set("cache.success", sentry_value_new_bool(status == SENTRY_SPAN_STATUS_OK ? 1 : 0));
        handle_.set_status(status);
    }

    Handle handle_;
    bool ended_ = false;
};

class GetSpan final : public Span<CacheGetSpan> {
  public:
    using Span::Span;
    void record_cache_hit(std::size_t size) override {
        hit_ = true;
        size_ += size;
        set("cache.hit", sentry_value_new_bool(1));
        set("cache.item_size", number_value(size_));
        succeed();
    }
    void record_cache_miss() override {
        set("cache.hit", sentry_value_new_bool(hit_ ? 1 : 0));
        succeed();
    }

  private:
    bool hit_ = false;  // of many keys, any
    std::uint64_t size_ = 0;
};

class PutSpan final : public Span<CachePutSpan> {
  public:
    using Span::Span;
    void record_put(std::size_t size) override {
        size_ += size;
        set("cache.item_size", number_value(size_));
        succeed();
    }

  private:
    std::uint64_t size_ = 0;
};

class RemoveSpan final : public Span<CacheRemoveSpan> {
  public:
    using Span::Span;
    void record_removed() override { succeed(); }
};

class InvalidationSpan final : public Span<CacheInvalidationSpan> {
  public:
    using Span::Span;
    void record_invalidated(std::uint64_t entries) override {
        if (counts_) {
            set("cache.num_removed", number_value(entries));
        }
        succeed();
    }
    void counts_entries() { counts_ = true; }

  private:
    bool counts_ = false;
};

class FlushSpan final : public Span<CacheFlushSpan> {
  public:
    using Span::Span;
    void record_flush(std::uint64_t entries) override {
        set("cache.num_flushed", number_value(entries));
        succeed();
    }
};

template <class T>
std::unique_ptr<T> open(const SentryParent& parent, std::string_view op,
                        std::string_view default_name, const SpanInfo& info,
                        const SentryOptions& options) {
    Handle handle = start_span(parent, op, info.name.empty() ? default_name : info.name);
    if (!handle) {
        return nullptr;
    }
    const detail::ShownKeys shown = detail::shown_keys(info.keys, options.keys);
    if (!shown.keys.empty()) {
        handle.set("cache.key", list_of(shown.keys));
    }
    if (shown.more > 0) {
        handle.set("cache.more_keys", number_value(shown.more));
    }
    return std::make_unique<T>(std::move(handle));
}

}  // namespace

SentryInstrumentation::SentryInstrumentation(ParentFunction parent, SentryOptions options)
    : parent_(std::move(parent)), options_(options) {
    if (!parent_) {
        throw std::invalid_argument("SentryInstrumentation: parent must not be empty");
    }
}

SentryInstrumentation::~SentryInstrumentation() = default;

SentryInstrumentation::ParentFunction SentryInstrumentation::without_info(
    std::function<SentryParent()> parent) {
    if (!parent) {
        return {};
    }
    return [parent = std::move(parent)](const SpanInfo&) { return parent(); };
}

std::unique_ptr<CacheGetSpan> SentryInstrumentation::start_cache_get_span(const SpanInfo& info) {
    return open<GetSpan>(parent_(info), "cache.get", "psycache get", info, options_);
}

std::unique_ptr<CachePutSpan> SentryInstrumentation::start_cache_put_span(const SpanInfo& info) {
    return open<PutSpan>(parent_(info), "cache.put", "psycache put", info, options_);
}

std::unique_ptr<CacheRemoveSpan> SentryInstrumentation::start_cache_remove_span(
    const SpanInfo& info) {
    return open<RemoveSpan>(parent_(info), "cache.remove", "psycache remove", info, options_);
}

std::unique_ptr<CacheInvalidationSpan> SentryInstrumentation::start_cache_invalidation_span(
    const InvalidationInfo& info) {
    const SpanInfo named{{}, info.name};
    const bool clears = info.operation == "clear";
    auto span = open<InvalidationSpan>(parent_(named), clears ? "cache.flush" : "cache.remove",
                                       "psycache " + std::string(info.operation), named, options_);
    if (span && !clears) {
        span->counts_entries();
    }
    return span;
}

std::unique_ptr<CacheFlushSpan> SentryInstrumentation::start_cache_flush_span() {
    const SpanInfo info;
    return open<FlushSpan>(parent_(info), "cache.flush", "psycache flush", info, options_);
}

}  // namespace psycache
