// Spans as Sentry's SDK sends them: every test reads them in the envelopes.

#include <sentry.h>

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <filesystem>
#include <future>
#include <psycache/instrumentation/sentry.hpp>
#include <set>
#include <thread>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A span in an envelope.
struct SentSpan {
    std::string op;
    std::string description;
    std::string status;
    json::object data;
    std::string id;
    std::string parent;
    std::string trace;
};

/// A transaction in an envelope.
struct SentTransaction {
    std::string name;
    std::string id;
    std::string trace;
    std::vector<SentSpan> spans;

    /// The only span of this op.
    const SentSpan& span(std::string_view op) const {
        const SentSpan* found = nullptr;
        for (const auto& span : spans) {
            if (span.op == op) {
                REQUIRE(found == nullptr);
                found = &span;
            }
        }
        REQUIRE(found != nullptr);
        return *found;
    }
};

std::string text(const json::object& object, std::string_view name) {
    const auto* value = object.if_contains(name);
    return value != nullptr && value->is_string() ? std::string(value->as_string()) : "<none>";
}

/// The real SDK with a transport that keeps envelopes. One at a time.
class Sdk {
  public:
    explicit Sdk(std::size_t max_spans = 10000, double sample_rate = 1)
        : folder_(std::filesystem::temp_directory_path() / unique_name("sentry")) {
        std::filesystem::create_directory(folder_);
        sentry_options_t* options = sentry_options_new();
        sentry_options_set_dsn(options, "https://key@sentry.invalid/1");
        sentry_options_set_database_path(options, (folder_ / "database").c_str());
        sentry_options_set_traces_sample_rate(options, sample_rate);
        sentry_options_set_max_spans(options, max_spans);
        sentry_options_set_auto_session_tracking(options, 0);
        sentry_options_set_debug(options, 0);  // a debug build of the SDK is talkative otherwise
        sentry_transport_t* transport = sentry_transport_new(&Sdk::keep);
        sentry_transport_set_state(transport, &envelopes_);
        sentry_options_set_transport(options, transport);
        REQUIRE(sentry_init(options) == 0);
    }
    Sdk(const Sdk&) = delete;
    Sdk& operator=(const Sdk&) = delete;
    ~Sdk() {
        sentry_close();
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }

    /// Starts a transaction.
    sentry_transaction_t* transaction(const std::string& name = "request") const {
        return sentry_transaction_start(sentry_transaction_context_new(name.c_str(), "http.server"),
                                        sentry_value_new_null());
    }

    /// What has been sent; every span in it has begun and ended.
    std::vector<SentTransaction> sent() const {
        std::vector<SentTransaction> transactions;
        for (const auto& envelope : envelopes_.lines()) {
            std::size_t at = end_of_line(envelope, 0);
            while (at < envelope.size()) {
                const auto end = end_of_line(envelope, at);
                const auto header = object(std::string_view(envelope).substr(at, end - at));
                const auto length = header.at("length").to_number<std::size_t>();
                if (text(header, "type") == "transaction") {
                    transactions.push_back(
                        read(object(std::string_view(envelope).substr(end, length))));
                }
                at = end + length + 1;
            }
        }
        return transactions;
    }

    /// The only transaction that has been sent.
    SentTransaction only() const {
        auto transactions = sent();
        REQUIRE(transactions.size() == 1);
        return std::move(transactions.front());
    }

  private:
    static void keep(sentry_envelope_t* envelope, void* state) {
        std::size_t size = 0;
        char* bytes = sentry_envelope_serialize(envelope, &size);
        static_cast<Journal*>(state)->write(std::string(bytes, size));
        sentry_free(bytes);
        sentry_envelope_free(envelope);
    }

    static std::size_t end_of_line(const std::string& envelope, std::size_t at) {
        const auto end = envelope.find('\n', at);
        return end == std::string::npos ? envelope.size() : end + 1;
    }

