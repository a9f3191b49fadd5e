# How psycache itself is compiled. Everything here is local to its directories: nothing leaks into a
# project that uses psycache by add_subdirectory, and nothing is exported.

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Debug, Release, RelWithDebInfo, MinSizeRel" FORCE)
endif()

# ccache when it is there. It has to be told that precompiled headers are worth caching.
if(PROJECT_IS_TOP_LEVEL AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER
   AND NOT DEFINED ENV{CMAKE_CXX_COMPILER_LAUNCHER})
    find_program(PSYCACHE_CCACHE ccache)
    mark_as_advanced(PSYCACHE_CCACHE)
    if(PSYCACHE_CCACHE)
        set(CMAKE_CXX_COMPILER_LAUNCHER
            "${CMAKE_COMMAND}" -E env
            CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
            "${PSYCACHE_CCACHE}")
    endif()
endif()

if(PSYCACHE_DEVELOPER)
    add_compile_options(-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
    if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
        # GCC would also complain of every error category: Boost's base class has a destructor that is
        # neither virtual nor public.
        add_compile_options(-Wnon-virtual-dtor)
    else()
        # GCC 12 loses sight of the frame's own operator new when it inlines a coroutine.
        add_compile_options(-Wno-mismatched-new-delete)
        if(CMAKE_UNITY_BUILD)
            # A file that others are appended to is still no header.
            add_compile_options(-Wno-subobject-linkage)
        endif()
    endif()
endif()

if(PSYCACHE_SANITIZE STREQUAL "address")
    set(psycache_sanitize_flags -fsanitize=address,undefined -fno-sanitize-recover=all
        -fno-omit-frame-pointer)
    if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
        # Asio calls handlers through pointers of a type of its own.
        list(APPEND psycache_sanitize_flags -fno-sanitize=function)
    endif()
    add_compile_definitions(_GLIBCXX_ASSERTIONS)
elseif(PSYCACHE_SANITIZE STREQUAL "thread")
    set(psycache_sanitize_flags -fsanitize=thread -fno-omit-frame-pointer)
    # With std::atomic Asio 1.26 counts references by a release decrement, and an acquire fence before
    # the delete. ThreadSanitizer does not follow fences and takes the delete for a race; the counts
    # that Asio has for compilers without std::atomic do without one.
    add_compile_definitions(BOOST_ASIO_DISABLE_STD_ATOMIC)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        # "atomic_thread_fence is not supported": those of others guard nothing of ours.
        add_compile_options(-Wno-tsan)
    endif()
elseif(PSYCACHE_SANITIZE)
    message(FATAL_ERROR "PSYCACHE_SANITIZE must be \"\", \"address\" or \"thread\", not \"${PSYCACHE_SANITIZE}\"")
endif()
if(PSYCACHE_SANITIZE)
    add_compile_options(${psycache_sanitize_flags})
    add_link_options(${psycache_sanitize_flags})
    if(PSYCACHE_DEVELOPER)
        # What newer releases of Asio no longer have. Not in trees that are installed: programs and
        # libraries that differ in it do not fit together.
        add_compile_definitions(BOOST_ASIO_NO_DEPRECATED)
    endif()

    # The sanitizers of GCC 12 and Clang 14 cannot place their shadow memory where the kernel
    # randomizes addresses with more than 28 bits (newer kernels do): then test programs are started
    # without randomization.
    set(psycache_mmap_rnd_bits 28)
    if(EXISTS /proc/sys/vm/mmap_rnd_bits)
        execute_process(COMMAND cat /proc/sys/vm/mmap_rnd_bits OUTPUT_VARIABLE psycache_mmap_rnd_bits
                        OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
    if(psycache_mmap_rnd_bits GREATER 28 AND NOT CMAKE_CROSSCOMPILING_EMULATOR)
        execute_process(COMMAND setarch -R true RESULT_VARIABLE psycache_setarch ERROR_QUIET)
        if(psycache_setarch EQUAL 0)
            set(CMAKE_CROSSCOMPILING_EMULATOR setarch -R)
        endif()
    endif()
endif()

# Precompiles the headers that most time goes into. Off, every file must include what it needs: the
# package tests build the library that way.
function(psycache_precompile target)
    if(NOT PSYCACHE_PRECOMPILE_HEADERS)
        return()
    endif()
    target_precompile_headers(${target} PRIVATE
        <boost/asio.hpp> <boost/json.hpp>
        <algorithm> <array> <atomic> <chrono> <deque> <exception> <functional> <map> <memory> <mutex>
        <optional> <span> <string> <string_view> <thread> <unordered_map> <utility> <variant> <vector>
        ${ARGN})
    psycache_precompiled_with_ccache(${target})
endfunction()

# What ccache needs to see through a precompiled header.
function(psycache_precompiled_with_ccache target)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        target_compile_options(${target} PRIVATE -fpch-preprocess)
    elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
        target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
    endif()
endfunction()
