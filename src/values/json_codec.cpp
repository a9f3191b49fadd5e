#include "values/json_codec.hpp"

#include <array>
#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/value.hpp>
#include <boost/json/value_stack.hpp>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "pg/parameters.hpp"
#include "values/decimal.hpp"
#include "values/utf8.hpp"

namespace psycache::detail {

namespace {

namespace json = boost::json;

std::string_view view(json::string_view text) {
    return {text.data(), text.size()};
}

class Encoder {
  public:
    explicit Encoder(std::string& out) : out_(out) {}

    bool object(const json::object& object, std::size_t depth) {
        if (depth > max_stored_depth) {
            return refuse("it is nested too deep");
        }
        out_ += '{';
        bool first = true;
        for (const auto& member : object) {
            if (!first) {
                out_ += ',';
            }
            first = false;
            if (!string(view(member.key()))) {
                return false;
            }
            out_ += ':';
            if (!value(member.value(), depth)) {
                return false;
            }
        }
        out_ += '}';
        return true;
    }

    bool value(const json::value& value, std::size_t depth) {
        switch (value.kind()) {
            case json::kind::null:
                out_ += "null";
                return true;
            case json::kind::bool_:
                out_ += value.get_bool() ? "true" : "false";
                return true;
            case json::kind::int64:
                number(value.get_int64());
                return true;
            case json::kind::uint64:
                number(value.get_uint64());
                return true;
            case json::kind::double_:
                return real(value.get_double());
            case json::kind::string:
                return string(view(value.get_string()));
            case json::kind::array:
                return array(value.get_array(), depth + 1);
            case json::kind::object:
                return object(value.get_object(), depth + 1);
        }
        return refuse("it holds a value of an unknown kind");
    }

    const char* complaint() const noexcept { return complaint_; }

  private:
    bool refuse(const char* why) {
        complaint_ = why;
        return false;
    }

    bool array(const json::array& array, std::size_t depth) {
        if (depth > max_stored_depth) {
            return refuse("it is nested too deep");
        }
        out_ += '[';
        bool first = true;
        for (const json::value& element : array) {
            if (!first) {
                out_ += ',';
            }
            first = false;
            if (!value(element, depth)) {
                return false;
            }
        }
        out_ += ']';
        return true;
    }

    template <class Integer>
    void number(Integer integer) {
        std::array<char, 24> digits;
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), integer).ptr;
        out_.append(digits.data(), end);
    }

    bool real(double number) {
        if (!std::isfinite(number)) {
            return refuse("it holds a number that is not finite");
        }
        std::array<char, 64> digits;
        // JSONB writes numbers out in full and keeps trailing zeros: a fraction keeps a double from
        // coming back as an integer. Above 1e20 the digits are too many for an integer anyway.
        const double size = std::fabs(number);
        const bool plain = size < 1e20 && (size >= 1e-5 || size == 0);
        const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
        const auto end =
            std::to_chars(digits.data(), digits.data() + digits.size(), number, format).ptr;
        const std::string_view text(digits.data(), static_cast<std::size_t>(end - digits.data()));
        out_ += text;
        if (plain && text.find('.') == std::string_view::npos) {
            out_ += ".0";
        }
        return true;
    }

    bool string(std::string_view text) {
        if (!is_storable_text(text)) {
            return refuse("it holds text with a NUL or with bytes that are not UTF-8");
        }
        out_ += '"';
        std::size_t clean = 0;  // where the part that needs no escape begins
        for (std::size_t i = 0; i < text.size(); ++i) {
            const auto byte = static_cast<unsigned char>(text[i]);
            if (byte >= 0x20 && byte != '"' && byte != '\\') {
                continue;
            }
            out_ += text.substr(clean, i - clean);
            clean = i + 1;
            out_ += '\\';
            if (byte >= 0x20) {
                out_ += text[i];
            } else {
                static constexpr char hex[] = "0123456789abcdef";
                out_ += "u00";
                out_ += hex[byte >> 4];
                out_ += hex[byte & 0xf];
            }
        }
        out_ += text.substr(clean);
        out_ += '"';
        return true;
    }

    std::string& out_;
    const char* complaint_ = "";
};

/// Receives the parser's events and builds the value, as boost::json's own handler does, but for
/// numbers that are no integers of 64 bits: their doubles are the next ones, and hold them.
struct Handler {
    /// @param place memory for values that are not complete, before any is allocated.
    explicit Handler(std::span<unsigned char> place)
        : stack(json::storage_ptr(), place.data(), place.size()) {}

