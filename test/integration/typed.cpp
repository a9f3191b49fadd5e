// Typed values: what Boost.JSON converts is stored and read as such, or the member that is wrong is
// named.

#include <boost/describe.hpp>
#include <catch2/catch.hpp>
#include <limits>
#include <map>
#include <tuple>
#include <variant>

#include "support/both.hpp"
#include "support/run_coro.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

enum class Colour { red, green };
BOOST_DESCRIBE_ENUM(Colour, red, green)

struct Address {
    std::string street;
    std::vector<int> floors;
    std::optional<double> height;
    friend bool operator==(const Address&, const Address&) = default;
};
BOOST_DESCRIBE_STRUCT(Address, (), (street, floors, height))

struct Person {
    std::string name;
    std::int64_t id = 0;
    Address address;
    Colour colour = Colour::red;
    std::map<std::string, bool> flags;
    std::tuple<int, std::string> pair;
    std::variant<std::int64_t, std::string> either;
    friend bool operator==(const Person&, const Person&) = default;
};
BOOST_DESCRIBE_STRUCT(Person, (), (name, id, address, colour, flags, pair, either))

/// Converts by hand, and refuses by throwing.
struct Even {
    int number = 0;
    friend bool operator==(const Even&, const Even&) = default;
};
void tag_invoke(json::value_from_tag, json::value& into, const Even& even) {
    if (even.number % 2 != 0) {
        throw std::domain_error("odd");
    }
    into = even.number;
}
Even tag_invoke(json::value_to_tag<Even>, const json::value& from) {
    Even even{json::value_to<int>(from)};
    if (even.number % 2 != 0) {
        throw std::domain_error("odd");
    }
    return even;
}

Person somebody() {
    Person person;
    person.name = "N\xC3\xA4me \"quoted\"";
    person.id = std::numeric_limits<std::int64_t>::max();
    person.address = Address{"Street", {1, 2}, 1.5};
    person.colour = Colour::green;
    person.flags = {{"a", true}, {"b", false}};
    person.pair = {7, "seven"};
    person.either = std::string("text");
    return person;
}

/// A blocking cache and one for coroutines, called alike.
class Both {
  public:
    explicit Both(const TestSchema& schema)
        : async_(context_.get_executor(), server_pool(), schema.cache_options()),
          blocking_(server_pool(), schema.cache_options()) {}

    template <class T>
    void put(bool async, const std::string& key, const T& value) {
        if (async) {
            run_coro(context_, async_.put(key, value, 1h));
        } else {
            blocking_.put(key, value, 1h);
        }
    }
    template <class T>
    std::optional<T> get(bool async, const std::string& key) {
        return async ? run_coro(context_, async_.get<T>(key)) : blocking_.get<T>(key);
    }
    template <class T>
    bool comes_back(const T& value) {
        for (const bool async : {true, false}) {
            put(async, "key", value);
            const auto back = get<T>(!async, "key");
            if (!back || !(*back == value)) {
                return false;
            }
        }
        return true;
    }
    /// @returns why a value that is stored cannot be read.
    template <class T>
    std::string wrong(TestSchema& schema, const std::string& stored) {
        schema.sql().exec("DELETE FROM " + schema.table());
        schema.insert("key", stored);
        std::string what;
        for (const bool async : {true, false}) {
            const Failure failure = failure_of([&] { get<T>(async, "key"); });
            CHECK(failure.code() == Errc::unreadable_value);
            what = failure.what();
            CHECK(what.starts_with("psycache: get: the stored value cannot be read"));
        }
        return what.substr(what.rfind(": ") + 2);
    }

    asio::io_context& context() { return context_; }
    AsyncPostgresCache& async() { return async_; }
    PostgresCache& blocking() { return blocking_; }

  private:
    asio::io_context context_;
    AsyncPostgresCache async_;
    PostgresCache blocking_;
};

}  // namespace

