# To be sourced by tests of the program: runs it, and checks what it says.
#
# $1 is the program; the server is that of PSYCACHE_TEST_DSN.

program=${1:?usage: $0 PROGRAM}
dsn=${PSYCACHE_TEST_DSN?PSYCACHE_TEST_DSN names no server}
psql=${PSYCACHE_TEST_PG_BIN:+$PSYCACHE_TEST_PG_BIN/}psql
[ -x "$psql" ] || psql=psql

schema="psycache cli \"test\" $$"            # a name that must be quoted
quoted=${schema//\"/\"\"}
work=$(mktemp -d)
failures=0

sql() { "$psql" -X -q -A -t -v ON_ERROR_STOP=1 -d "$dsn" "$@"; }

role="psycache_cli_Role_$$"                  # another one
finish() {
    sql -c "SET client_min_messages = error; DROP SCHEMA IF EXISTS \"$quoted\" CASCADE" || true
    sql -c "SET client_min_messages = error; DROP ROLE IF EXISTS \"$role\"" || true
    rm -rf "$work"
}
trap finish EXIT

# run ARGUMENT...: runs the program; leaves its exit code in $code, its words in $out and $err.
run() {
    "$program" "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$?
    out=$(cat "$work/out")
    err=$(cat "$work/err")
}

# check WHAT COMMAND...: one expectation.
check() {
    local what=$1
    shift
    if "$@"; then
        echo "ok: $what"
    else
        failures=$((failures + 1))
        printf 'FAILED: %s\n  exit code: %s\n  stdout: %s\n  stderr: %s\n' \
            "$what" "$code" "$out" "$err"
    fi
}
has() { [[ $1 == *"$2"* ]]; }
lacks() { [[ $1 != *"$2"* ]]; }
is() { [ "$1" = "$2" ]; }
starts() { [[ $1 == "$2"* ]]; }

fresh_schema() {
    sql -c "SET client_min_messages = error; DROP SCHEMA IF EXISTS \"$quoted\" CASCADE;
            CREATE SCHEMA \"$quoted\"" || exit 1
}

# Makes the role $role, which may see the schema; $as_role is its DSN.
make_role() {
    sql -c "CREATE ROLE \"$role\" LOGIN; GRANT USAGE ON SCHEMA \"$quoted\" TO \"$role\"" || exit 1
    case $dsn in
        *://*\?*) as_role="$dsn&user=$role" ;;
        *://*) as_role="$dsn?user=$role" ;;
        *) as_role="$dsn user=$role" ;;
    esac
}

report() {
    if [ "$failures" -ne 0 ]; then
        echo "$failures checks failed"
        exit 1
    fi
    echo "all checks passed"
}
