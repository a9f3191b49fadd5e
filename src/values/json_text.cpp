#include "values/json_text.hpp"

#include <algorithm>
#include <bitset>
#include <cstdlib>

#include "values/utf8.hpp"

namespace psycache::detail {

namespace {

// What PostgreSQL's numeric holds: digits before and after the point, and what it reads as an
// exponent at all.
constexpr long max_leading_place = 131071;
constexpr long max_scale = 16383;
constexpr long max_exponent = 1073741822;

bool is_digit(char c) noexcept {
    return c >= '0' && c <= '9';
}

class Checker {
  public:
    explicit Checker(std::string_view text) noexcept : text_(text) {}

    /// Its containers are kept as bits, so that depth costs no stack.
    bool object() noexcept {
        space();
        if (peek() != '{') {
            return refuse("it is no JSON object");
        }
        for (Due due = Due::value; due != Due::nothing;) {
            space();
            if (!part(due)) {
                return false;
            }
        }
        space();
        return at_ == text_.size() || refuse("something follows the object");
    }

    TextMistake mistake() const noexcept { return {what_, at_}; }

  private:
    enum class Due { value, first_name, name, first_element, more, nothing };

    bool refuse(const char* why) noexcept {
        what_ = at_ == text_.size() ? "it ends too early" : why;
        return false;
    }

    // NUL at the end: none is left of the text itself by then.
    char peek() const noexcept { return at_ < text_.size() ? text_[at_] : '\0'; }

    void space() noexcept {
        while (peek() == ' ' || peek() == '\n' || peek() == '\t' || peek() == '\r') {
            ++at_;
        }
    }

    bool part(Due& due) noexcept {
        const char c = peek();
        const char end = depth_ > 0 && is_array_[depth_ - 1] ? ']' : '}';
        if (c == end && (due == Due::more || due == Due::first_name || due == Due::first_element)) {
            ++at_;
            due = --depth_ == 0 ? Due::nothing : Due::more;
            return true;
        }
        switch (due) {
            case Due::first_name:
            case Due::name:
                due = Due::value;
                return name();
            case Due::more:
                due = end == ']' ? Due::value : Due::name;
                return c == ',' ? step() : refuse("a comma or an end is missing");
            default:
                break;
        }
        due = c == '{' ? Due::first_name : c == '[' ? Due::first_element : Due::more;
        return c == '{' || c == '[' ? open(c == '[') : scalar(c);
    }

    bool step() noexcept {
        ++at_;
        return true;
    }

    bool open(bool array) noexcept {
        if (depth_ == max_text_depth) {
            return refuse("it is nested too deep");
        }
        is_array_[depth_++] = array;
        return step();
    }

    bool name() noexcept {
        if (peek() != '"') {
            return refuse("a name in quotes is missing");
        }
        if (!string()) {
            return false;
        }
        space();
        return peek() == ':' ? step() : refuse("a colon is missing");
    }

    bool scalar(char c) noexcept {
        switch (c) {
            case '"':
                return string();
            case 't':
                return word("true");
            case 'f':
                return word("false");
            case 'n':
                return word("null");
            default:
                return c == '-' || is_digit(c) ? number() : refuse("a value is missing");
        }
    }

    bool word(std::string_view expected) noexcept {
        if (text_.substr(at_, expected.size()) != expected) {
            return refuse("a value is missing");
        }
        at_ += expected.size();
        return true;
    }

    bool string() noexcept {
        ++at_;
        for (;;) {
            std::size_t at = at_;  // a local one stays in a register
            while (at < text_.size() && static_cast<unsigned char>(text_[at]) >= 0x20 &&
                   text_[at] != '"' && text_[at] != '\\') {
                ++at;
            }
            at_ = at;
            const char c = peek();
            if (c == '"') {
                return step();
            }
            if (c != '\\') {
                return refuse("a string holds a control character that is not escaped");
            }
            if (!escape()) {
                return false;
            }
        }
    }

