#include "throughput/svg.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <iomanip>
#include <sstream>
#include <vector>

namespace bench {

namespace {

constexpr std::array<std::size_t, 4> callers{1, 8, 64, 256};

constexpr double width = 940;
constexpr double height = 480;
constexpr double left = 78;
constexpr double right = 325;  // for the legend
constexpr double top = 84;
constexpr double bottom = 60;

struct Style {
    const char* contender;
    const char* legend;
    const char* colour_class;
    const char* dash;
    double line_width;
};
// The shapes differ as well, for those who do not tell the colours apart.
constexpr std::array<Style, 6> styles{{
    {async_name, "psycache, coroutines, one thread", "a", "", 3.5},
    {redis_name, "Redis (redis-benchmark), not pipelined", "b", "9 4", 2},
    {pgbench_name, "pgbench prepared, a connection per caller", "c", "2 3", 2},
    {libpq_name, "libpq + JSON, a thread per caller", "d", "12 3 2 3", 2},
    {pqxx_name, "libpqxx + JSON, a thread per caller", "e", "5 5", 2},
    {blocking_name, "psycache blocking, a thread per caller", "f", "1 0", 2},
}};

double x_of(std::size_t position) {
    const double step = (width - left - right) / static_cast<double>(callers.size() - 1);
    return left + step * static_cast<double>(position);
}

class Scale_y {
  public:
    explicit Scale_y(double largest) {
        const double rough = std::max(largest, 1.0) / 6;
        const double power = std::pow(10, std::floor(std::log10(rough)));
        step_ = power;
        for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
            step_ = power * factor;
            if (step_ >= rough) {
                break;
            }
        }
        end_ = std::ceil(largest / step_) * step_;
    }
    double y_of(double number) const {
        return height - bottom - (height - top - bottom) * number / end_;
    }
    double step() const { return step_; }
    double end() const { return end_; }

  private:
    double step_ = 1;
    double end_ = 1;
};

std::string escaped(const std::string& text) {
    std::string result;
    for (const char c : text) {
        switch (c) {
            case '&':
                result += "&amp;";
                break;
            case '<':
                result += "&lt;";
                break;
            case '>':
                result += "&gt;";
                break;
            default:
                result += c;
        }
    }
    return result;
}

void write_text(std::ostream& out, double x, double y, const char* attributes,
                const std::string& text) {
    out << "<text x=\"" << x << "\" y=\"" << y << "\" " << attributes << ">" << escaped(text)
        << "</text>\n";
}

/// Each contender has a mark of its own.
void write_mark(std::ostream& out, std::size_t style, double x, double y) {
    constexpr double r = 4.5;
    out << "<g class=\"" << styles[style].colour_class << " m\">";
    switch (style % 3) {
        case 0:
            out << "<circle cx=\"" << x << "\" cy=\"" << y << "\" r=\"" << r << "\"/>";
            break;
        case 1:
            out << "<rect x=\"" << x - r << "\" y=\"" << y - r << "\" width=\"" << 2 * r
                << "\" height=\"" << 2 * r << "\"/>";
            break;
        default:
            out << "<path d=\"M" << x << ' ' << y - r - 1 << 'L' << x + r + 1 << ' ' << y + r << 'L'
                << x - r - 1 << ' ' << y + r << "Z\"/>";
    }
    out << "</g>\n";
}

void write_axes(std::ostream& out, const Scale_y& scale) {
    for (double number = 0; number <= scale.end() * 1.001; number += scale.step()) {
        const double y = scale.y_of(number);
        out << "<path class=\"g\" d=\"M" << left << ' ' << y << 'H' << width - right << "\"/>\n";
        std::ostringstream label;
        label << number / 1000;
        write_text(out, left - 10, y + 4, "text-anchor=\"end\"", label.str());
    }
    for (std::size_t i = 0; i < callers.size(); ++i) {
        write_text(out, x_of(i), height - bottom + 22, "text-anchor=\"middle\"",
                   std::to_string(callers[i]));
    }
    write_text(out, (left + width - right) / 2, height - 14, "text-anchor=\"middle\"",
               "callers at the same time");
    out << "<g transform=\"translate(22 " << (top + height - bottom) / 2 << ") rotate(-90)\">";
    write_text(out, 0, 0, "text-anchor=\"middle\"", "thousand gets per second");
    out << "</g>\n";
}

}  // namespace

