#pragma once

/// @file
/// Harm done behind the caches' back, to show that it is found.

#include <atomic>
#include <random>
#include <string>
#include <string_view>
#include <thread>

#include "soak/model.hpp"
#include "soak/site.hpp"
#include "soak/stage.hpp"

namespace psycache::soak {

/// One kind of harm, done again and again in a thread.
class Sabotage {
  public:
    /// Whether there is harm of this name.
    static bool known(std::string_view name);
    static std::string names();

    Sabotage(std::string_view name, Site& site, Stage& stage, const Keys& keys);
    Sabotage(const Sabotage&) = delete;
    Sabotage& operator=(const Sabotage&) = delete;
    ~Sabotage();

  private:
    struct Act {
        std::string_view name;
        void (Sabotage::*does)();
    };
    static const Act acts[];

    void swap();
    void replay();
    void lose();
    void invent();
    void count();
    void unmerge();
    void untag();
    void ignore_touches();
    void drop();
    void unplug();
    void block();
    void leak_memory();
    void leak_descriptor();
    void leak_connection();
    void leak_span();
    void leak_thread();

    std::string some_keys(std::size_t count);

    Site& site_;
    Stage& stage_;
    const Keys& keys_;
    test::Psql sql_;
    std::minstd_rand random_;
    bool done_ = false;  // of what is done once
    std::atomic<bool> stopping_ = false;
    std::thread thread_;
};

}  // namespace psycache::soak
