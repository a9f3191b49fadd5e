// The same for psycache::soci; there are no sessions behind this pool.

#include <soci/soci.h>

#include <iostream>
#include <stdexcept>

#include <psycache/soci.hpp>

int main() {
    soci::connection_pool sessions(1);
    try {
        const psycache::SociCachePool pool(sessions, psycache::Duration(-1));
    } catch (const std::invalid_argument& error) {
        std::cout << error.what() << '\n';
        return 0;
    }
    std::cerr << "a negative time-out was not refused\n";
    return 1;
}
