#pragma once

#include <array>
#include <boost/container/small_vector.hpp>
#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>

namespace psycache::detail::pg {

/// Types of parameters, by their fixed object identifiers.
enum class Oid : unsigned {
    int8 = 20,
    text = 25,
    text_array = 1009,
    int8_array = 1016,
    timestamptz = 1184,
    timestamptz_array = 1185,
    jsonb = 3802,
    jsonb_array = 3807,
};

/// The first byte of JSONB in binary format; JSON text follows it.
inline constexpr char jsonb_version = '\x01';

/// The parameters of one statement, all in binary format: text format ends at a NUL.
class Parameters {
  public:
    /// Bytes that stay where they are until the statement is sent: text, or JSONB with its version.
    void borrow(std::string_view bytes) { put(bytes.data(), bytes.size()); }
    /// A 64-bit integer.
    void int8(std::int64_t value);
    /// A value that was encoded here.
    void own(std::string bytes);
    void null() { put(nullptr, 0); }

    std::size_t size() const noexcept { return values_.size(); }
    const char* const* values() const noexcept { return values_.data(); }
    const int* lengths() const noexcept { return lengths_.data(); }
    const int* formats() const noexcept { return formats_.data(); }

    Parameters() = default;
    Parameters(const Parameters&) = delete;
    Parameters& operator=(const Parameters&) = delete;

  private:
    void put(const char* data, std::size_t length);

    // Room for those of most statements without allocating.
    static constexpr std::size_t usual = 8;
    boost::container::small_vector<const char*, usual> values_;
    boost::container::small_vector<int, usual> lengths_;
    boost::container::small_vector<int, usual> formats_;
    // What is owned stays where it is, as short strings hold their bytes themselves.
    std::array<std::string, usual> owned_;
    std::size_t owned_count_ = 0;
    std::list<std::string> more_owned_;
};

/// Builds a one-dimensional array in PostgreSQL's binary format.
class ArrayBuilder {
  public:
    /// @param element the type of the elements, @p count how many there will be.
    ArrayBuilder(Oid element, std::size_t count);
    void add(std::string_view bytes);
    /// Also a moment, as the server has sent it: microseconds since 2000.
    void add_int8(std::int64_t value);
    void add_null();
    std::string take() { return std::move(bytes_); }

  private:
    std::string bytes_;
};

/// Reads a big-endian integer of 4 or 8 bytes; 0 for any other length.
std::int64_t read_integer(std::string_view bytes) noexcept;

}  // namespace psycache::detail::pg
