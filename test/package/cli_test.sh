#!/usr/bin/env bash
# Tries the program as an operator does.
#
#   test/package/cli_test.sh PROGRAM
#
# The server is the one of PSYCACHE_TEST_DSN; psql comes from PSYCACHE_TEST_PG_BIN or PATH.
# Works in schemas of its own and drops them.
set -uo pipefail

program=${1:?usage: cli_test.sh PROGRAM}
dsn=${PSYCACHE_TEST_DSN?PSYCACHE_TEST_DSN names no server}
psql=${PSYCACHE_TEST_PG_BIN:+$PSYCACHE_TEST_PG_BIN/}psql
[ -x "$psql" ] || psql=psql

schema="psycache cli \"test\" $$"            # a name that must be quoted
quoted=${schema//\"/\"\"}
work=$(mktemp -d)
failures=0

sql() { "$psql" -X -q -A -t -v ON_ERROR_STOP=1 -d "$dsn" "$@"; }

finish() {
    sql -c "SET client_min_messages = error; DROP SCHEMA IF EXISTS \"$quoted\" CASCADE" || true
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

table_kind() {
    sql -c "SELECT c.relpersistence FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relname = 'psycache' AND n.nspname = '$schema'"
}
fresh_schema() {
    sql -c "SET client_min_messages = error; DROP SCHEMA IF EXISTS \"$quoted\" CASCADE;
            CREATE SCHEMA \"$quoted\"" || exit 1
}

# ---- the command line itself --------------------------------------------------------------------
usage_error() {
    run "$@"
    check "usage error: $*" is "$code" 2
    check "  it says so on stderr" starts "$err" "psycache: "
    check "  and nothing on stdout" is "$out" ""
}
usage_error
usage_error unknown-command
usage_error init-db --unknown-option
usage_error init-db --schema
usage_error init-db one two
usage_error init-db --notify --no-notify
usage_error clear
usage_error clear --logged ""

run --help
check "--help exits 0" is "$code" 0
check "--help names the command" has "$out" "init-db"
run init-db --help
check "init-db --help exits 0" is "$code" 0
check "init-db --help warns of passwords" has "$out" "PGPASSFILE"
run --version
check "--version exits 0" is "$code" 0
check "--version tells the version" eval '[[ $out =~ ^psycache\ [0-9]+\.[0-9]+\.[0-9]+$ ]]'

# ---- without a DSN: the SQL ---------------------------------------------------------------------
run init-db
check "prints the SQL without a DSN" is "$code" 0
check "  two statements" is "$(tr -cd ';' <"$work/out" | wc -c)" 2
check "  the last thing is a semicolon" is "${out: -1}" ";"
check "  the table is unlogged" has "$out" "CREATE UNLOGGED TABLE"
check "  the index is there" has "$out" "ix_psycache_expires_at"
run init-db --no-expiry-index
check "--no-expiry-index prints one statement" is "$code:$(grep -c ';$' <<<"$out")" 0:1

run init-db --tags
check "--tags prints four statements" is "$code:$(grep -c ';$' <<<"$out")" 0:4
check "  with the table of tags" has "$out" "psycache_tags"

run init-db --notify
check "--notify prints three statements" is "$code:$(tr -cd ';' <"$work/out" | wc -c)" 0:3
check "  with the triggers" has "$out" "CREATE TRIGGER"
run init-db --no-notify
check "--no-notify prints three statements" is "$code:$(tr -cd ';' <"$work/out" | wc -c)" 0:3
check "  which remove them" has "$out" "DROP TRIGGER"

run init-db --logged
check "--logged prints a logged table" is "$code" 0
check "  without UNLOGGED" lacks "$out" "UNLOGGED"
run init-db --schema "$schema"
check "--schema qualifies the names, quoted" has "$out" "\"$quoted\""
for empty in "--schema" "--schema="; do
    if [ "$empty" = --schema ]; then run init-db --schema ""; else run init-db --schema= "$dsn"; fi
    check "an empty schema fails ($empty)" is "$code" 1
    check "  with the reason" is "$err" "psycache: init-db failed: schema must not be empty"
    check "  and nothing on stdout" is "$out" ""
done
if [ -e /dev/full ]; then
    "$program" init-db >/dev/full 2>"$work/err"
    code=$? out="" err=$(cat "$work/err")
    check "output that cannot be written fails" is "$code" 1
    check "  with the reason" starts "$err" "psycache: init-db failed: "
fi

# ---- with a DSN ---------------------------------------------------------------------------------
fresh_schema
run init-db --schema "$schema" "$dsn"
check "initialises" is "$code" 0
check "  says so" is "$out" "psycache: initialized the cache table."
check "  is silent otherwise" is "$err" ""
check "  the table is there, unlogged" is "$(table_kind)" u
sql -c "INSERT INTO \"$quoted\".psycache VALUES ('k', '{\"a\": 1}', 'infinity')"
run init-db --schema "$schema" "$dsn"
check "again: exit code 0" is "$code" 0
check "again: the same words" is "$out" "psycache: initialized the cache table."
check "again: the rows stay" is "$(sql -c "SELECT count(*) FROM \"$quoted\".psycache")" 1

fresh_schema
run init-db --logged --schema "$schema" "$dsn"
check "--logged makes a logged table" is "$code:$(table_kind)" "0:p"

triggers() {
    sql -c "SELECT count(*) || ' ' || (SELECT count(*) FROM pg_proc p
                JOIN pg_namespace n ON n.oid = p.pronamespace
                WHERE p.proname = 'psycache_notify' AND n.nspname = '$schema')
            FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = '$schema' AND t.tgname LIKE 'psycache_notify_%'"
}
fresh_schema
for again in first again; do
    run init-db --notify --schema "$schema" "$dsn"
    check "--notify makes the triggers ($again)" is "$code:$err:$(triggers)" "0::3 1"
