#include <array>
#include <psycache/instrumentation.hpp>

namespace psycache {

CacheSpan::~CacheSpan() = default;
void CacheSpan::record_error(const boost::system::error_code&) {}

CacheGetSpan::~CacheGetSpan() = default;
void CacheGetSpan::record_cache_hit(std::size_t) {}
void CacheGetSpan::record_cache_miss() {}

CachePutSpan::~CachePutSpan() = default;
void CachePutSpan::record_put(std::size_t) {}

CacheRemoveSpan::~CacheRemoveSpan() = default;
void CacheRemoveSpan::record_removed() {}

CacheTouchSpan::~CacheTouchSpan() = default;
void CacheTouchSpan::record_touch(bool) {}

CacheInvalidationSpan::~CacheInvalidationSpan() = default;
void CacheInvalidationSpan::record_invalidated(std::uint64_t) {}

CacheFlushSpan::~CacheFlushSpan() = default;
void CacheFlushSpan::record_flush(std::uint64_t) {}

CacheCleanupSpan::~CacheCleanupSpan() = default;
void CacheCleanupSpan::record_cleanup(std::uint64_t) {}

CacheInstrumentation::~CacheInstrumentation() = default;

std::unique_ptr<CacheGetSpan> CacheInstrumentation::start_cache_get_span(const SpanInfo&) {
    return nullptr;
}
std::unique_ptr<CachePutSpan> CacheInstrumentation::start_cache_put_span(const SpanInfo&) {
    return nullptr;
}
std::unique_ptr<CacheRemoveSpan> CacheInstrumentation::start_cache_remove_span(const SpanInfo&) {
    return nullptr;
}
std::unique_ptr<CacheTouchSpan> CacheInstrumentation::start_cache_touch_span(const SpanInfo&) {
    return nullptr;
}
std::unique_ptr<CacheInvalidationSpan> CacheInstrumentation::start_cache_invalidation_span(
    const InvalidationInfo&) {
    return nullptr;
}
std::unique_ptr<CacheFlushSpan> CacheInstrumentation::start_cache_flush_span() {
    return nullptr;
}
std::unique_ptr<CacheFlushSpan> CacheInstrumentation::start_cache_flush_span(const SpanInfo&) {
    return start_cache_flush_span();
}
std::unique_ptr<CacheCleanupSpan> CacheInstrumentation::start_cache_cleanup_span() {
    return nullptr;
}
std::unique_ptr<CacheCleanupSpan> CacheInstrumentation::start_cache_cleanup_span(const SpanInfo&) {
    return start_cache_cleanup_span();
}

void CacheInstrumentation::record_connection_wait(const ConnectionWait&) {}
void CacheInstrumentation::record_statement(const StatementInfo&) {}
void CacheInstrumentation::record_load(const LoadInfo&) {}
void CacheInstrumentation::record_stale_hit() {}

std::string_view name_of(LoadInfo::Outcome outcome) noexcept {
    static constexpr std::array<std::string_view, 7> names{
        "stored", "late", "unstored", "nothing", "failed", "elsewhere", "abandoned"};
    return names[static_cast<std::size_t>(outcome)];
}
void CacheInstrumentation::record_pool_change(const PoolChange&) {}

}  // namespace psycache
