// Keys, JSON text and names of schemas from anywhere: refused or made safe.

#include <string>

#include <psycache/async_postgres_cache.hpp>

#include "fuzz/fuzz.hpp"
#include "operations/checks.hpp"
#include "operations/get.hpp"
#include "support/storable.hpp"
#include "values/utf8.hpp"

using namespace psycache;
using namespace psycache::detail;
using psycache::fuzz::require;

namespace {

/// The name that PostgreSQL reads at the front of @p sql, and what follows it.
std::pair<std::string, std::string_view> read_quoted(std::string_view sql) {
    require(sql.starts_with('"'), "an identifier begins with a quote");
    std::string name;
    for (std::size_t i = 1; i < sql.size(); ++i) {
        if (sql[i] != '"') {
            name += sql[i];
        } else if (i + 1 < sql.size() && sql[i + 1] == '"') {
            name += sql[++i];
        } else {
            return {name, sql.substr(i + 1)};
        }
    }
    require(false, "an identifier ends with a quote");
    return {};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const bool storable = test::storable_text(text);
    require(is_storable_text(text) == storable, "exactly UTF-8 without NUL is text");

    const auto refused_key = detail::check_key(text);
    require(refused_key.has_value() == (!storable || size > max_key_size),
            "exactly short text is a key");
    require(!refused_key || refused_key->code == Errc::invalid_key, "else it is an invalid_key");
    const auto refused_lookup = detail::check_lookup_key(text);
    require(refused_lookup.has_value() == !storable, "any text can be looked up");
    require(!refused_lookup || refused_lookup->code == Errc::invalid_key,
            "else it is an invalid_key");

    const auto value = detail::jsonb_of_text(text);
    require(!value || (storable && *value == '\x01' + text), "text is passed on as it is");
    require(value || value.error().code == Errc::invalid_value, "else it is an invalid_value");

    const std::string table = table_name(text);
    const auto [schema, tail] = read_quoted(table);
    require(schema == text && tail == ".\"psycache\"", "any name of a schema is read as itself");
    const Table used(text, true, std::chrono::seconds(5));
    const Get get(used);
    const std::shared_ptr<Call> call =
        std::make_shared<GetCall>(get, "k", TimePoint(), Wanted::object);
    pg::Parameters parameters;
    const Group group(CallSpan(&call, 1));
    require(get.bind(group, parameters).sql.find(table) != std::string::npos, "and used in full");
    return 0;
}
