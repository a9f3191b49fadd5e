#pragma once

/// @file
/// How RapidCheck's properties are checked in a Catch2 test.

#include <rapidcheck.h>

#include <rapidcheck/detail/Configuration.h>
#include <catch2/catch.hpp>
#include <sstream>
#include <string>
#include <utility>

namespace psycache::test {

/// Checks a property with @p cases random inputs.
///
/// RC_PARAMS="seed=..." repeats a run; RC_PARAMS="max_success=1000" makes ten times as many.
template <class Property>
void check_property(const std::string& description, int cases, Property&& property) {
    rc::detail::TestParams params = rc::detail::configuration().testParams;
    params.maxSuccess = params.maxSuccess * cases / 100;
    rc::detail::TestMetadata metadata;
    metadata.description = description;
    const auto result =
        rc::detail::checkTestable(std::forward<Property>(property), metadata, params);
    std::ostringstream told;
    rc::detail::printResultMessage(result, told);
    INFO(description << "\nRC_PARAMS=\"seed=" << params.seed << "\"\n" << told.str());
    CHECK(result.template is<rc::detail::SuccessResult>());
}

}  // namespace psycache::test