TEST_CASE("What Boost.JSON converts comes back as it was put") {
    TestSchema schema;
    Both caches(schema);
    CHECK(caches.comes_back(somebody()));
    CHECK(caches.comes_back(std::vector<Person>{somebody(), Person()}));
    CHECK(caches.comes_back(std::map<std::string, Address>{{"x", somebody().address}}));
    CHECK(caches.comes_back(Colour::green));
    CHECK(caches.comes_back(Even{4}));
    CHECK(caches.comes_back(std::string("text with \\ and \" and \n")));
    CHECK(caches.comes_back(std::string()));
    CHECK(caches.comes_back(std::numeric_limits<std::int64_t>::min()));
    CHECK(caches.comes_back(std::numeric_limits<std::uint64_t>::max()));
    CHECK(caches.comes_back(1.0));
    CHECK(caches.comes_back(0.1));
    CHECK(caches.comes_back(true));
    CHECK(caches.comes_back(std::optional<int>(3)));
    CHECK(caches.comes_back(std::optional<int>()));
    CHECK(caches.comes_back(json::value(nullptr)));
    CHECK(caches.comes_back(json::value{1, "two", nullptr, {{"three", 3}}}));
    CHECK(caches.comes_back(json::object{{"a", 1}}));
    CHECK(caches.comes_back(json::array{1, 2}));
    CHECK(schema.rows() == 1);
}

TEST_CASE("A text that is only looked at can be put") {
    TestSchema schema;
    Both caches(schema);
    for (const bool async : {true, false}) {
        caches.put(async, "literal", "text");
        caches.put(async, "view", std::string_view("text"));
        CHECK(caches.get<std::string>(async, "literal") == "text");
        CHECK(caches.get<std::string>(async, "view") == "text");
    }
}

TEST_CASE("A value of another shape is refused by the name of its member") {
    TestSchema schema;
    Both caches(schema);
    json::object good = json::value_from(somebody()).get_object();
    const auto with = [&](const char* member, json::value value) {
        json::object other = good;
        other[member] = std::move(value);
        return json::serialize(other);
    };
    const auto without = [&](const char* member) {
        json::object other = good;
        other.erase(member);
        return json::serialize(other);
    };
    const auto wrong = [&](const std::string& stored) {
        return caches.wrong<Person>(schema, stored);
    };
    CHECK(wrong("[]") == "it is no object");
    CHECK(wrong("3") == "it is no object");
    CHECK(wrong(without("id")) == "member 'id' is missing");
    CHECK(wrong(with("id", "secret")) == "member 'id' is no number");
    CHECK(wrong(with("id", 1.5)) == "member 'id' is a number that the type cannot hold");
    CHECK(wrong(with("name", 1)) == "member 'name' is no string");
    CHECK(wrong(with("colour", "blue")) == "member 'colour' names no enumerator of its type");
    CHECK(wrong(with("flags", {{"secret", 1}})) == "member 'flags.*' is no boolean");
    CHECK(wrong(with("pair", {1})) == "member 'pair' has another number of elements");
    CHECK(wrong(with("pair", {1, 2})) == "member 'pair[1]' is no string");
    CHECK(wrong(with("either", true)) ==
          "member 'either' was refused by the type's own conversion");
    CHECK(wrong(with("address", {{"street", "s"}, {"floors", {1, "x"}}, {"height", nullptr}})) ==
          "member 'address.floors[1]' is no number");
    CHECK(wrong(with("address", {{"street", "s"}, {"floors", 1}, {"height", nullptr}})) ==
          "member 'address.floors' is no array");
    CHECK(wrong(with("address", {{"street", "s"}, {"floors", {1}}, {"height", "x"}})) ==
          "member 'address.height' is no number");
    CHECK(caches.wrong<bool>(schema, "1") == "it is no boolean");
    CHECK(caches.wrong<Even>(schema, "3") == "it was refused by the type's own conversion");
    CHECK(caches.wrong<json::object>(schema, "[1]") == "it is JSON, but no object");
    // Numbers beyond what a double holds are no value of any type.
    CHECK(caches.wrong<json::value>(schema, "1e400").find("get_text") != std::string::npos);
    CHECK(caches.blocking().statistics().errors > 0);
    CHECK(caches.blocking().statistics().errors == caches.async().statistics().errors);
}