    static constexpr std::size_t max_object_size = json::object::max_size();
    static constexpr std::size_t max_array_size = json::array::max_size();
    static constexpr std::size_t max_key_size = json::string::max_size();
    static constexpr std::size_t max_string_size = json::string::max_size();

    using Error = json::error_code;

    bool on_document_begin(Error&) { return true; }
    bool on_document_end(Error&) { return true; }
    bool on_object_begin(Error&) { return true; }
    bool on_object_end(std::size_t size, Error&) {
        stack.push_object(size);
        return true;
    }
    bool on_array_begin(Error&) { return true; }
    bool on_array_end(std::size_t size, Error&) {
        stack.push_array(size);
        return true;
    }
    bool on_key_part(json::string_view part, std::size_t, Error&) {
        stack.push_chars(part);
        return true;
    }
    bool on_key(json::string_view part, std::size_t, Error&) {
        stack.push_key(part);
        return true;
    }
    bool on_string_part(json::string_view part, std::size_t, Error&) {
        stack.push_chars(part);
        return true;
    }
    bool on_string(json::string_view part, std::size_t, Error&) {
        stack.push_string(part);
        return true;
    }
    bool on_number_part(json::string_view, Error&) { return true; }
    bool on_int64(std::int64_t number, json::string_view, Error&) {
        stack.push_int64(number);
        return true;
    }
    bool on_uint64(std::uint64_t number, json::string_view, Error&) {
        stack.push_uint64(number);
        return true;
    }
    bool on_double(double rough, json::string_view text, Error& error) {
        double exact = rough;
        const auto read = std::from_chars(text.data(), text.data() + text.size(), exact);
        if (read.ec != std::errc() || !holds(exact, view(text))) {
            error = json::error::not_exact;
            return false;
        }
        stack.push_double(exact);
        return true;
    }
    bool on_bool(bool value, Error&) {
        stack.push_bool(value);
        return true;
    }
    bool on_null(Error&) {
        stack.push_null();
        return true;
    }
    bool on_comment_part(json::string_view, Error&) { return true; }
    bool on_comment(json::string_view, Error&) { return true; }

    json::value_stack stack;
};

template <class Write>
Result<std::string> encode(Write write) {
    std::string bytes(1, pg::jsonb_version);
    Encoder encoder(bytes);
    if (!write(encoder)) {
        return Failure(Errc::invalid_value,
                       std::string("the value cannot be stored as JSONB: ") + encoder.complaint());
    }
    if (bytes.size() > max_jsonb_size) {
        return Failure(Errc::invalid_value,
                       "the value cannot be stored as JSONB: it is larger than 256 MiB");
    }
    return bytes;
}

std::string complaint_of(const json::error_code& error) {
    std::string text = "the stored value cannot be read: ";
    if (error == json::error::not_exact || error == json::error::exponent_overflow) {
        text += "it holds a number that a double cannot hold exactly (get_text gives its text)";
    } else if (error == json::error::too_deep) {
        text += "it is nested too deep (get_text gives its text)";
    } else {
        text += "it is no JSON";
    }
    return text;
}

}  // namespace

Result<std::string> encode_jsonb(const json::object& value) {
    return encode([&](Encoder& encoder) { return encoder.object(value, 1); });
}

Result<std::string> encode_jsonb(const json::value& value) {
    return encode([&](Encoder& encoder) { return encoder.value(value, 0); });
}

Result<json::value> decode_jsonb(std::string_view bytes) {
    if (bytes.empty() || bytes.front() != pg::jsonb_version) {
        return Failure(Errc::protocol_error);
    }
    bytes.remove_prefix(1);
    json::parse_options options;
    options.max_depth = max_read_depth;
    alignas(std::max_align_t) std::array<unsigned char, 4096> place;
    json::basic_parser<Handler> parser(options, std::span<unsigned char>(place));
    parser.handler().stack.reset();
    json::error_code error;
    const std::size_t read = parser.write_some(false, bytes.data(), bytes.size(), error);
    if (error || read != bytes.size()) {
        return Failure(Errc::unreadable_value, complaint_of(error));
    }
    return parser.handler().stack.release();
}

Failure no_object_failure() {
    return Failure(Errc::unreadable_value,
                   "the stored value cannot be read: it is JSON, but no object");
}

}  // namespace psycache::detail
