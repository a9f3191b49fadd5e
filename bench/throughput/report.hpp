// The results, to read and to keep.
#pragma once

#include <boost/json/object.hpp>
#include <iosfwd>
#include <vector>

#include "throughput/summary.hpp"

namespace bench {

void print_table(std::ostream& out, const Results& results);
void print_bars(std::ostream& out, const std::vector<Bar>& bars);

/// Every sample of every round, and what they say together.
json::object to_json(const json::object& conditions, const Results& results,
                     const std::vector<Bar>& bars);

}  // namespace bench