    static SentTransaction read(const json::object& event) {
        const auto& trace = event.at("contexts").at("trace").as_object();
        SentTransaction transaction;
        transaction.name = text(event, "transaction");
        transaction.id = text(trace, "span_id");
        transaction.trace = text(trace, "trace_id");
        const auto* spans = event.if_contains("spans");
        if (spans == nullptr) {
            return transaction;
        }
        for (const auto& value : spans->as_array()) {
            const auto& span = value.as_object();
            CHECK(text(span, "start_timestamp") <= text(span, "timestamp"));
            CHECK(text(span, "timestamp").find('T') != std::string::npos);
            SentSpan sent_span;
            sent_span.op = text(span, "op");
            sent_span.description = text(span, "description");
            sent_span.status = text(span, "status");
            sent_span.id = text(span, "span_id");
            sent_span.parent = text(span, "parent_span_id");
            sent_span.trace = text(span, "trace_id");
            if (const auto* data = span.if_contains("data")) {
                sent_span.data = data->as_object();
            }
            transaction.spans.push_back(std::move(sent_span));
        }
        return transaction;
    }

    std::filesystem::path folder_;
    Journal envelopes_;
};

CacheOptions with_sentry(const TestSchema& schema,
                         std::shared_ptr<CacheInstrumentation> instrumentation) {
    auto options = schema.cache_options();
    options.instrumentations.push_back(std::move(instrumentation));
    return options;
}

/// All calls are spans of @p parent.
std::shared_ptr<SentryInstrumentation> under(SentryParent parent) {
    return std::make_shared<SentryInstrumentation>([parent] { return parent; });
}

json::object data_of(std::string_view json_text) {
    return object(json_text);
}

const char* const failed = R"({"cache.key": ["key"], "cache.success": false})";

}  // namespace

TEST_CASE("Every operation is a span with its op, description, data and status") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    const auto cache = make_cache(flavour, with_sentry(schema, under(transaction)), server_pool());

    cache->put("key", numbered(1), 1h);
    const auto size = schema.sql().number("SELECT pg_column_size(value) FROM " + schema.table());
    cache->get("key");
    cache->get("absent");
    cache->remove("key");
    cache->remove("key");
    schema.insert_many("row", 7, "'infinity'");
    cache->flush();
    sentry_transaction_finish(transaction);

    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == 6);
    for (const auto& span : sent.spans) {
        CHECK(span.status == "ok");
        CHECK(span.trace == sent.trace);
        CHECK(span.parent == sent.id);
    }
    const auto& put = sent.spans[0];
    CHECK(put.op == "cache.put");
    CHECK(put.description == "psycache put");
    const auto put_size = put.data.at("cache.item_size").to_number<std::int64_t>();
    CHECK(put_size >= size);
    CHECK(put_size <= size + 8);  // see "A hit and a put are told the stored size"
    json::object expected = data_of(R"({"cache.key": ["key"], "cache.success": true})");
    expected["cache.item_size"] = put_size;
    CHECK(put.data == expected);

    const auto& hit = sent.spans[1];
    CHECK(hit.op == "cache.get");
    CHECK(hit.description == "psycache get");
    expected["cache.hit"] = true;
    expected["cache.item_size"] = size;
    CHECK(hit.data == expected);

    const auto& miss = sent.spans[2];
    CHECK(miss.op == "cache.get");
    CHECK(miss.description == "psycache get");
    CHECK(miss.data ==
          data_of(R"({"cache.key": ["absent"], "cache.hit": false, "cache.success": true})"));

    for (const auto i : {3u, 4u}) {
        CHECK(sent.spans[i].op == "cache.remove");
        CHECK(sent.spans[i].description == "psycache remove");
        CHECK(sent.spans[i].data == data_of(R"({"cache.key": ["key"], "cache.success": true})"));
    }
    CHECK(sent.spans[5].op == "cache.flush");
    CHECK(sent.spans[5].description == "psycache flush");
    CHECK(sent.spans[5].data == data_of(R"({"cache.num_flushed": 7, "cache.success": true})"));
}

TEST_CASE("A call of many keys is one span with all of them") {
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    PostgresCache cache(server_pool(), with_sentry(schema, under(transaction)));
    cache.put_raw_many({{"a", numbered(1), 1h}, {"b", numbered(2), 1h}});
    const auto size =
        schema.sql().number("SELECT sum(pg_column_size(value)) FROM " + schema.table());
    cache.get_raw_many({"a", "absent", "b", "none"});
    cache.get_raw_many({"absent", "none"});
    cache.remove_many({"a", "b"});
    sentry_transaction_finish(transaction);

    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == 4);
    CHECK(sent.spans[0].op == "cache.put");
    CHECK(sent.spans[0].data.at("cache.key") == json::array({"a", "b"}));
    json::object found = data_of(
        R"({"cache.key": ["a", "absent", "b", "none"], "cache.hit": true, "cache.success": true})");
    found["cache.item_size"] = size;
    CHECK(sent.spans[1].data == found);
    CHECK(sent.spans[2].data.at("cache.hit") == false);
    CHECK(sent.spans[3].op == "cache.remove");
    CHECK(sent.spans[3].data == data_of(R"({"cache.key": ["a", "b"], "cache.success": true})"));
}

