#pragma once

/// @file
/// Many callers in a loop while something goes wrong, and what each of them may see.

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <psycache/psycache.hpp>

#include "support/both.hpp"
#include "support/private_server.hpp"
#include "support/run_coro.hpp"

namespace psycache::test {

/// What callers may find beside the last value that was acknowledged.
enum class Entries {
    stay,    ///< nothing
    vanish,  ///< that the entry is gone
};

enum class Operation { get, put };

/// A caller's memory: which values its key may have now.
class Expected {
  public:
    /// @returns the number to store next.
    std::int64_t next() { return ++last_; }
    void put_ended(std::int64_t number, const boost::system::error_code& code);
    /// @returns whether a get may find this.
    bool may_be(const std::optional<json::object>& value, Entries entries);

  private:
    std::int64_t last_ = 0;
    std::optional<std::int64_t> stored_;
    std::set<std::int64_t> uncertain_;  // sent at some time, and may be stored even later
};

/// What the callers of a Load saw.
class Record {
  public:
    void ended(std::size_t caller, Operation operation, Clock::time_point began,
               const Failure& failure);
    void wrong(const std::string& what);

    /// Waits until every caller had such a good call that began after this one.
    bool all_work(Operation operation, Milliseconds timeout);
    /// Waits until some call failed that began after this one.
    bool some_fail(Milliseconds timeout);

    /// The failures whose code and SQLSTATE are not among @p allowed, "" if there are none; also
    /// the answers that nobody may get.
    std::string unexpected(std::initializer_list<boost::system::error_code> allowed) const;
    /// How many calls failed with the code, or with a code that stands for the SQLSTATE.
    std::size_t count(const boost::system::error_code& code) const;
    std::size_t count(const std::string& sqlstate) const;
    std::size_t failures() const;
    Milliseconds slowest() const;

    void set_callers(std::size_t callers);

  private:
    struct Kind {
        Failure first;
        std::size_t count = 0;
    };

    mutable std::mutex mutex_;
    // When the last good call of each caller began.
    std::map<Operation, std::vector<Clock::time_point>> good_since_;
    Clock::time_point failed_since_;
    std::map<std::string, Kind> failures_;
    std::map<std::string, std::size_t> wrong_;
    Clock::duration slowest_{0};
};

/// Callers that each put and get their own entry, time and again, on one cache.
///
/// The cache is an AsyncPostgresCache with 64 coroutines on two threads or a PostgresCache with 16
/// threads.
class Load {
  public:
    Load(Flavour flavour, const PoolOptions& pool, const CacheOptions& options);
    Load(const Load&) = delete;
    Load& operator=(const Load&) = delete;
    ~Load();

    /// What a get may find from now on.
    void entries(Entries entries) { entries_ = entries; }
    /// Lets every caller pause after each put and get, where others need the processors as well.
    void pace(Milliseconds pause) { pause_ = pause; }

    /// Waits until every caller had a good put and get that began from now on. @returns whether
    /// they had.
    bool works(Milliseconds timeout = patience) {
        return record_.all_work(Operation::put, timeout) && gets_work(timeout);
    }
    bool gets_work(Milliseconds timeout = patience) {
        return record_.all_work(Operation::get, timeout);
    }
    /// Waits until some call that began from now on has failed.
    bool fails(Milliseconds timeout = patience) { return record_.some_fail(timeout); }

    /// Lets no call begin; returns when all have ended. @returns whether they did.
    bool hold();
    void go_on() { held_ = false; }

    /// A call beside those of the callers, which is not recorded.
    std::optional<json::object> get(const std::string& key);

    /// Ends the callers, after which the record no more changes.
    void stop();

    const Record& record() const { return record_; }
    CacheStatistics statistics() const;
    PoolStatistics pool_statistics() const;

  private:
    asio::awaitable<void> call(std::size_t caller);
    void call_blocking(std::size_t caller);
    void check(const std::optional<json::object>& value, Expected& expected, std::size_t caller);

    Record record_;
    std::atomic<Entries> entries_ = Entries::stay;
    std::atomic<Milliseconds> pause_ = Milliseconds(0);
    std::atomic<bool> ends_ = false;
    std::atomic<bool> held_ = false;
    std::atomic<std::size_t> waiting_ = 0;  // callers that are held
    std::optional<Threads> context_;
    std::optional<AsyncPostgresCache> async_;
    std::vector<std::future<void>> coroutines_;
    std::optional<PostgresCache> blocking_;
    std::vector<std::thread> threads_;
};

/// How long a call of a Load may take, unless a test says otherwise.
inline constexpr Duration usual_timeout = 8s * slowness;
/// How late after its deadline a call may end on a busy machine.
inline constexpr Milliseconds tolerance = 2s * slowness;

/// Load on one server from the moment it is made, and the look at what is left in the end.
class Trial {
  public:
    /// @param admin   how the test connects to the server, as a superuser
    /// @param options of the cache; its deadline is that of a Load if it is the default
    /// @param changes how the cache's connections differ from the test's
    Trial(Flavour flavour, std::string admin, CacheOptions options = {},
          const Settings& changes = {});

    Load& load() { return *load_; }
    const Record& record() const { return load_->record(); }
    Psql sql() const { return Psql(admin_); }
    /// The application_name of the cache's connections.
    const std::string& name() const { return name_; }
    std::int64_t connections() const { return sql().connections(name_); }
    /// Ends the cache's connections of this moment, not those that it opens meanwhile. @returns how
    /// many there were.
    std::int64_t terminate() const;
    /// The server is another one from now on.
    void moved(std::string admin) { admin_ = std::move(admin); }

    /// Ends the load and checks that nobody saw another error than these, that each call ended in
    /// time, and that no call, connection or descriptor is left.
    void finish(std::initializer_list<boost::system::error_code> allowed);

  private:
    static constexpr std::size_t max_size = 4;

    std::string admin_;
    std::string name_;
    std::size_t descriptors_;
    Duration timeout_;
    std::optional<Load> load_;
};

}  // namespace psycache::test
