#include "cli/doctor.hpp"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "cli/doctor_facts.hpp"
#include "cli/doctor_findings.hpp"
#include "cli/outcome.hpp"

namespace psycache::cli {

namespace {

namespace json = boost::json;

constexpr std::size_t width = 96;

/// Breaks a text at spaces. @param indent what lines begin with, but for the first.
std::string wrapped(const std::string& text, const std::string& indent) {
    std::string lines;
    std::size_t column = indent.size();
    for (std::size_t start = 0; start < text.size();) {
        const std::size_t end = std::min(text.find(' ', start), text.size());
        const std::string word = text.substr(start, end - start);
        if (start > 0 && column + 1 + word.size() > width) {
            lines += "\n" + indent;
            column = indent.size();
        } else if (start > 0) {
            lines += ' ';
            ++column;
        }
        lines += word;
        column += word.size();
        start = end + 1;
    }
    return lines;
}

std::string as_text(const std::vector<Finding>& findings) {
    const std::string indent(9, ' ');
    std::string text;
    std::vector<std::size_t> counts(4);
    for (const Finding& finding : findings) {
        ++counts[static_cast<std::size_t>(finding.severity)];
        std::string severity = severity_text(finding.severity);
        severity.resize(indent.size(), ' ');
        text += severity + finding.id + "\n" + indent + wrapped(finding.found, indent) + "\n";
        if (!finding.remedy.empty()) {
            text += indent + "-> " + wrapped(finding.remedy, indent + "   ") + "\n";
        }
        // As it is, so that it can be pasted.
        if (!finding.sql.empty()) {
            text += finding.sql + (finding.sql.ends_with('\n') ? "" : "\n");
        }
    }
    const auto count = [&](Severity severity) {
        const std::size_t number = counts[static_cast<std::size_t>(severity)];
        return std::to_string(number) + " " + severity_text(severity) + (number == 1 ? "" : "s");
    };
    return text + "psycache: " + count(Severity::problem) + ", " + count(Severity::warning) + ", " +
           count(Severity::note) + "\n";
}

std::string as_json_text(const std::vector<Finding>& findings, bool wrong) {
    json::array list;
    for (const Finding& finding : findings) {
        json::object one;
        one["severity"] = severity_text(finding.severity);
        one["id"] = finding.id;
        one["found"] = finding.found;
        one["remedy"] = finding.remedy;
        one["sql"] = finding.sql;
        list.push_back(std::move(one));
    }
    json::object report;
    report["ok"] = !wrong;
    report["findings"] = std::move(list);
    return json::serialize(report) + "\n";
}

}  // namespace

int doctor(const Place& place, bool as_json) {
    return run("doctor", ServerWords::all, [&] {
        const std::vector<Finding> findings = doctor_findings(gather_doctor_facts(place));
        const bool wrong = something_is_wrong(findings);
        const int printed =
            print("doctor", as_json ? as_json_text(findings, wrong) : as_text(findings));
        return wrong ? exit_failure : printed;
    });
}

}  // namespace psycache::cli