TEST_CASE("Of many keys a span has the first, and how many more there are") {
    TestSchema schema;
    const Sdk sdk;
    auto* const transaction = sdk.transaction();
    PostgresCache cache(server_pool(), with_sentry(schema, under(transaction)));
    std::vector<std::string> keys;
    for (int i = 0; i < 1500; ++i) {
        keys.push_back("key" + std::to_string(i));
    }
    cache.get_raw_many(keys);
    sentry_transaction_finish(transaction);

    const auto sent = sdk.only();
    const auto& data = sent.span("cache.get").data;
    const auto& shown = data.at("cache.key").as_array();
    REQUIRE(shown.size() == 20);
    CHECK(shown.front() == "key0");
    CHECK(shown.back() == "key19");
    CHECK(data.at("cache.more_keys") == 1480);
}

TEST_CASE("Spans hold no keys where SentryOptions says so") {
    TestSchema schema;
    const Sdk sdk;
    auto* const transaction = sdk.transaction();
    SentryOptions options;
    options.keys = false;
    const auto sentry =
        std::make_shared<SentryInstrumentation>([&] { return SentryParent(transaction); }, options);
    PostgresCache cache(server_pool(), with_sentry(schema, sentry));
    cache.get_raw("secret");
    cache.get_raw_many(std::vector<std::string>(30, "secret"));
    sentry_transaction_finish(transaction);

    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == 2);
    for (const auto& span : sent.spans) {
        CHECK(span.data == data_of(R"({"cache.hit": false, "cache.success": true})"));
    }
}

TEST_CASE("Calls nest under the transaction or the span that the function names") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    auto* request = sentry_transaction_start_child(transaction, "http.handler", "GET /user");
    const auto parent = [&](const SpanInfo& info) -> SentryParent {
        if (info.keys.empty() || info.keys[0] == "of the transaction") {
            return transaction;
        }
        return request;
    };
    const auto cache =
        make_cache(flavour, with_sentry(schema, std::make_shared<SentryInstrumentation>(parent)),
                   server_pool());
    cache->put("of the span", numbered(1), 1h);
    cache->get("of the transaction");
    cache->flush();
    sentry_span_finish(request);
    sentry_transaction_finish(transaction);

    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == 4);
    CHECK(sent.span("http.handler").parent == sent.id);
    CHECK(sent.span("cache.put").parent == sent.span("http.handler").id);
    CHECK(sent.span("cache.get").parent == sent.id);
    CHECK(sent.span("cache.flush").parent == sent.id);
    std::set<std::string> ids;
    for (const auto& span : sent.spans) {
        CHECK(span.trace == sent.trace);
        ids.insert(span.id);
    }
    CHECK(ids.size() == 4);
}

TEST_CASE("The name given to a call is the description of its span") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    const auto cache = make_cache(flavour, with_sentry(schema, under(transaction)), server_pool());
    cache->put("key", numbered(1), 1h, "store \"user\"");
    cache->get("key", "load \xC3\xA9");
    sentry_transaction_finish(transaction);
    const auto sent = sdk.only();
    CHECK(sent.span("cache.put").description == "store \"user\"");
    CHECK(sent.span("cache.get").description == "load \xC3\xA9");
}

TEST_CASE("Cleanup has no span") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    schema.insert_many("expired", 3, "'-infinity'");
    Sdk sdk;
    auto* transaction = sdk.transaction();
    const auto cache = make_cache(flavour, with_sentry(schema, under(transaction)), server_pool());
    CHECK(cache->cleanup() == 3);
    sentry_transaction_finish(transaction);
    CHECK(sdk.only().spans.empty());
}

