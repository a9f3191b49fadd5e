#pragma once

/// @file
/// A role of a test's own that may use the table of a schema.

#include <iostream>
#include <string>

#include "support/schema.hpp"

namespace psycache::test {

/// Makes an ordinary role and drops it at the end.
class Role {
  public:
    explicit Role(const TestSchema& schema) : schema_(schema) {
        Psql().exec("CREATE ROLE " + name_ + " LOGIN; GRANT USAGE ON SCHEMA " + schema.quoted() +
                    " TO " + name_);
        grant();
    }
    Role(const Role&) = delete;
    Role& operator=(const Role&) = delete;
    ~Role() {
        try {
            Psql().exec("DROP OWNED BY " + name_ + "; DROP ROLE " + name_);
        } catch (const std::exception& error) {
            std::cerr << "a role stays behind: " << error.what() << '\n';
        }
    }

    const std::string& name() const { return name_; }
    void alter(const std::string& how) const { Psql().exec("ALTER ROLE " + name_ + " " + how); }
    void grant() const { Psql().exec("GRANT ALL ON " + schema_.table() + " TO " + name_); }
    void revoke() const { Psql().exec("REVOKE ALL ON " + schema_.table() + " FROM " + name_); }

  private:
    const TestSchema& schema_;
    std::string name_ = unique_name("role");
};

}  // namespace psycache::test
