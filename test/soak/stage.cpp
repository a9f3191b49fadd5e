#include "soak/stage.hpp"

#include <utility>

#include <psycache/error.hpp>

#include "soak/values.hpp"

namespace psycache::soak {

namespace {

using namespace std::chrono_literals;

PoolOptions pool_options(std::string dsn, std::size_t max_size) {
    PoolOptions options;
    options.dsn = std::move(dsn);
    options.max_size = max_size;
    return options;
}

std::string why_not(const std::string& key, const std::optional<json::object>& value) {
    const Stored stored = value ? read_value(*value) : Stored();
    return stored.intact && stored.key == key ? "" : "the value did not come back";
}

/// Texts rather than exceptions go to the other thread: ThreadSanitizer does not see how the
/// standard library counts the owners of an exception.
asio::awaitable<std::string> put_and_get(AsyncPostgresCache cache, std::string key) {
    std::string why;
    try {
        auto put = cache.put_raw(key, make_value(key, 1, 100), 1min);
        co_await std::move(put);
        auto get = cache.get_raw(key);
        const auto value = co_await std::move(get);
        why = why_not(key, value);
    } catch (const Error& error) {
        why = error.what();
    }
    co_return why;
}

CacheOptions cache_options(std::shared_ptr<CacheInstrumentation> spans, Duration timeout,
                           OnOutage on_outage = OnOutage::raise) {
    CacheOptions options;
    options.schema = Site::schema;
    options.timeout = timeout;
    options.maintenance_timeout = timeout;
    options.on_outage = on_outage;
    options.max_queued_calls = 2000;
    options.instrumentations.push_back(std::move(spans));
    return options;
}

}  // namespace

AsyncActor::AsyncActor(const std::string& name, test::Threads& its_threads,
                       AsyncPostgresCache its_cache, const CacheOptions& options)
    : subject(name, options.timeout, options.on_outage),
      threads(its_threads),
      cache(std::move(its_cache)) {
    subject.statistics = [this] { return cache.statistics(); };
    subject.pool_statistics = [this] { return cache.pool_statistics().value(); };
    subject.put_and_get = [this](const std::string& key) {
        return threads.run(soak::put_and_get(cache, key));
    };
}

BlockingActor::BlockingActor(const std::string& name, const PoolOptions& pool,
                             const CacheOptions& options)
    : subject(name, options.timeout, options.on_outage), cache(pool, options) {
    subject.statistics = [this] { return cache.statistics(); };
    subject.pool_statistics = [this] { return cache.pool_statistics().value(); };
    subject.put_and_get = [this](const std::string& key) {
        cache.put_raw(key, make_value(key, 1, 100), 1min);
        return why_not(key, cache.get_raw(key));
    };
}

Stage::Stage(const Site& site) : gate_(site.server().port()) {
    gate_.switch_on();
    const auto executor = threads_.context().get_executor();
    const auto other_executor = other_threads_.context().get_executor();
    const auto usual = cache_options(spans_, 2s);
    const auto impatient = cache_options(spans_, 100ms);
    const auto lenient = cache_options(spans_, 1s, OnOutage::miss);
    const auto add = [this](const char* name, test::Threads& threads, AsyncPostgresCache cache,
                            const CacheOptions& options) {
        async_actors_.push_back(
            std::make_unique<AsyncActor>(name, threads, std::move(cache), options));
    };

    auto shared_pool = pool_options(site.dsn("soak async"), 4);
    shared_pool.instrumentations.push_back(spans_);
    const auto pool = std::make_shared<ConnectionPool>(executor, shared_pool);
    add("async", threads_, AsyncPostgresCache(pool, usual), usual);
    add("impatient", threads_, AsyncPostgresCache(pool, impatient), impatient);

    auto changing = pool_options(site.dsn("soak other", gate_.port()), 2);
    changing.max_lifetime = 3s;
    add("other", other_threads_, AsyncPostgresCache(other_executor, changing, usual), usual);
    const auto by_gate = pool_options(site.dsn("soak lenient", gate_.port()), 2);
    add("lenient", other_threads_, AsyncPostgresCache(other_executor, by_gate, lenient), lenient);

    auto few = pool_options(site.dsn("soak blocking"), 3);
    few.idle_timeout = 20ms;
    blocking_ = std::make_unique<BlockingActor>("blocking", few, usual);

    cleanup_ = async_actors_.front()->cache.start_cleanup_task(1s);
    other_cleanup_ = async_actors_.back()->cache.start_cleanup_task(1500ms);
    blocking_cleanup_ = blocking_->cache.start_cleanup_thread(2s);
}

bool Stage::finish() {
    bool in_time = threads_.run(cleanup_.stop(test::patience), 2 * test::patience);
    in_time =
        other_threads_.run(other_cleanup_.stop(test::patience), 2 * test::patience) && in_time;
    in_time = blocking_cleanup_.stop(test::patience) && in_time;
    cleanup_ = AsyncCleanupService();
    other_cleanup_ = AsyncCleanupService();
    blocking_cleanup_ = CleanupService();
    async_actors_.clear();
    blocking_.reset();
    in_time = threads_.finish() && in_time;
    return other_threads_.finish() && in_time;
}

std::vector<Subject*> Stage::subjects() {
    std::vector<Subject*> all;
    for (const auto& actor : async_actors_) {
        all.push_back(&actor->subject);
    }
    all.push_back(&blocking_->subject);
    return all;
}

}  // namespace psycache::soak
