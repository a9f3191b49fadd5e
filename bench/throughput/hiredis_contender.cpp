// Redis through hiredis, its C client. Values are JSON text, read and written as those of the
// cache.

#include "throughput/blocking.hpp"
#include "throughput/contenders.hpp"

#ifdef PSYCACHE_BENCH_HIREDIS
#include <hiredis/hiredis.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <deque>
#include <initializer_list>
#include <string_view>

#include "throughput/measured.hpp"
#endif

namespace bench {

#ifdef PSYCACHE_BENCH_HIREDIS

namespace {

struct FreeReply {
    void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

class RedisConnection {
  public:
    RedisConnection(const std::string& socket, int database)
        : context_(redisConnectUnix(socket.c_str())) {
        if (context_ == nullptr || context_->err != 0) {
            redisFree(context_);
            throw std::runtime_error("cannot connect to Redis");
        }
        command({"SELECT", std::to_string(database)});
    }
    RedisConnection(const RedisConnection&) = delete;
    RedisConnection& operator=(const RedisConnection&) = delete;
    ~RedisConnection() { redisFree(context_); }

    void append(std::initializer_list<std::string_view> words) {
        pointers_.clear();
        lengths_.clear();
        for (const std::string_view word : words) {
            add(word);
        }
        append();
    }
    void append_mget(const std::vector<std::string>& keys) {
        pointers_.clear();
        lengths_.clear();
        add("MGET");
        for (const std::string& key : keys) {
            add(key);
        }
        append();
    }
    /// Sends what was appended, when there is no answer to read yet.
    Reply next() {
        void* reply = nullptr;
        if (redisGetReply(context_, &reply) != REDIS_OK) {
            throw std::runtime_error("Redis: " + std::string(context_->errstr));
        }
        Reply owned(static_cast<redisReply*>(reply));
        if (owned->type == REDIS_REPLY_ERROR) {
            throw std::runtime_error("Redis: " + std::string(owned->str, owned->len));
        }
        return owned;
    }
    Reply command(std::initializer_list<std::string_view> words) {
        append(words);
        return next();
    }

  private:
    void add(std::string_view word) {
        pointers_.push_back(word.data());
        lengths_.push_back(word.size());
    }
    void append() {
        redisAppendCommandArgv(context_, static_cast<int>(pointers_.size()), pointers_.data(),
                               lengths_.data());
    }

    redisContext* context_;
    std::vector<const char*> pointers_;
    std::vector<std::size_t> lengths_;
};

std::optional<json::object> object_of(const redisReply& reply) {
    if (reply.type != REDIS_REPLY_STRING) {
        return std::nullopt;
    }
    json::value value = json::parse(std::string_view(reply.str, reply.len));
    return std::move(value.as_object());
}

const std::string& ttl_seconds() {
    static const std::string text =
        std::to_string(std::chrono::duration_cast<std::chrono::seconds>(entry_ttl).count());
    return text;
}

class RedisSession : public Session {
  public:
    RedisSession(const std::string& socket, int database) : connection_(socket, database) {}

    bool get(const std::string& key) override { return read(key).has_value(); }
    std::optional<json::object> read(const std::string& key) override {
        const Reply reply = connection_.command({"GET", key});
        return object_of(*reply);
    }
    void put(const std::string& key, const json::object& value) override {
        const std::string text = json::serialize(value);
        connection_.command({"SET", key, text, "EX", ttl_seconds()});
    }
    std::size_t get_many(const std::vector<std::string>& keys) override {
        connection_.append_mget(keys);
        const Reply reply = connection_.next();
        std::size_t found = 0;
        for (std::size_t i = 0; i < reply->elements; ++i) {
            found += object_of(*reply->element[i]) ? 1U : 0U;
        }
        return found;
    }

  private:
    RedisConnection connection_;
};

class PipelinedContender : public Contender {
  public:
    PipelinedContender(const Redis& redis, const Data& data, const Workload& workload,
                       std::size_t outstanding)
        : redis_(redis),
          data_(data),
          workload_(workload),
          outstanding_(outstanding),
          connection_(redis.socket(), redis.database(data.value_size())) {}

    void verify() override {
        const std::size_t last = data_.key_count() - 1;
        const Reply reply = connection_.command({"GET", data_.hits()[last]});
        check(object_of(*reply) == value_of(data_.value_size(), last), "another value");
    }

    Sample run(Seconds time) override {
        const auto cpu = [this] { return redis_.cpu_seconds(); };
        return measured(cpu, workload_, [this, time](Histogram& histogram) {
            const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
            Choice choice(data_, workload_, 0);
            for (std::size_t i = 0; i < outstanding_; ++i) {
                send(choice);
            }
            while (!sent_.empty()) {
                const Reply reply = connection_.next();
                const Call call = sent_.front();
                sent_.pop_front();
                check(call.put || object_of(*reply).has_value() != workload_.miss, "get");
                const auto now = Clock::now();
                histogram.record(now - call.start);
                if (now < end) {
                    send(choice);
                }
            }
        });
    }

  private:
    struct Call {
        Clock::time_point start;
        bool put;
    };

    void send(Choice& choice) {
        const Call call{Clock::now(),
                        workload_.operation == Operation::put || choice.next_is_put()};
        if (call.put) {
            const std::string text = json::serialize(data_.put_value());
            connection_.append({"SET", choice.put_key(), text, "EX", ttl_seconds()});
        } else {
            connection_.append({"GET", choice.get_key()});
        }
        sent_.push_back(call);
    }

    const Redis& redis_;
    const Data& data_;
    const Workload workload_;
    const std::size_t outstanding_;
    RedisConnection connection_;
    std::deque<Call> sent_;
};

const Redis& needed(const Arena& arena) {
    if (arena.redis == nullptr) {
        throw Unavailable("there is no Redis server");
    }
    return *arena.redis;
}

}  // namespace

std::unique_ptr<Contender> hiredis_blocking(const Arena& arena, const Data& data,
                                            const Workload& workload) {
    const Redis& redis = needed(arena);
    std::vector<std::unique_ptr<Session>> sessions;
    sessions.push_back(
        std::make_unique<RedisSession>(redis.socket(), redis.database(data.value_size())));
    return blocking_contender(
        data, workload, [&redis] { return redis.cpu_seconds(); }, std::move(sessions));
}

std::unique_ptr<Contender> hiredis_pipelined(const Arena& arena, const Data& data,
                                             const Workload& workload, std::size_t outstanding) {
    return std::make_unique<PipelinedContender>(needed(arena), data, workload, outstanding);
}

#else

std::unique_ptr<Contender> hiredis_blocking(const Arena& /*arena*/, const Data& /*data*/,
                                            const Workload& /*workload*/) {
    throw Unavailable("built without hiredis (Debian: libhiredis-dev)");
}

std::unique_ptr<Contender> hiredis_pipelined(const Arena& /*arena*/, const Data& /*data*/,
                                             const Workload& /*workload*/,
                                             std::size_t /*outstanding*/) {
    throw Unavailable("built without hiredis (Debian: libhiredis-dev)");
}

#endif

}  // namespace bench