TEST_CASE("A call that fails has a span with the status of its error") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    Sdk sdk;
    auto* transaction = sdk.transaction();
    const auto cache = make_cache(flavour, with_sentry(schema, under(transaction)), server_pool());
    CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::table_missing);
    CHECK(failure_of([&] { cache->put("key", numbered(1), 1h); }).code() == Errc::table_missing);
    CHECK(failure_of([&] { cache->remove("key"); }).code() == Errc::table_missing);
    CHECK(failure_of([&] { cache->flush(); }).code() == Errc::table_missing);
    sentry_transaction_finish(transaction);

    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == 4);
    for (const auto& span : sent.spans) {
        CAPTURE(span.op);
        CHECK(span.status == "invalid_argument");
        CHECK(span.data ==
              data_of(span.op == "cache.flush" ? R"({"cache.success": false})" : failed));
    }
}

TEST_CASE("A miss for an outage has a span that says unavailable") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    Sdk sdk;
    auto* transaction = sdk.transaction();
    auto options = with_sentry(schema, under(transaction));
    options.on_outage = OnOutage::miss;
    PoolOptions pool;
    pool.dsn = "host=127.0.0.1 port=1 user=x dbname=x";
    pool.connect_timeout = 1s;
    const auto cache = make_cache(flavour, options, pool);
    CHECK(cache->get("key") == std::nullopt);
    sentry_transaction_finish(transaction);
    CHECK(sdk.only().span("cache.get").status == "unavailable");
    CHECK(sdk.only().span("cache.get").data == data_of(failed));
}

TEST_CASE("Every kind of error has its status, and a call that never ended is cancelled") {
    Sdk sdk;
    auto* transaction = sdk.transaction();
    const auto instrumentation = under(transaction);
    const std::vector<std::pair<boost::system::error_code, std::string>> cases = {
        {asio::error::operation_aborted, "cancelled"},
        {Errc::permission_denied, "permission_denied"},
        {Errc::authentication_failed, "unauthenticated"},
        {Errc::timed_out, "deadline_exceeded"},
        {Errc::acquire_timed_out, "deadline_exceeded"},
        {Errc::outcome_unknown, "unknown"},
        {Errc::connect_failed, "unavailable"},
        {Errc::connection_lost, "unavailable"},
        {Errc::invalid_key, "invalid_argument"},
        {Errc::table_missing, "invalid_argument"},
        {Errc::queue_full, "aborted"},
        {sqlstate_code("40001"), "aborted"},
        {Errc::protocol_error, "internal_error"},
        {sqlstate_code("XX000"), "internal_error"}};
    const std::string_view keys[] = {"key"};
    const SpanInfo info{keys, {}};
    for (const auto& [code, status] : cases) {
        instrumentation->start_cache_get_span(info)->record_error(code);
    }
    instrumentation->start_cache_get_span(info).reset();
    sentry_transaction_finish(transaction);

    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == cases.size() + 1);
    for (std::size_t i = 0; i < cases.size(); ++i) {
        CAPTURE(cases[i].first.message());
        CHECK(sent.spans[i].status == cases[i].second);
        CHECK(sent.spans[i].data == data_of(failed));
    }
    CHECK(sent.spans.back().status == "cancelled");
    CHECK(sent.spans.back().data == data_of(failed));
}

TEST_CASE("Sizes and counts beyond 32 bits are sent as they are") {
    Sdk sdk;
    auto* transaction = sdk.transaction();
    const auto instrumentation = under(transaction);
    instrumentation->start_cache_flush_span()->record_flush(std::uint64_t{1} << 40);
    instrumentation->start_cache_put_span({})->record_put(std::size_t{5000000000});
    sentry_transaction_finish(transaction);
    const auto sent = sdk.only();
    CHECK(sent.span("cache.flush").data ==
          data_of(R"({"cache.num_flushed": 1099511627776, "cache.success": true})"));
    CHECK(sent.span("cache.put").data ==
          data_of(R"({"cache.item_size": 5000000000, "cache.success": true})"));
}

