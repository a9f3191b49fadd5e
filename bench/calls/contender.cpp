#include "calls/contender.hpp"

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace bench {

/// What a small application does with connections that its threads share.
class SessionPool {
  public:
    explicit SessionPool(const std::vector<std::unique_ptr<Session>>& sessions) {
        for (const auto& session : sessions) {
            idle_.push_back(session.get());
        }
    }
    Session& take() {
        std::unique_lock lock(mutex_);
        given_back_.wait(lock, [this] { return !idle_.empty(); });
        Session* const session = idle_.back();
        idle_.pop_back();
        return *session;
    }
    void give_back(Session& session) {
        {
            const std::lock_guard lock(mutex_);
            idle_.push_back(&session);
        }
        given_back_.notify_one();
    }

  private:
    std::mutex mutex_;
    std::condition_variable given_back_;
    std::vector<Session*> idle_;
};

std::size_t Session::get_many(const std::vector<std::string>& /*keys*/) {
    throw Unavailable("it has no such call");
}

void ThreadsContender::verify() {
    for (const auto& session : sessions_) {
        check_answers(
            data_, [&](const std::string& key) { return session->get(key); },
            [&](const std::string& key, const json::object& value) { session->put(key, value); });
    }
}

Figures ThreadsContender::run(Seconds time) {
    return measured(keys_per_call(job_), [this, time](Histogram& histogram) {
        Pace pace(job_, time);
        SessionPool pool(sessions_);
        if (job_.callers == 1) {
            call_until_over(pace, pool, 0, histogram);
            return;
        }
        std::vector<Histogram> histograms(job_.callers);
        std::vector<std::exception_ptr> failures(job_.callers);
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < job_.callers; ++i) {
            threads.emplace_back([&, i] {
                try {
                    call_until_over(pace, pool, i, histograms[i]);
                } catch (...) {
                    failures[i] = std::current_exception();
                }
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        for (std::size_t i = 0; i < job_.callers; ++i) {
            if (failures[i]) {
                std::rethrow_exception(failures[i]);
            }
            histogram.add(histograms[i]);
        }
    });
}

void ThreadsContender::call_until_over(Pace& pace, SessionPool& pool, std::size_t caller,
                                       Histogram& histogram) const {
#ifdef __linux__
    // Sleeping would otherwise last 50 us longer than asked for; Asio's timers have no such slack.
    prctl(PR_SET_TIMERSLACK, 1UL);
#endif
    Keys keys(data_, caller);
    const bool shared = sessions_.size() < job_.callers;
    for (auto at = Clock::now(); pace.next(at);) {
        if (job_.rate > 0) {
            std::this_thread::sleep_until(at);
        }
        Session& session = shared ? pool.take() : *sessions_[caller];
        if (job_.operation == Operation::get) {
            check(session.get(keys.hit()).has_value(), "get");
        } else if (job_.operation == Operation::put) {
            session.put(keys.put(), data_.put_value());
        } else if (job_.operation == Operation::get_many) {
            check(session.get_many(keys.batch()) == batch_size, "get_many");
        } else {
            throw Unavailable("it has no such call");
        }
        if (shared) {
            pool.give_back(session);
        }
        const auto now = Clock::now();
        histogram.record(now - at);
        at = work_on(job_, now);
    }
}

}  // namespace bench
