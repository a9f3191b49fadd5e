#pragma once

/// @file
/// Faults of the server, the network and the table, one after the other.

#include <sys/types.h>

#include <cstdint>
#include <random>
#include <string>

#include "soak/load.hpp"
#include "soak/report.hpp"
#include "soak/site.hpp"
#include "soak/stage.hpp"

namespace psycache::soak {

/// Brings faults about and sees to it that all caches work again after each.
class Chaos {
  public:
    Chaos(Site& site, Stage& stage, Load& load, const Pacer& pacer, Circumstances& circumstances,
          Report& report, std::uint32_t seed);

    /// One fault, chosen at random; returns when it has been lifted and all caches work again, or
    /// were found not to.
    void one_fault();
    /// Every cache stores and finds a fresh entry, or is found not to.
    void calm();
    /// A number of milliseconds.
    test::Milliseconds random_time(int least, int most);

  private:
    struct Fault {
        const char* name;
        void (Chaos::*happen)();
    };
    static const Fault faults[];

    // Each returns when the fault is over.
    void terminate_one();
    void terminate_all();
    void kill_one();
    void restart();
    void stop_for_a_while();
    void crash();
    void freeze_all();
    void freeze_one();
    void refuse_connections();
    void read_only();
    void lock_rows();
    void lock_table();
    void drop_table();
    void revoke();
    void lock_tags();
    void flush();
    void clear();
    void flood();
    void network_away();
    void network_resets();
    void network_cuts();
    void network_swallows();
    void network_delays();
    void network_crumbles();

    void wait(int least, int most);
    std::size_t random(std::size_t below);
    std::string situation();
    pid_t some_backend();
    void terminate_backends();
    void hold(const std::string& statements);
    /// Lets the table be emptied. @param how gets the cache that is to do it.
    template <class Empty>
    void empty(const char* name, Empty how);
    /// Whether it comes to hold in time, or in a longer time where the machine has too much to do.
    template <class Condition>
    bool in_time(const Condition& condition, test::Milliseconds time) const {
        return test::eventually(condition, time) ||
               (pacer_.overloaded() && test::eventually(condition, 5 * time));
    }
    void see_that_all_work(const char* fault, Time lifted);

    Site& site_;
    Stage& stage_;
    Load& load_;
    const Pacer& pacer_;
    Circumstances& circumstances_;
    Report& report_;
    std::mt19937 random_;
    std::uint64_t fresh_ = 0;
    const Time begun_ = Clock::now();
};

}  // namespace psycache::soak