TEST_CASE("A call that times out and one that is cancelled say so") {
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    asio::io_context context;
    auto options = with_sentry(schema, under(transaction));
    options.timeout = 300ms;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        TableLock lock(schema);
        auto cancelled = start(context.get_executor(), cache.get_raw("key"));
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        cancelled.cancel();
        const auto cancellation = co_await cancelled.failure();
        CHECK(cancellation.code() == asio::error::operation_aborted);
        const auto failure = co_await failure_of(cache.put_raw("key", numbered(1), 1h));
        CHECK(failure.code() == Errc::timed_out);
        lock.release();
    });
    sentry_transaction_finish(transaction);

    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == 2);
    CHECK(sent.span("cache.get").status == "cancelled");
    CHECK(sent.span("cache.get").data == data_of(failed));
    CHECK(sent.span("cache.put").status == "deadline_exceeded");
    CHECK(sent.span("cache.put").data == data_of(failed));
}

TEST_CASE("A blocking call that times out says so") {
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    auto options = with_sentry(schema, under(transaction));
    options.timeout = 300ms;
    PostgresCache cache(server_pool(), options);
    TableLock lock(schema);
    CHECK(failure_of([&] { cache.remove("key"); }).code() == Errc::timed_out);
    lock.release();
    sentry_transaction_finish(transaction);
    CHECK(sdk.only().span("cache.remove").status == "deadline_exceeded");
    CHECK(sdk.only().span("cache.remove").data == data_of(failed));
}

TEST_CASE("Calls merged into one statement have a span each, with their own key") {
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1),
                             with_sentry(schema, under(transaction)));
    constexpr int calls = 64;
    run_coro(context, [&]() -> asio::awaitable<void> {
        std::vector<Started<std::optional<json::object>>> gets;
        for (int i = 0; i < calls; ++i) {
            gets.push_back(start(context.get_executor(), cache.get_raw("key" + std::to_string(i))));
        }
        for (auto& get : gets) {
            co_await get.get();
        }
    });
    CHECK(cache.statistics().statements < calls / 4);
    sentry_transaction_finish(transaction);

    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == calls);
    std::set<std::string> keys;
    for (const auto& span : sent.spans) {
        CHECK(span.op == "cache.get");
        CHECK(span.status == "ok");
        CHECK(span.parent == sent.id);
        CHECK(span.data.size() == 3);
        CHECK(span.data.at("cache.hit") == false);
        const auto& key = span.data.at("cache.key").as_array();
        REQUIRE(key.size() == 1);
        keys.insert(std::string(key[0].as_string()));
    }
    CHECK(keys.size() == calls);
}

TEST_CASE("Four threads lose no span of one transaction") {
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    constexpr std::size_t users = 16;
    constexpr std::size_t rounds = 25;
    {
        Threads threads(4);
        AsyncPostgresCache cache(threads.context().get_executor(), server_pool(),
                                 with_sentry(schema, under(transaction)));
        std::vector<std::future<void>> ends;
        for (std::size_t user = 0; user < users; ++user) {
            ends.push_back(threads.spawn([&, user]() -> asio::awaitable<void> {
                const std::string key = std::to_string(user);
                for (std::size_t i = 0; i < rounds; ++i) {
                    co_await cache.put_raw(key, numbered(1), 1h);
                    co_await cache.get_raw(key);
                    co_await cache.remove(key);
                }
            }));
        }
        for (auto& end : ends) {
            REQUIRE(end.wait_for(patience) == std::future_status::ready);
            CHECK_NOTHROW(end.get());
        }
    }
    sentry_transaction_finish(transaction);

    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == users * rounds * 3);
    std::set<std::string> ids;
    std::size_t hits = 0;
    for (const auto& span : sent.spans) {
        ids.insert(span.id);
        CHECK(span.status == "ok");
        hits += span.op == "cache.get" && span.data.at("cache.hit") == true ? 1 : 0;
    }
    CHECK(ids.size() == sent.spans.size());
    CHECK(hits == users * rounds);
}

TEST_CASE("Four threads with a blocking cache lose no span of one transaction") {
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    // Two providers: all of them take turns, not just the calls of one.
    PostgresCache cache(server_pool(), with_sentry(schema, under(transaction)));
    PostgresCache other(server_pool(), with_sentry(schema, under(transaction)));
    constexpr std::size_t rounds = 50;
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&, thread] {
            try {
                const std::string key = std::to_string(thread);
                for (std::size_t i = 0; i < rounds; ++i) {
                    cache.put_raw(key, numbered(1), 1h);
                    wrong += other.get_raw(key) == numbered(1) ? 0 : 1;
                }
            } catch (const std::exception&) {
                ++wrong;
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(wrong == 0);
    sentry_transaction_finish(transaction);
    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == 4 * rounds * 2);
    for (const auto& span : sent.spans) {
        CHECK(span.status == "ok");
    }
}

