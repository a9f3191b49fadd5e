# Finds SOCI 4 with its PostgreSQL backend, which Debian ships without a CMake package.
#
# Makes PsycacheSOCI::soci. PsycacheSOCI_INCLUDE_DIR, PsycacheSOCI_CORE_LIBRARY and
# PsycacheSOCI_POSTGRESQL_LIBRARY can be set by hand.
find_path(PsycacheSOCI_INCLUDE_DIR NAMES soci/soci.h)
find_library(PsycacheSOCI_CORE_LIBRARY NAMES soci_core)
find_library(PsycacheSOCI_POSTGRESQL_LIBRARY NAMES soci_postgresql)
mark_as_advanced(PsycacheSOCI_INCLUDE_DIR PsycacheSOCI_CORE_LIBRARY PsycacheSOCI_POSTGRESQL_LIBRARY)

if(NOT TARGET PostgreSQL::PostgreSQL)
    find_package(PostgreSQL QUIET)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(PsycacheSOCI
    REQUIRED_VARS PsycacheSOCI_CORE_LIBRARY PsycacheSOCI_POSTGRESQL_LIBRARY PsycacheSOCI_INCLUDE_DIR
                  PostgreSQL_FOUND
    REASON_FAILURE_MESSAGE "psycache::soci needs SOCI 4 with PostgreSQL (Debian: libsoci-dev)")

if(PsycacheSOCI_FOUND AND NOT TARGET PsycacheSOCI::soci)
    # The backend's headers include libpq's.
    add_library(PsycacheSOCI::soci INTERFACE IMPORTED)
    set_target_properties(PsycacheSOCI::soci PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${PsycacheSOCI_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES
            "${PsycacheSOCI_POSTGRESQL_LIBRARY};${PsycacheSOCI_CORE_LIBRARY};PostgreSQL::PostgreSQL")
endif()
