#pragma once

/// @file
/// What `psycache doctor` makes of the facts.

#include <string>
#include <vector>

#include "cli/doctor_facts.hpp"

namespace psycache::cli {

enum class Severity {
    ok,
    note,     ///< worth knowing
    warning,  ///< costs something
    problem,  ///< calls fail, or will
};

/// @returns as it is written: "ok" ...
std::string severity_text(Severity severity);

struct Finding {
    Severity severity = Severity::ok;
    std::string id;      ///< stays the same for what was looked at, whatever was found
    std::string found;   ///< a sentence
    std::string remedy;  ///< another one, "" where there is nothing to do
    std::string sql;     ///< what to run for it, "" if there is none
};

/// @returns a finding for all that was looked at, in the order in which one reads it.
std::vector<Finding> doctor_findings(const DoctorFacts& facts);

/// @returns whether something is wrong: a warning or a problem.
bool something_is_wrong(const std::vector<Finding>& findings);

}  // namespace psycache::cli
