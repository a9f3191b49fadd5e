#!/usr/bin/env bash
# Tries the program as an operator does.
#
#   test/package/cli_test.sh PROGRAM
#
# The server is the one of PSYCACHE_TEST_DSN; psql comes from PSYCACHE_TEST_PG_BIN or PATH.
# Works in schemas of its own and drops them.
set -uo pipefail

# shellcheck source=test/package/program.sh
source "$(dirname "${BASH_SOURCE[0]}")/program.sh"

table_kind() {
    sql -c "SELECT c.relpersistence FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relname = 'psycache' AND n.nspname = '$schema'"
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
usage_error get
usage_error get key
usage_error get key one two
usage_error put key 1 ""
usage_error put key 1 --ttl 1h
usage_error remove key
usage_error remove --ttl 1h key ""
usage_error watch
usage_error watch --for 1x ""
usage_error watch key ""
usage_error flush
usage_error cleanup
for ttl in "" 1 1x -1h 0s "1 h" 1h30 eternity; do usage_error put key 1 --ttl "$ttl" ""; done
for number in "" 0 -1 1.5 many; do usage_error cleanup --max-entries "$number" ""; done
usage_error get key "host=here" password=geheim
check "  the password is not repeated" lacks "$err" geheim

run --help
check "--help exits 0" is "$code" 0
check "--help names the command" has "$out" "init-db"
for command in init-db get put remove flush clear cleanup watch doctor stats; do
    check "--help names $command" has "$out" "  $command "
done
for command in get put remove flush clear cleanup watch; do
    run $command --help
    check "$command --help exits 0" is "$code:$err" "0:"
    check "$command --help tells of --schema, DSN and passwords" eval \
        '[[ $out == *--schema*DSN*PGPASSFILE* ]]'
done
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

# ---- entries ------------------------------------------------------------------------------------
fresh_schema
run get key --schema "$schema" "$dsn"
check "get without a table fails" is "$code:$out" "1:"
check "  and names the remedy" has "$err" "init-db"
run init-db --tags --schema "$schema" "$dsn"

# stored KEY JSON OPTION...: what is put is got.
stored() {
    run put --ttl 1h "${@:3}" --schema "$schema" -- "$1" "$2" "$dsn"
    check "puts $2 under \"$1\"" is "$code:$out:$err" "0:psycache: stored the entry.:"
    run get --schema "$schema" -- "$1" "$dsn"
    check "  and gets it" is "$code:$out:$err" "0:$2:"
}
stored key '{"a": [1, 2.5, "x"]}'
stored key '{"a": 123456789012345678901234567890}'
stored "" '{}'
stored '{}' '[]'
stored '[a,b]' '[1, 2.5, {"a": [null]}]'
stored clear '"text"'
stored get 5
stored -key -5
stored --schema true
stored "Ünï 'key' \"quoted\"" null
stored tagged '{"tag": 1}' --tag one --tag '[two,three]' --tag=four
check "  with its tags" is "$(sql -c "SELECT string_agg(tag, ' ' ORDER BY tag COLLATE \"C\")
    FROM \"$quoted\".psycache_tags WHERE key = 'tagged'")" "[two,three] four one"
printf '\n {"from": "a pipe"}\n' | "$program" put piped - --ttl 1h --schema "$schema" "$dsn" >/dev/null
code=$? out="" err=""
check "puts what standard input holds" is \
    "$code:$("$program" get piped --schema "$schema" "$dsn")" '0:{"from": "a pipe"}'
run put empty - --ttl 1h --schema "$schema" "$dsn"
check "an empty standard input is no JSON" is "$code:$out" "1:"
run put other 1 --ttl 1h30m --schema "$schema" "$dsn"
check "the ttl is what was typed" is "$(sql -c "SELECT round(extract(epoch FROM expires_at - now())
    / 60) FROM \"$quoted\".psycache WHERE key = 'other'")" 90
run put other 1 --ttl forever --schema "$schema" "$dsn"
check "forever is infinity" is \
    "$(sql -c "SELECT expires_at FROM \"$quoted\".psycache WHERE key = 'other'")" infinity
for value in '{"geheim": }' 'geheim' '["geheim' '{"geheim": "\u0000"}' \
    '["geheim", 1.2345678901234567890]'; do
    run put key "$value" --ttl 1h --schema "$schema" "$dsn"
    check "refuses the value $value" is "$code:$out" "1:"
    check "  with a reason" starts "$err" "psycache: put failed: "
    check "  that does not repeat it" lacks "$err" geheim
done
run put "$(printf 'geheim\xff')" 1 --ttl 1h --schema "$schema" "$dsn"
check "refuses a key that is not UTF-8" is "$code:$out" "1:"
check "  and does not repeat it" lacks "$err" geheim
run put no-table 1 --ttl 1h --schema "$schema no" "$dsn"
check "put without a table fails" is "$code:$out" "1:"
run put key 1 --ttl 1h "--schema=" "$dsn"
check "put with an empty schema fails" is "$code:$out:$err" \
    "1::psycache: put failed: schema must not be empty"

run get geheim --schema "$schema" "$dsn"
check "get of a key that is not there: 1" is "$code:$out" "1:"
check "  says so, without the key" is "$err" "psycache: there is no such entry, or it has expired"
run put short 1 --ttl 1us --schema "$schema" "$dsn"
run get short --schema "$schema" "$dsn"
check "get of a key that has expired: 1" is "$code:$out" "1:"
if [ -e /dev/full ]; then
    "$program" get key --schema "$schema" "$dsn" >/dev/full 2>"$work/err"
    code=$? out="" err=$(cat "$work/err")
    check "a value that cannot be written fails" is "$code" 1