TEST_CASE("What a conversion throws comes out of put, and nothing is stored") {
    TestSchema schema;
    Both caches(schema);
    CHECK_THROWS_AS(caches.async().put("key", Even{3}, 1h), std::domain_error);
    CHECK_THROWS_AS(caches.blocking().put("key", Even{3}, 1h), std::domain_error);
    CHECK(failure_of([&] {
              caches.blocking().put("key", std::numeric_limits<double>::infinity(), 1h);
          }).code() == Errc::invalid_value);
    CHECK(schema.rows() == 0);
}

TEST_CASE("Callers who want one value in different ways each get it in theirs") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1), schema.cache_options());
    schema.insert("list", "[1, 2]");
    schema.insert("object", R"({"n": 1})");
    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto executor = co_await asio::this_coro::executor;
        auto raw = start(executor, cache.get_raw("list"));
        auto list = start(executor, cache.get<std::vector<int>>("list"));
        auto text = start(executor, cache.get_text("list"));
        auto number = start(executor, cache.get<int>("list"));
        auto value = start(executor, cache.get<json::value>("list"));
        auto object = start(executor, cache.get_raw("object"));
        auto absent = start(executor, cache.get<int>("absent"));
        const Failure no_object = co_await raw.failure();
        CHECK(no_object.code() == Errc::unreadable_value);
        const auto numbers = co_await list.get();
        CHECK(numbers == std::vector<int>{1, 2});
        const auto its_text = co_await text.get();
        CHECK(its_text == "[1, 2]");
        const Failure no_number = co_await number.failure();
        CHECK(no_number.code() == Errc::unreadable_value);
        const auto its_value = co_await value.get();
        CHECK(its_value == json::value{1, 2});
        const auto its_object = co_await object.get();
        CHECK(its_object == numbered(1));
        const auto nothing = co_await absent.get();
        CHECK_FALSE(nothing);
    });
}

TEST_CASE("Many typed values come back in the order of their keys") {
    TestSchema schema;
    Both caches(schema);
    std::vector<std::pair<std::string, Address>> entries;
    std::vector<std::string> keys;
    for (int i = 0; i < 300; ++i) {
        entries.emplace_back("key" + std::to_string(i), Address{"s", {i}, std::nullopt});
        keys.push_back(entries.back().first);
    }
    keys.push_back("absent");
    keys.push_back("key7");
    run_coro(caches.context(), caches.async().put_many(entries, 1h));
    const auto blocking = caches.blocking().get_many<Address>(keys);
    const auto async = run_coro(caches.context(), caches.async().get_many<Address>(keys));
    REQUIRE(blocking.size() == keys.size());
    CHECK(blocking == async);
    CHECK(blocking[299] == entries[299].second);
    CHECK(blocking[300] == std::nullopt);
    CHECK(blocking[301] == entries[7].second);
    CHECK(schema.rows() == 300);

    schema.sql().exec("UPDATE " + schema.table() + " SET value = '[]' WHERE key = 'key299'");
    const Failure failure = failure_of([&] { caches.blocking().get_many<Address>(keys); });
    CHECK(failure.code() == Errc::unreadable_value);
    CHECK(std::string(failure.what()).find("key 299: ") != std::string::npos);
    CHECK(failure_of([&] {
              caches.blocking().put_many<double>({{"a", 1}, {"b", std::nan("")}}, 1h);
          }).code() == Errc::invalid_value);
    CHECK_FALSE(schema.has("a"));
    CHECK(caches.blocking().get_many<int>({}).empty());
}