done
run init-db --schema "$schema" "$dsn"
check "without it they stay" is "$code:$(triggers)" "0:3 1"
for again in first again; do
    run init-db --no-notify --schema "$schema" "$dsn"
    check "--no-notify removes them ($again)" is "$code:$err:$(triggers)" "0::0 0"
done
for option in --notify --no-notify; do
    for again in first again; do
        "$program" init-db $option --schema "$schema" | sql -f - 2>"$work/err"
        code=$? out="" err=$(cat "$work/err")
        check "psql runs the SQL of $option ($again)" is "$code:$(triggers)" \
            "0:$([ $option = --notify ] && echo 3 1 || echo 0 0)"
    done
done

fresh_schema
"$program" init-db --schema "$schema" | sql -f - 2>"$work/err"
code=$? out="" err=$(cat "$work/err")
check "psql runs the printed SQL" is "$code:$(table_kind)" "0:u"
sql -c "INSERT INTO \"$quoted\".psycache VALUES ('k', '{\"a\": 1}', 'infinity')"
"$program" init-db --schema "$schema" | sql -f - 2>"$work/err"
code=$? out="" err=$(cat "$work/err")
check "  and runs it again" is "$code:$(sql -c "SELECT count(*) FROM \"$quoted\".psycache")" "0:1"

fresh_schema
{
    echo "BEGIN;"
    "$program" init-db --schema "$schema"
    echo "CREATE TABLE \"$quoted\".other (i int); COMMIT;"
} | sql -f - 2>"$work/err"
code=$? out="" err=$(cat "$work/err")
check "  in a transaction with more" is \
    "$code:$(sql -c "SELECT count(*) FROM pg_tables WHERE schemaname = '$schema'")" "0:2"
fresh_schema
{
    echo "BEGIN;"
    "$program" init-db --schema "$schema"
    echo "ROLLBACK;"
} | sql -f - 2>"$work/err"
code=$? out="" err=$(cat "$work/err")
check "  which can be rolled back" is "$code:$(table_kind)" "0:"

"$program" init-db --schema "$schema no" | sql -f - 2>"$work/err"
code=$? out="" err=$(cat "$work/err")
check "psql fails where the schema is missing" is "$code" 3

at_once=0
"$program" init-db --schema "$schema" >"$work/sql"
for round in $(seq 20); do
    fresh_schema
    pids=()
    for i in $(seq 8); do
        # Half of them as one transaction, as migration tools run it.
        single=$([ $((i % 2)) -eq 0 ] && echo -1)
        # shellcheck disable=SC2086
        sql $single -f "$work/sql" >"$work/out$i" 2>"$work/err$i" &
        pids+=($!)
    done
    for i in $(seq 8); do
        wait "${pids[$((i - 1))]}" || {
            at_once=$((at_once + 1))
            cat "$work/err$i"
        }
    done
    [ "$(table_kind)" = u ] || at_once=$((at_once + 1))
done
code=$at_once out="" err=""
check "eight psql at once run the printed SQL, 20 times" is "$at_once" 0

# ---- clear --------------------------------------------------------------------------------------
fresh_schema
run init-db --tags --schema "$schema" "$dsn"
check "--tags makes the table of tags" is \
    "$code:$(sql -c "SELECT count(*) FROM \"$quoted\".psycache_tags")" "0:0"
sql -c "INSERT INTO \"$quoted\".psycache VALUES ('k', '{\"a\": 1}', 'infinity');
        INSERT INTO \"$quoted\".psycache_tags VALUES ('t', 'k', 'infinity')"
run clear --schema "$schema" "$dsn"
check "clears" is "$code:$out:$err" "0:psycache: cleared the cache table.:"
check "  entries and tags" is "$(sql -c "SELECT (SELECT count(*) FROM \"$quoted\".psycache) +
    (SELECT count(*) FROM \"$quoted\".psycache_tags)")" 0
run clear --schema "$schema no" "$dsn"
check "clear of no table fails" is "$code:$out" "1:"
check "  with the reason" starts "$err" "psycache: clear failed: "

# ---- errors -------------------------------------------------------------------------------------
failure() {
    run "${@:2}"
    check "$1: exit code 1" is "$code" 1
    check "$1: the reason on stderr" starts "$err" "psycache: init-db failed: "
    check "$1: nothing on stdout" is "$out" ""
}
failure "no such schema" init-db --schema "$schema no" "$dsn"
failure "no such server" init-db "host=/nonexistent dbname=none password=geheim"
check "  the password is not repeated" lacks "$err" geheim
failure "not a DSN" init-db "password=geheim nonsense"
check "  the password is not repeated" lacks "$err" geheim

if [ "$failures" -ne 0 ]; then
    echo "$failures checks failed"
    exit 1
fi
echo "all checks passed"
