#include "calls/contender.hpp"

#ifdef PSYCACHE_BENCH_HIREDIS
#include <hiredis/hiredis.h>

#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <deque>
#include <initializer_list>
#include <string_view>
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
    explicit RedisConnection(const Job& job)
        : context_(redisConnectUnix(job.redis_socket.c_str())) {
        if (!context_ || context_->err != 0) {
            throw std::runtime_error("cannot connect to Redis");
        }
        append({"SELECT", std::to_string(job.redis_database)});
        next();
    }

    void append(std::initializer_list<std::string_view> words) {
        std::array<const char*, 5> pointers{};
        std::array<std::size_t, 5> lengths{};
        std::size_t count = 0;
        for (const std::string_view word : words) {
            pointers.at(count) = word.data();
            lengths.at(count++) = word.size();
        }
        redisAppendCommandArgv(context_.get(), static_cast<int>(count), pointers.data(),
                               lengths.data());
    }
    /// Sends what was appended, when there is no answer to read yet.
    Reply next() {
        void* reply = nullptr;
        if (redisGetReply(context_.get(), &reply) != REDIS_OK) {
            throw std::runtime_error("Redis: " + std::string(context_->errstr));
        }
        Reply owned(static_cast<redisReply*>(reply));
        if (owned->type == REDIS_REPLY_ERROR) {
            throw std::runtime_error("Redis: " + std::string(owned->str, owned->len));
        }
        return owned;
    }

  private:
    struct FreeContext {
        void operator()(redisContext* context) const { redisFree(context); }
    };
    std::unique_ptr<redisContext, FreeContext> context_;
};

std::optional<json::object> object_of(const redisReply& reply) {
    if (reply.type != REDIS_REPLY_STRING) {
        return std::nullopt;
    }
    json::value value = json::parse(std::string_view(reply.str, reply.len));
    return std::move(value.as_object());
}

class HiredisContender : public Contender {
  public:
    HiredisContender(const Job& job, const Data& data) : job_(job), data_(data), connection_(job) {}

    void verify() override {
        check_answers(
            data_,
            [this](const std::string& key) {
                connection_.append({"GET", key});
                return object_of(*connection_.next());
            },
            [this](const std::string& key, const json::object& value) {
                set(key, value);
                connection_.next();
            });
    }

    Figures run(Seconds time) override {
        return measured(1, [this, time](Histogram& histogram) {
            const auto end = after(time);
            Keys keys(data_, 0);
            std::deque<Clock::time_point> sent;
            const auto send = [&] {
                sent.push_back(Clock::now());
                if (job_.operation == Operation::put) {
                    set(keys.put(), data_.put_value());
                } else {
                    connection_.append({"GET", keys.hit()});
                }
            };
            for (std::size_t i = 0; i < job_.callers; ++i) {
                send();
            }
            while (!sent.empty()) {
                const Reply reply = connection_.next();
                check(job_.operation == Operation::put || object_of(*reply), "get");
                const auto now = Clock::now();
                histogram.record(now - sent.front());
                sent.pop_front();
                if (now < end) {
                    send();
                }
            }
        });
    }

  private:
    void set(const std::string& key, const json::object& value) {
        static const std::string ttl =
            std::to_string(std::chrono::duration_cast<std::chrono::seconds>(entry_ttl).count());
        const std::string text = json::serialize(value);
        connection_.append({"SET", key, text, "EX", ttl});
    }

    const Job job_;
    const Data& data_;
    RedisConnection connection_;
};

}  // namespace

std::unique_ptr<Contender> hiredis(const Job& job, const Data& data) {
    if (job.redis_socket.empty()) {
        throw Unavailable("there is no Redis");
    }
    return std::make_unique<HiredisContender>(job, data);
}

#else

std::unique_ptr<Contender> hiredis(const Job& /*job*/, const Data& /*data*/) {
    throw Unavailable("built without hiredis (Debian: libhiredis-dev)");
}

#endif

}  // namespace bench
