// Any rows as the answer to a statement of several calls: each call gets one answer, and its own.

#include <libpq-fe.h>

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "fuzz/group_calls.hpp"
#include "pg/parameters.hpp"
#include "values/json_codec.hpp"

using namespace psycache;
using namespace psycache::detail;
using psycache::fuzz::Input;
using psycache::fuzz::require;

namespace {

/// A row as the server would send it; no value is NULL.
using Row = std::vector<std::optional<std::string>>;

/// What lies in a column that no row has: libpq reads it as empty.
std::string cell(const Row& row, std::size_t column) {
    return column < row.size() ? row[column].value_or("") : "";
}

std::optional<std::string> cell_of(Input& input) {
    switch (input.below(5)) {
        case 0:
            return std::nullopt;
        case 1:
            return std::string(7, '\0') + static_cast<char>(input.below(8));
        case 2:
            return std::string("\x01{\"n\":") + std::to_string(input.byte()) + "}";
        case 3:
            return fuzz::key_of(input);
        default:
            return std::string(input.text());
    }
}

std::vector<Row> rows_of(Input& input, std::size_t columns) {
    std::vector<Row> rows(input.below(7));
    for (Row& row : rows) {
        for (std::size_t i = 0; i < columns; ++i) {
            row.push_back(cell_of(input));
        }
    }
    return rows;
}

pg::Rows result_of(const std::vector<Row>& rows, std::size_t columns) {
    PGresult* const result = PQmakeEmptyPGresult(nullptr, PGRES_TUPLES_OK);
    std::string name = "column";
    PGresAttDesc description{};
    description.name = name.data();
    description.format = 1;
    std::vector<PGresAttDesc> descriptions(columns, description);
    PQsetResultAttrs(result, static_cast<int>(columns), descriptions.data());
    for (std::size_t r = 0; r < rows.size(); ++r) {
        for (std::size_t c = 0; c < columns; ++c) {
            std::string text = rows[r][c].value_or("");
            PQsetvalue(result, static_cast<int>(r), static_cast<int>(c), text.data(),
                       rows[r][c] ? static_cast<int>(text.size()) : -1);
        }
    }
    return pg::Rows(pg::ResultHandle(result));
}

/// Which key's value is in which row, as the statement for gets of several calls has it.
std::map<std::string, std::string> values_by_key(const Calls& calls, const std::vector<Row>& rows) {
    std::set<std::string> keys;
    for (const auto& call : calls) {
        keys.insert(call->key);
    }
    const std::vector<std::string> sorted(keys.begin(), keys.end());
    std::map<std::string, std::string> values;
    for (const Row& row : rows) {
        const std::size_t first = calls.size() == 1 ? 0 : 1;
        const std::int64_t place = first == 0 ? 1 : pg::read_integer(cell(row, 0));
        if (place >= 1 && place <= static_cast<std::int64_t>(sorted.size())) {
            values.emplace(sorted[static_cast<std::size_t>(place) - 1], cell(row, first));
        }
    }
    return values;
}

void check_get(const GetCall& call, const std::map<std::string, std::string>& values) {
    const bool answered = !call.failure().code;
    const auto value = values.find(call.key);
    if (value == values.end()) {
        require(answered && !call.value && !call.text, "a key without a row is a miss");
    } else if (call.wanted == Wanted::text) {
        const bool known = value->second.starts_with('\x01');
        require(known == answered, "a text needs the known version");
        require(!known || call.text == value->second.substr(1), "a text is that of its row");
    } else {
        const auto read = decode_jsonb(value->second);
        require((read && read->is_object()) == answered, "an object is read or refused");
        require(!answered || call.value == *read, "an object is that of its row");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    const Operations operations(std::nullopt, input.flag(), std::chrono::seconds(5));
    const Calls calls = fuzz::calls_of(input, operations);
    const std::size_t columns = input.below(5);
    const std::vector<Row> rows = rows_of(input, columns);

    fuzz::answer(calls, result_of(rows, columns));
    const auto values =
        columns > 0 ? values_by_key(calls, rows) : std::map<std::string, std::string>();
    std::set<std::string> removed;
    for (const auto& call : calls) {
        if (const auto* get = dynamic_cast<const GetCall*>(call.get())) {
            if (columns > 0 || rows.empty()) {
                check_get(*get, values);
            }
        } else if (const auto* remove = dynamic_cast<const RemoveCall*>(call.get())) {
            require(!remove->existed || removed.insert(remove->key).second,
                    "an entry is removed by one call only");
        }
    }
    return 0;
}
