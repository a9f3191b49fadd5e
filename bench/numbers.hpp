#pragma once

/// @file
/// The whole numbers that a benchmark takes by name.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace bench {

/// What is wrong with the arguments.
class Usage : public std::invalid_argument {
  public:
    using std::invalid_argument::invalid_argument;
};

template <class Options>
struct Number {
    std::string_view name;
    unsigned Options::*field;
    unsigned least;
    unsigned most;
    const char* meaning;
};

/// Takes one name and its value. @returns whether the name is one of @p numbers.
template <class Options, std::size_t count>
bool take_number(const Number<Options> (&numbers)[count], std::string_view name,
                 std::string_view text, Options& options) {
    const auto* const option = std::find_if(std::begin(numbers), std::end(numbers),
                                            [&](const auto& one) { return one.name == name; });
    if (option == std::end(numbers)) {
        return false;
    }
    unsigned number = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || stop != end || number < option->least || number > option->most) {
        throw Usage(std::string(name) + " takes a whole number from " +
                    std::to_string(option->least) + " to " + std::to_string(option->most) +
                    ", not \"" + std::string(text) + '"');
    }
    options.*(option->field) = number;
    return true;
}

/// Takes names and their values. @param other takes one that is no number, if it knows it.
template <class Options, std::size_t count, class Other>
void take_numbers(const Number<Options> (&numbers)[count], std::span<char* const> words,
                  Options& options, Other other) {
    for (std::size_t i = 0; i < words.size(); i += 2) {
        const std::string_view name = words[i];
        const std::string_view text = i + 1 < words.size() ? words[i + 1] : "";
        if (!take_number(numbers, name, text, options) && !other(name, text)) {
            throw Usage("there is no option \"" + std::string(name) + '"');
        }
    }
}
template <class Options, std::size_t count>
void take_numbers(const Number<Options> (&numbers)[count], std::span<char* const> words,
                  Options& options) {
    take_numbers(numbers, words, options, [](std::string_view, std::string_view) { return false; });
}

template <class Options, std::size_t count>
void show_numbers(const Number<Options> (&numbers)[count]) {
    for (const auto& one : numbers) {
        std::fprintf(stderr, "  %-16s %s (%u)\n", std::string(one.name).c_str(), one.meaning,
                     Options().*(one.field));
    }
}

/// The main() of a benchmark whose options are numbers. @param body returns the exit code.
template <class Options, std::size_t count, class Body>
int run_with(const char* name, const Number<Options> (&numbers)[count], int argc, char** argv,
             Body body) {
    try {
        Options options;
        take_numbers(numbers, std::span<char* const>(argv + 1, argv + argc), options);
        return body(options);
    } catch (const Usage& wrong) {
        std::fprintf(stderr, "%s: %s\nOptions:\n", name, wrong.what());
        show_numbers(numbers);
        return 2;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", name, error.what());
        return 1;
    }
}

}  // namespace bench
