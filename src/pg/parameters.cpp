#include "pg/parameters.hpp"

#include <utility>

namespace psycache::detail::pg {

namespace {

template <class Unsigned>
void append_big_endian(std::string& bytes, Unsigned value) {
    for (int shift = (static_cast<int>(sizeof(Unsigned)) - 1) * 8; shift >= 0; shift -= 8) {
        bytes += static_cast<char>((value >> shift) & 0xff);
    }
}

constexpr std::uint32_t null_length = 0xffffffff;

}  // namespace

void Parameters::put(const char* data, std::size_t length) {
    values_.push_back(data);
    lengths_.push_back(static_cast<int>(length));
    formats_.push_back(1);
}

void Parameters::int8(std::int64_t value) {
    std::string bytes;
    append_big_endian(bytes, static_cast<std::uint64_t>(value));
    own(std::move(bytes));
}

void Parameters::own(std::string bytes) {
    std::string& kept = owned_count_ < usual ? owned_[owned_count_++] : more_owned_.emplace_back();
    kept = std::move(bytes);
    put(kept.data(), kept.size());
}

ArrayBuilder::ArrayBuilder(Oid element, std::size_t count) {
    append_big_endian<std::uint32_t>(bytes_, 1);  // dimensions
    append_big_endian<std::uint32_t>(bytes_, 0);  // the server looks for NULLs by itself
    append_big_endian(bytes_, static_cast<std::uint32_t>(element));
    append_big_endian(bytes_, static_cast<std::uint32_t>(count));
    append_big_endian<std::uint32_t>(bytes_, 1);  // lower bound
}

void ArrayBuilder::add(std::string_view bytes) {
    append_big_endian(bytes_, static_cast<std::uint32_t>(bytes.size()));
    bytes_ += bytes;
}

void ArrayBuilder::add_int8(std::int64_t value) {
    append_big_endian<std::uint32_t>(bytes_, 8);
    append_big_endian(bytes_, static_cast<std::uint64_t>(value));
}

void ArrayBuilder::add_null() {
    append_big_endian(bytes_, null_length);
}

std::int64_t read_integer(std::string_view bytes) noexcept {
    if (bytes.size() != 4 && bytes.size() != 8) {
        return 0;
    }
    std::uint64_t value = 0;
    for (const char byte : bytes) {
        value = (value << 8) | static_cast<unsigned char>(byte);
    }
    return bytes.size() == 4 ? static_cast<std::int32_t>(value) : static_cast<std::int64_t>(value);
}

}  // namespace psycache::detail::pg
