#include "throughput/blocking.hpp"

#include <exception>
#include <thread>
#include <utility>

#include "throughput/histogram.hpp"
#include "throughput/measured.hpp"

namespace bench {

namespace {

class BlockingContender : public Contender {
  public:
    BlockingContender(const Data& data, const Workload& workload, ServerCpu server,
                      std::vector<std::unique_ptr<Session>> sessions)
        : data_(data),
          workload_(workload),
          server_(std::move(server)),
          sessions_(std::move(sessions)) {}

    void verify() override {
        const std::size_t last = data_.key_count() - 1;
        for (const auto& session : sessions_) {
            for (const std::size_t id : {std::size_t{0}, last / 2, last}) {
                check(session->read(data_.hits()[id]) == value_of(data_.value_size(), id),
                      "another value");
            }
            check(session->get(data_.hits()[last]), "get hit");
            check(!session->get(key_of(miss_digit, last)), "get miss");
            check(session->get_many({data_.hits()[0], data_.hits()[last]}) == 2, "get many");
            json::object changed = data_.put_value();
            changed["name"] = "Grace Hopper";
            session->put(data_.puts()[last], changed);
            check(session->read(data_.puts()[last]) == changed, "another value than was put");
            session->put(data_.puts()[last], data_.put_value());
            check(session->read(data_.puts()[last]) == data_.put_value(), "put");
            session->put_many({data_.puts()[0], data_.puts()[last]}, changed);
            check(session->read(data_.puts()[0]) == changed, "put many");
            session->put_many({data_.puts()[0], data_.puts()[last]}, data_.put_value());
            check(session->read(data_.puts()[last]) == data_.put_value(), "put many");
        }
    }

    Sample run(Seconds time) override {
        return measured(server_, workload_, [this, time](Histogram& histogram) {
            const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
            if (sessions_.size() == 1) {
                call_until(end, *sessions_.front(), 0, histogram);
                return;
            }
            std::vector<Histogram> histograms(sessions_.size());
            std::vector<std::exception_ptr> failures(sessions_.size());
            std::vector<std::thread> threads;
            for (std::size_t i = 0; i < sessions_.size(); ++i) {
                threads.emplace_back([this, end, i, &histograms, &failures] {
                    try {
                        call_until(end, *sessions_[i], i, histograms[i]);
                    } catch (...) {
                        failures[i] = std::current_exception();
                    }
                });
            }
            for (std::thread& thread : threads) {
                thread.join();
            }
            for (std::size_t i = 0; i < sessions_.size(); ++i) {
                if (failures[i]) {
                    std::rethrow_exception(failures[i]);
                }
                histogram.add(histograms[i]);
            }
        });
    }

  private:
    void call_until(Clock::time_point end, Session& session, std::size_t caller,
                    Histogram& histogram) const {
        Choice choice(data_, workload_, caller);
        for (auto start = Clock::now(); start < end;) {
            call(session, choice);
            const auto now = Clock::now();
            histogram.record(now - start);
            start = workload_.own_work.count() > 0 ? work_for(workload_.own_work) : now;
        }
    }

    void call(Session& session, Choice& choice) const {
        switch (workload_.operation) {
            case Operation::get_many: {
                const std::vector<std::string> keys = choice.get_keys();
                check(session.get_many(keys) == keys.size(), "get many");
                break;
            }
            case Operation::put_many:
                session.put_many(choice.put_keys(), data_.put_value());
                break;
            case Operation::put:
                session.put(choice.put_key(), data_.put_value());
                break;
            default:
                if (choice.next_is_put()) {
                    session.put(choice.put_key(), data_.put_value());
                } else {
                    check(session.get(choice.get_key()) != workload_.miss, "get");
                }
        }
    }

    const Data& data_;
    const Workload workload_;
    const ServerCpu server_;
    const std::vector<std::unique_ptr<Session>> sessions_;
};

}  // namespace

std::size_t Session::get_many(const std::vector<std::string>& keys) {
    std::size_t found = 0;
    for (const std::string& key : keys) {
        found += get(key) ? 1U : 0U;
    }
    return found;
}

void Session::put_many(const std::vector<std::string>& keys, const json::object& value) {
    for (const std::string& key : keys) {
        put(key, value);
    }
}

std::unique_ptr<Contender> blocking_contender(const Data& data, const Workload& workload,
                                              ServerCpu server,
                                              std::vector<std::unique_ptr<Session>> sessions) {
    return std::make_unique<BlockingContender>(data, workload, std::move(server),
                                               std::move(sessions));
}

}  // namespace bench