TEST_CASE("What a coroutine sets right before a call is what the function reads") {
    TestSchema schema;
    Sdk sdk;
    Threads threads(4);
    static thread_local sentry_transaction_t* current = nullptr;
    const auto instrumentation = std::make_shared<SentryInstrumentation>([] { return current; });
    AsyncPostgresCache cache(threads.context().get_executor(), server_pool(),
                             with_sentry(schema, instrumentation));
    constexpr std::size_t requests = 8;
    constexpr std::size_t rounds = 10;
    std::vector<std::future<void>> ends;
    for (std::size_t request = 0; request < requests; ++request) {
        ends.push_back(threads.spawn([&, request]() -> asio::awaitable<void> {
            const std::string key = std::to_string(request);
            sentry_transaction_t* const mine = sdk.transaction(key);
            for (std::size_t i = 0; i < rounds; ++i) {
                current = mine;
                co_await cache.get_raw(key);
            }
            sentry_transaction_finish(mine);
        }));
    }
    for (auto& end : ends) {
        REQUIRE(end.wait_for(patience) == std::future_status::ready);
        CHECK_NOTHROW(end.get());
    }
    const auto sent = sdk.sent();
    REQUIRE(sent.size() == requests);
    for (const auto& transaction : sent) {
        CHECK(transaction.spans.size() == rounds);
        for (const auto& span : transaction.spans) {
            CHECK(span.data.at("cache.key") == json::array{transaction.name});
        }
    }
}

TEST_CASE("A call whose parent is nothing or null has no span") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    const SentryParent parent =
        GENERATE(SentryParent(), SentryParent(static_cast<sentry_transaction_t*>(nullptr)),
                 SentryParent(static_cast<sentry_span_t*>(nullptr)));
    const auto cache = make_cache(flavour, with_sentry(schema, under(parent)), server_pool());
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->remove("key"));
    CHECK(cache->flush() == 0);
    sentry_transaction_finish(transaction);
    CHECK(sdk.only().spans.empty());
}

TEST_CASE("A transaction that is finished before its call does no harm") {
    const bool under_span = GENERATE(false, true);
    CAPTURE(under_span);
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    auto* request = sentry_transaction_start_child(transaction, "http.handler", "GET /user");
    SentryParent parent = transaction;
    if (under_span) {
        parent = request;
    }
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(),
                             with_sentry(schema, under(parent)));
    run_coro(context, [&]() -> asio::awaitable<void> {
        TableLock lock(schema);
        auto call = start(context.get_executor(), cache.get_raw("key"));
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        sentry_span_finish(request);
        sentry_transaction_finish(transaction);
        lock.release();
        const auto value = co_await call.get();
        CHECK(value == std::nullopt);
    });
    const auto sent = sdk.only();
    CHECK(sent.spans.size() == 1);
    CHECK(sent.span("http.handler").parent == sent.id);
}

TEST_CASE("A span may end after the SDK was closed") {
    const std::string_view keys[] = {"key"};
    std::unique_ptr<CacheGetSpan> span;
    {
        Sdk sdk;
        auto* transaction = sdk.transaction();
        span = under(transaction)->start_cache_get_span({keys, {}});
        REQUIRE(span != nullptr);
        sentry_transaction_finish(transaction);
        CHECK(sdk.only().spans.empty());
    }
    span->record_cache_hit(5);
    span.reset();
}

TEST_CASE("Spans of a transaction that is not sampled, or full, are left out") {
    TestSchema schema;
    const bool full = GENERATE(false, true);
    Sdk sdk(full ? 2 : 10000, full ? 1 : 0);
    auto* transaction = sdk.transaction();
    PostgresCache cache(server_pool(), with_sentry(schema, under(transaction)));
    for (int i = 0; i < 5; ++i) {
        cache.put_raw("key", numbered(i), 1h);
        CHECK(cache.get_raw("key") == numbered(i));
    }
    sentry_transaction_finish(transaction);
    if (full) {
        CHECK(sdk.only().spans.size() == 2);
    } else {
        CHECK(sdk.sent().empty());
    }
}