std::string throughput_picture(const Group& gets, const std::string& subtitle) {
    std::ostringstream out;
    out << std::setprecision(6);
    double largest = 0;
    for (const Style& style : styles) {
        for (const std::size_t count : callers) {
            const Case* const found = find_case(gets, style.contender, count);
            if (const auto rate = found ? over_rounds(*found, rate_of) : std::nullopt) {
                largest = std::max(largest, rate->max);
            }
        }
    }
    const Scale_y scale(largest);

    out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << width << ' ' << height
        << "\" font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\">\n"
        << "<title>Gets per second against callers</title>\n"
        // Greys and hues that stand out from white and from black alike, for viewers that do not
        // tell which they have.
        << "<style>\n"
           "text{fill:#76808c} .t{fill:#6a7480;font-weight:600}\n"
           ".g{stroke:#8a94a0;stroke-opacity:.3;fill:none} .l{fill:none;stroke:currentColor}\n"
           ".m{fill:currentColor} .s{stroke:currentColor;stroke-opacity:.6}\n"
           ".a{color:#2f81f7} .b{color:#e5534b} .c{color:#3fa34d} .d{color:#b07d12}\n"
           ".e{color:#a371f7} .f{color:#1f9c9c}\n"
           "@media (prefers-color-scheme: dark){text{fill:#aab4be} .t{fill:#dfe5eb}}\n"
           "@media (prefers-color-scheme: light){text{fill:#4b5560} .t{fill:#1d232a}}\n"
           "</style>\n";
    write_text(out, left, 30, "class=\"t\" font-size=\"19\"", "Gets per second against callers");
    write_text(out, left, 52, "font-size=\"12\"", subtitle);
    write_axes(out, scale);

    double legend_y = top + 12;
    for (std::size_t s = 0; s < styles.size(); ++s) {
        const Style& style = styles[s];
        std::ostringstream line;
        std::ostringstream spreads;
        std::ostringstream last;
        std::vector<std::array<double, 2>> marks;
        for (std::size_t i = 0; i < callers.size(); ++i) {
            const Case* const found = find_case(gets, style.contender, callers[i]);
            const auto rate = found ? over_rounds(*found, rate_of) : std::nullopt;
            if (!rate) {
                continue;
            }
            const double x = x_of(i);
            const double y = scale.y_of(rate->median);
            line << (marks.empty() ? 'M' : 'L') << x << ' ' << y;
            spreads << "M" << x << ' ' << scale.y_of(rate->min) << 'V' << scale.y_of(rate->max);
            marks.push_back({x, y});
            last.str("");
            last << std::fixed << std::setprecision(0) << rate->median / 1000 << " thousand with "
                 << callers[i] << (callers[i] == 1 ? " caller" : " callers");
        }
        if (marks.empty()) {
            continue;
        }
        out << "<g class=\"" << style.colour_class << "\"><path class=\"l\" stroke-width=\""
            << style.line_width << "\" stroke-dasharray=\"" << style.dash << "\" d=\"" << line.str()
            << "\"/><path class=\"s\" d=\"" << spreads.str() << "\"/></g>\n";
        for (const auto& mark : marks) {
            write_mark(out, s, mark[0], mark[1]);
        }
        const double x = width - right + 24;
        out << "<g class=\"" << style.colour_class << "\"><path class=\"l\" stroke-width=\""
            << style.line_width << "\" stroke-dasharray=\"" << style.dash << "\" d=\"M" << x << ' '
            << legend_y - 4 << "h26\"/></g>\n";
        write_mark(out, s, x + 13, legend_y - 4);
        write_text(out, x + 34, legend_y, "font-size=\"11.5\"", style.legend);
        write_text(out, x + 34, legend_y + 15, "font-size=\"10.5\" opacity=\".8\"", last.str());
        legend_y += 42;
    }
    write_text(out, width - right + 24, height - bottom, "font-size=\"10.5\"",
               "Medians; thin lines span all rounds.");
    out << "</svg>\n";
    return out.str();
}

}  // namespace bench
