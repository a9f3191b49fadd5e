#include "operations/in_transaction.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace psycache;
using namespace psycache::detail;
using namespace std::chrono_literals;

namespace {

const TransactionStatements& statements() {
    static const TransactionStatements all("a \"schema\"", false);
    return all;
}

std::string parameter(const pg::Parameters& parameters, std::size_t number) {
    return {parameters.values()[number], static_cast<std::size_t>(parameters.lengths()[number])};
}

}  // namespace

TEST_CASE("No statement inside of a transaction sets or locks more than its rows") {
    for (const bool sizes : {false, true}) {
        const TransactionStatements all(std::nullopt, sizes);
        for (const auto* statement : {&all.get, &all.put, &all.put_tagged, &all.remove,
                                      &all.remove_prefix, &all.remove_tag}) {
            CAPTURE(statement->sql);
            CHECK(statement->sql.find("set_config") == std::string::npos);
            CHECK(statement->sql.find("advisory") == std::string::npos);
            CHECK(statement->sql.find(';') == std::string::npos);
        }
    }
    CHECK(statements().table.tags == "\"a \"\"schema\"\"\".\"psycache_tags\"");
}

TEST_CASE("The pattern of a prefix takes its letters for themselves") {
    pg::Parameters parameters;
    const RemovePrefixInside request("50%_a\\");
    CHECK(&request.bind(statements(), parameters) == &statements().remove_prefix);
    CHECK(parameter(parameters, 0) == "50\\%\\_a\\\\%");
    CHECK(RemovePrefixInside("").mistake()->code == Errc::invalid_key);
    CHECK(RemovePrefixInside("\xFF").mistake()->code == Errc::invalid_key);
    CHECK_FALSE(RemovePrefixInside("%").mistake());
}

TEST_CASE("A put inside of a transaction has each of its tags once, and none without tags") {
    pg::Parameters parameters;
    const PutRawInside plain("key", encode_jsonb(boost::json::object()), 1h, {});
    CHECK(&plain.bind(statements(), parameters) == &statements().put);
    CHECK(parameters.size() == 3);

    const PutRawInside tagged("key", encode_jsonb(boost::json::object()), 1h, {"b", "a", "b"});
    CHECK(tagged.tags == std::vector<std::string>{"a", "b"});
    pg::Parameters more;
    CHECK(&tagged.bind(statements(), more) == &statements().put_tagged);
    CHECK(more.size() == 4);
    for (const char* tag : {"", "\xFF"}) {
        CHECK(PutRawInside("key", encode_jsonb(boost::json::object()), 1h, {"good", tag})
                  .mistake()
                  ->code == Errc::invalid_tag);
    }
    CHECK(PutRawInside("key", encode_jsonb(boost::json::object()), 1h, {std::string(1025, 't')})
              .mistake());
    CHECK_FALSE(
        PutRawInside("key", encode_jsonb(boost::json::object()), 1h, {std::string(1024, 't')})
            .mistake());
    const std::string key(2000, 'k');
    CHECK_FALSE(PutRawInside(key, encode_jsonb(boost::json::object()), 1h, {std::string(680, 't')})
                    .mistake());
    CHECK(PutRawInside(key, encode_jsonb(boost::json::object()), 1h, {std::string(681, 't')})
              .mistake());
}
