#pragma once

/// @file
/// Keeps the callers from asking more of a machine than it can do just then.

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <memory>
#include <vector>

#include "soak/intervals.hpp"
#include "soak/starvation.hpp"

namespace psycache::soak {

/// Watches how long event loops take to come round, whatever keeps them from it, and says how much
/// longer than usual callers should pause. What waits for the server does not count.
class Pacer {
  public:
    /// 1 when all is well; at most 8.
    double factor() const { return factor_; }
    /// Whether the machine has too much to do.
    bool overloaded() const { return factor_ > 1.2; }

    /// How long threads of ours have been kept from running since then.
    Clock::duration starved_since(Time then) const { return starvation_.since(then); }

    void add(boost::asio::io_context& loop) { probes_.push_back(std::make_shared<Probe>(loop)); }

    /// To be called ten times a second by one thread.
    void look() {
        starvation_.look();
        Clock::duration worst{};
        for (const auto& probe : probes_) {
            worst = std::max(worst, probe->lag());
            if (!probe->under_way.exchange(true)) {
                probe->sent = Clock::now();
                boost::asio::post(probe->loop, [probe] {
                    probe->took = Clock::now() - probe->sent;
                    probe->under_way = false;
                });
            }
        }
        if (worst > std::chrono::milliseconds(20)) {
            factor_ = std::min(8.0, factor_ * 1.4);
        } else if (worst < std::chrono::milliseconds(5)) {
            factor_ = std::max(1.0, factor_ * 0.97);
        }
    }

  private:
    struct Probe {
        explicit Probe(boost::asio::io_context& its) : loop(its) {}
        Clock::duration lag() const { return under_way ? Clock::now() - sent : took; }

        boost::asio::io_context& loop;
        Time sent;               // written while nothing is under way
        Clock::duration took{};  // read while nothing is under way
        std::atomic<bool> under_way = false;
    };

    Starvation starvation_;
    std::vector<std::shared_ptr<Probe>> probes_;
    std::atomic<double> factor_ = 1;
};

}  // namespace psycache::soak