    bool escape() noexcept {
        const std::size_t begin = at_++;
        const char c = peek();
        if (c != 'u') {
            return c != '\0' && std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos
                       ? step()
                       : refuse("a string holds an escape that is none");
        }
        long unit = code_unit();
        if (unit >= 0xd800 && unit <= 0xdbff && text_.substr(at_, 2) == "\\u") {
            ++at_;
            const long second = code_unit();
            unit = second < 0 ? second : second >= 0xdc00 && second <= 0xdfff ? 0x10000 : 0xd800;
        }
        if (unit < 0) {
            return refuse("a string holds an escape that is none");
        }
        if (unit == 0 || (unit >= 0xd800 && unit <= 0xdfff)) {
            at_ = begin;
            return refuse(unit == 0 ? "a string holds \\u0000, which PostgreSQL cannot store"
                                    : "a string holds half of a surrogate pair");
        }
        return true;
    }

    /// @returns the number after a "u" in hexadecimal; negative where there is none.
    long code_unit() noexcept {
        long unit = 0;
        ++at_;
        for (int digits = 0; digits < 4; ++digits, ++at_) {
            const char c = peek();
            const char lower = static_cast<char>(c | 0x20);
            if (!is_digit(c) && (lower < 'a' || lower > 'f')) {
                return -1;
            }
            unit = unit * 16 + (is_digit(c) ? c - '0' : lower - 'a' + 10);
        }
        return unit;
    }

    void digits() noexcept {
        while (is_digit(peek())) {
            ++at_;
        }
    }

    bool number() noexcept {
        const std::size_t begin = at_;
        at_ += peek() == '-' ? 1 : 0;
        const std::size_t whole = at_;
        const bool zero = peek() == '0';
        if (zero) {
            ++at_;
        } else {
            digits();
        }
        const auto before = static_cast<long>(at_ - whole);
        std::string_view fraction;
        bool complete = before > 0;
        if (complete && peek() == '.') {
            const std::size_t point = at_++;
            digits();
            fraction = text_.substr(point + 1, at_ - point - 1);
            complete = !fraction.empty();
        }
        long exponent = 0;
        if (complete && (peek() == 'e' || peek() == 'E')) {
            complete = read_exponent(exponent);
        }
        if (!complete) {
            return refuse("a number is not complete");
        }
        // The place of its first digit that is not 0: that of the ones is 0.
        const std::size_t zeros = std::min(fraction.find_first_not_of('0'), fraction.size());
        const long place = zero ? -1 - static_cast<long>(zeros) : before - 1;
        const bool too_large =
            place + exponent > max_leading_place && (!zero || zeros < fraction.size());
        const bool too_fine = static_cast<long>(fraction.size()) - exponent > max_scale;
        if (too_large || too_fine || std::abs(exponent) > max_exponent) {
            at_ = begin;
            return refuse("a number has more digits than PostgreSQL's numeric holds");
        }
        return true;
    }

    bool read_exponent(long& exponent) noexcept {
        ++at_;
        const bool negative = peek() == '-';
        at_ += negative || peek() == '+' ? 1 : 0;
        const std::size_t begin = at_;
        for (; is_digit(peek()); ++at_) {
            exponent = std::min(exponent * 10 + (peek() - '0'), max_exponent + 1);
        }
        exponent = negative ? -exponent : exponent;
        return at_ > begin;
    }

    const std::string_view text_;
    std::size_t at_ = 0;
    std::size_t depth_ = 0;
    std::bitset<max_text_depth> is_array_;
    const char* what_ = "";
};

}  // namespace

std::optional<TextMistake> mistake_in_text(std::string_view text) noexcept {
    if (const std::size_t at = find_unstorable(text); at < text.size()) {
        return TextMistake{"it holds a NUL, or is not UTF-8", at};
    }
    Checker checker(text);
    if (checker.object()) {
        return std::nullopt;
    }
    return checker.mistake();
}

}  // namespace psycache::detail