fi
"$program" get key --schema "$schema" "$dsn" >&- 2>"$work/err"
code=$? out="" err=$(cat "$work/err")
check "a closed standard output fails" is "$code" 1

run remove key geheim '[a,b]' key --schema "$schema" "$dsn"
check "removes what is there" is "$code:$out:$err" "0:psycache: removed entries: 2:"
run remove --json --schema "$schema" -- -key clear --schema "$dsn"
check "  and counts in JSON" is "$code:$out:$err" '0:{"removed":3}:'
run remove geheim --schema "$schema" "$dsn"
check "  nothing is no error" is "$code:$out:$err" "0:psycache: removed entries: 0:"

fresh_schema
run init-db --schema "$schema" "$dsn"
sql -c "INSERT INTO \"$quoted\".psycache SELECT 'live' || i, '{}', now() + interval '1 h'
            FROM generate_series(1, 7) AS i;
        INSERT INTO \"$quoted\".psycache SELECT 'old' || i, '{}', now() - interval '1 s'
            FROM generate_series(1, 3) AS i"
run put key 1 --tag one --ttl 1h --schema "$schema" "$dsn"
check "tags want their table" is "$code:$out" "1:"
check "  which is named" has "$err" "init-db --tags"
run cleanup --schema "$schema" "$dsn"
check "cleans up" is "$code:$out:$err" "0:psycache: removed entries: 3:"
run cleanup --json --max-entries 1000000 --max-bytes 1000000000 --schema "$schema" "$dsn"
check "  nothing when all is live" is "$code:$out:$err" '0:{"removed":0}:'
run flush --json --schema "$schema" "$dsn"
check "flushes" is "$code:$out:$err" '0:{"removed":7}:'
run flush --schema "$schema" "$dsn"
check "  again" is "$code:$out:$err" "0:psycache: removed entries: 0:"

# A role that may read only.
make_role
sql -c "GRANT SELECT ON \"$quoted\".psycache TO \"$role\""
run get key --schema "$schema" "$as_role"
check "a role that may read gets" is "$err" "psycache: there is no such entry, or it has expired"
for command in "put key 1 --ttl 1h" "remove key" flush clear; do
    # shellcheck disable=SC2086
    run $command --schema "$schema" "$as_role"
    check "  but does not ${command%% *}" is "$code:$out" "1:"
    check "  which is said" has "$err" "[42501]"
done

# ---- watch --------------------------------------------------------------------------------------
run watch --for 1s --schema "$schema no" "$dsn"
check "watch without a table fails" is "$code:$out" "1:"
check "  and names the remedy" has "$err" "init-db"
run watch --for 1s --schema "$schema" "$dsn"
check "watch without triggers fails" is "$code:$out" "1:"
check "  and names the remedy" has "$err" "init-db --notify"
run init-db --notify --schema "$schema" "$dsn"
run watch --for 100ms --schema "$schema" "$dsn"
check "watch ends in time" is "$code:$out:$err" "0::"
# watched ARGUMENT...: watches what a few commands do; leaves it in $out.
watched() {
    "$program" watch --for 1min --schema "$schema" "$@" "$dsn" >"$work/out" 2>"$work/err" &
    local watcher=$!
    for _ in $(seq 100); do
        [ "$(sql -c "SELECT count(*) FROM pg_stat_activity
            WHERE application_name = 'psycache watch' AND query LIKE '%pg_backend_pid%'")" = 0 ] || break
        sleep 0.1
    done
    for key in key other key; do
        "$program" put $key 1 --ttl 1h --schema "$schema" "$dsn" >/dev/null
    done
    "$program" remove key other --schema "$schema" "$dsn" >/dev/null
    "$program" clear --schema "$schema" "$dsn" >/dev/null
    for _ in $(seq 100); do
        ! grep -qE 'or all|"all":true' "$work/out" || break
        sleep 0.1
    done
    kill $watcher
    wait $watcher 2>/dev/null
    code=$? out=$(sed -E 's/[0-9-]+T[0-9:]+Z/TIME/' "$work/out") err=$(cat "$work/err")
}
watched
check "watches all entries" is "$out" "TIME changed: 1 entry
TIME changed: 2 entries
TIME changed: many entries, or all"
watched --key key --key absent
check "watches a key" is "$out" "TIME changed: key
TIME changed: key
TIME changed: many entries, or all"
watched --json --key key --key other
check "watches keys in JSON" is "$(grep -c '"keys":\["key"\]' <<<"$out"):$(grep -c other <<<"$out")" 1:1
"$program" watch --for 1min --schema "$schema" "$dsn" >"$work/out" 2>"$work/err" &
watcher=$!
for _ in $(seq 100); do
    [ -z "$(sql -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'psycache watch'")" ] || break
    sleep 0.1
done
wait $watcher
code=$? out=$(cat "$work/out") err=$(cat "$work/err")
check "watch fails when its connection breaks" is "$code:$out" "1:"
check "  and says so" starts "$err" "psycache: watch failed: "

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
for command in "get key" "put key 1 --ttl 1h" "remove key" flush clear cleanup watch; do
    # shellcheck disable=SC2086
    run $command "host=/nonexistent dbname=none password=geheim"
    check "no such server: ${command%% *} fails" is "$code:$out" "1:"
    check "  with the reason, once" is "$(grep -c "${command%% *} failed" <<<"$err")" 1
    check "  without the password" lacks "$err" geheim
done
failure "not a DSN" init-db "password=geheim nonsense"
check "  the password is not repeated" lacks "$err" geheim

report
