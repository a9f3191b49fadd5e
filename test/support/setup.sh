# To be sourced by the commands of this project (examples/run, test/run, bench/run): installs what is
# missing, configures and builds, and says what it does.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
support=$root/test/support

# What every build needs. A library is named with the headers it brings.
build_packages=(g++ cmake ninja-build libboost1.81-dev libboost-json1.81-dev libpq-dev)

say() { printf '\n\033[1m==> %s\033[0m\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
# Without a terminal the emphasis would only be noise.
if [ ! -t 2 ]; then
    say() { printf '\n==> %s\n' "$*" >&2; }
fi

# The packages a test server comes from: none when one is there, or when another server is to be used.
server_packages() {
    local initdb
    if [ -n "${PSYCACHE_TEST_DSN:-}" ]; then
        return
    fi
    for initdb in "${PSYCACHE_PG_BIN:-}/initdb" /usr/lib/postgresql/*/bin/initdb; do
        if [ -x "$initdb" ]; then
            return
        fi
    done
    if ! command -v initdb >/dev/null; then
        echo postgresql-15
    fi
}

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# need_packages PACKAGE...: installs those that are missing. Does not touch apt when none is.
need_packages() {
    local package missing=() become_root=()
    if ! command -v dpkg-query >/dev/null; then
        warn "this is not Debian; these packages, or what they are called here, are taken for granted: $*"
        return
    fi
    for package in "$@"; do
        if ! installed "$package"; then
            missing+=("$package")
        fi
    done
    if [ "${#missing[@]}" -eq 0 ]; then
        return
    fi

    say "Installing ${#missing[@]} Debian packages: ${missing[*]}"
    if [[ " ${missing[*]} " == *" libboost1.81-dev "* ]] && installed libboost1.74-dev; then
        warn "libboost1.81-dev replaces libboost1.74-dev: Debian allows only one of them at a time"
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            die "as root, run: apt-get install --no-install-recommends ${missing[*]}"
        fi
        become_root=(sudo)
    fi
    # No questions, no waiting for ever on another apt, and lines instead of a progress bar.
    local apt=("${become_root[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0)
    "${apt[@]}" update </dev/null >&2
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null >&2
}

# configure TREE OPTION...: makes build/TREE. Quiet when all goes well.
configure() {
    local tree=$1 log
    shift
    say "Configuring build/$tree"
    mkdir -p "$root/build/$tree"
    log=$root/build/$tree/configure.log
    if ! cmake -S "$root" -B "$root/build/$tree" -G Ninja "$@" >"$log" 2>&1; then
        cat "$log" >&2
        die "could not configure build/$tree"
    fi
    grep -iE '^(CMake )?Warning' "$log" >&2 || true
}

# build TREE TARGET...: shows progress; all targets when none is named.
build() {
    local tree=$1 target targets=()
    shift
    for target in "$@"; do
        targets+=(--target "$target")
    done
    say "Building build/$tree"
    # ccache needs no home of its own, but a place it can write to.
    if ! cmake --build "$root/build/$tree" "${targets[@]}" >&2; then
        die "could not build build/$tree"
    fi
}
