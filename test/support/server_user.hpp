#pragma once

/// @file
/// Whom servers run as if the test is run by root: PostgreSQL refuses to be root itself.

#include <pwd.h>
#include <unistd.h>

namespace psycache::test {

/// @returns the user postgres if this is root; nullptr if it is not, or if there is no such user.
inline const passwd* server_user() {
    static const passwd* const user = ::geteuid() == 0 ? ::getpwnam("postgres") : nullptr;
    return user;
}

}  // namespace psycache::test
