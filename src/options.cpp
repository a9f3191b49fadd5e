#include <psycache/create.hpp>
#include <psycache/options.hpp>
#include <psycache/table.hpp>
#include <utility>

namespace psycache {

// Out of line, so that no compiler sees an aggregate here, and so that their strings are made and
// destroyed in one place.
PoolOptions::PoolOptions() = default;
PoolOptions::PoolOptions(const PoolOptions&) = default;
PoolOptions::PoolOptions(PoolOptions&&) noexcept = default;
PoolOptions& PoolOptions::operator=(const PoolOptions&) = default;
PoolOptions& PoolOptions::operator=(PoolOptions&&) noexcept = default;
PoolOptions::~PoolOptions() = default;

CallOptions::CallOptions() = default;
CallOptions::CallOptions(std::string name) : span_name(std::move(name)) {}
CallOptions::CallOptions(std::string_view name) : span_name(name) {}
CallOptions::CallOptions(const char* name) : span_name(name) {}
CallOptions::CallOptions(Duration its_timeout) : timeout(its_timeout) {}
CallOptions::CallOptions(const CallOptions&) = default;
CallOptions::CallOptions(CallOptions&&) noexcept = default;
CallOptions& CallOptions::operator=(const CallOptions&) = default;
CallOptions& CallOptions::operator=(CallOptions&&) noexcept = default;
CallOptions::~CallOptions() = default;

CreateOptions::CreateOptions() = default;
CreateOptions::CreateOptions(Duration how_long_fresh) : ttl(how_long_fresh) {}
CreateOptions::CreateOptions(const CreateOptions&) = default;
CreateOptions::CreateOptions(CreateOptions&&) noexcept = default;
CreateOptions& CreateOptions::operator=(const CreateOptions&) = default;
CreateOptions& CreateOptions::operator=(CreateOptions&&) noexcept = default;
CreateOptions::~CreateOptions() = default;

PutOptions::PutOptions() = default;
PutOptions::PutOptions(CallOptions of_the_call) : CallOptions(std::move(of_the_call)) {}
PutOptions::PutOptions(const PutOptions&) = default;
PutOptions::PutOptions(PutOptions&&) noexcept = default;
PutOptions& PutOptions::operator=(const PutOptions&) = default;
PutOptions& PutOptions::operator=(PutOptions&&) noexcept = default;
PutOptions::~PutOptions() = default;

NearCacheOptions::NearCacheOptions() = default;

CacheOptions::CacheOptions() = default;
CacheOptions::CacheOptions(const CacheOptions&) = default;
CacheOptions::CacheOptions(CacheOptions&&) noexcept = default;
CacheOptions& CacheOptions::operator=(const CacheOptions&) = default;
CacheOptions& CacheOptions::operator=(CacheOptions&&) noexcept = default;
CacheOptions::~CacheOptions() = default;

TableOptions::TableOptions() = default;
TableOptions::TableOptions(const TableOptions&) = default;
TableOptions::TableOptions(TableOptions&&) noexcept = default;
TableOptions& TableOptions::operator=(const TableOptions&) = default;
TableOptions& TableOptions::operator=(TableOptions&&) noexcept = default;
TableOptions::~TableOptions() = default;

}  // namespace psycache