TEST_CASE("A function that throws costs the call its span only, and is logged once") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    LogCapture log;
    bool fails = true;
    const auto parent = [&]() -> SentryParent {
        if (fails) {
            throw std::runtime_error("no request is known");
        }
        return transaction;
    };
    auto options = with_sentry(schema, std::make_shared<SentryInstrumentation>(parent));
    options.log = log.sink();
    const auto cache = make_cache(flavour, options, server_pool());
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->remove("key"));
    CHECK(cache->flush() == 0);
    CHECK(log.journal().lines().size() == 1);
    fails = false;
    cache->get("key");
    sentry_transaction_finish(transaction);
    CHECK(sdk.only().spans.size() == 1);
    CHECK(log.journal().lines().size() == 1);
}

TEST_CASE("Whatever the bytes of a key and a name, the envelope is JSON") {
    TestSchema schema;
    Sdk sdk;
    auto* transaction = sdk.transaction();
    PostgresCache cache(server_pool(), with_sentry(schema, under(transaction)));
    const std::string good = "\" \\ \n \x01 \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 \xED\x9F\xBF";
    CHECK(cache.get_raw(good, good) == std::nullopt);
    const std::vector<std::string> bad = {"\xFF",
                                          "a\xC3",
                                          "\xC0\x80 b",
                                          "\xED\xA0\x80",
                                          "\xF4\x90\x80\x80",
                                          "\xE2\x82z",
                                          std::string("\xC3\xA9\x80", 3)};
    for (const auto& key : bad) {
        CHECK(failure_of([&] { cache.get_raw(key, key); }).code() == Errc::invalid_key);
    }
    CHECK(failure_of([&] { cache.get_raw(std::string(100000, 'x')); }).code() == Errc::invalid_key);
    sentry_transaction_finish(transaction);

    const std::string r = "\xEF\xBF\xBD";  // U+FFFD
    const std::vector<std::string> repaired = {
        r, "a" + r, r + r + " b", r + r + r, r + r + r + r, r + r + "z", "\xC3\xA9" + r};
    const auto sent = sdk.only();
    REQUIRE(sent.spans.size() == 1 + bad.size() + 1);
    CHECK(sent.spans[0].description == good);
    CHECK(sent.spans[0].data.at("cache.key") == json::array{good});
    for (std::size_t i = 0; i < bad.size(); ++i) {
        CHECK(sent.spans[i + 1].description == repaired[i]);
        CHECK(sent.spans[i + 1].data.at("cache.key") == json::array{repaired[i]});
        CHECK(sent.spans[i + 1].status == "invalid_argument");
    }
    CHECK(sent.spans.back().data.at("cache.key") == json::array{std::string(max_key_size, 'x')});
}

TEST_CASE("A SentryInstrumentation takes functions with and without parameter, no empty ones") {
    struct Both {
        SentryParent operator()() const { return {}; }
        SentryParent operator()(const SpanInfo&) const { return {}; }
    };
    CHECK_NOTHROW(SentryInstrumentation([] { return SentryParent(); }));
    CHECK_NOTHROW(SentryInstrumentation([](const SpanInfo&) { return SentryParent(); }));
    CHECK_NOTHROW(SentryInstrumentation([](SpanInfo) -> sentry_span_t* { return nullptr; }));
    CHECK_NOTHROW(SentryInstrumentation([](auto&&...) { return SentryParent(); }));
    CHECK_NOTHROW(SentryInstrumentation(Both()));
    const auto refused = Catch::Contains("parent");
    CHECK_THROWS_WITH(SentryInstrumentation(nullptr), refused);
    CHECK_THROWS_AS(SentryInstrumentation(nullptr), std::invalid_argument);
    CHECK_THROWS_AS(SentryInstrumentation(SentryInstrumentation::ParentFunction()),
                    std::invalid_argument);
    CHECK_THROWS_AS(SentryInstrumentation(std::function<SentryParent()>()), std::invalid_argument);
    CHECK_THROWS_AS(SentryInstrumentation(std::function<sentry_transaction_t*()>()),
                    std::invalid_argument);
    CHECK_THROWS_AS(SentryInstrumentation(static_cast<SentryParent (*)()>(nullptr)),
                    std::invalid_argument);
}
