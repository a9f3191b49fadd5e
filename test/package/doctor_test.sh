#!/usr/bin/env bash
# Tries `psycache doctor` and `psycache stats` as an operator does: breaks something, reads what is
# found, and runs the SQL that is offered.
#
#   test/package/doctor_test.sh PROGRAM
#
# Needs a superuser. JSON is looked at where there is python3, poolers where there is pgbouncer.
set -uo pipefail

# shellcheck source=test/package/program.sh
source "$(dirname "${BASH_SOURCE[0]}")/program.sh"

python=$(command -v python3 || true)
bouncer=
bouncer_pid=
citus=psycache_cli_citus_$$
finish_all() {
    if [ -n "$bouncer_pid" ]; then kill "$bouncer_pid"; fi
    if [ -n "$bouncer" ]; then rm -rf "$bouncer"; fi
    sql -c "SET client_min_messages = error; DROP SCHEMA IF EXISTS \"$citus\" CASCADE" || true
    finish
}
trap finish_all EXIT

# doctor [DSN]: runs it; leaves its report in $out, its JSON in $work/json.
doctor() {
    run doctor --json --schema "$schema" "${1-$dsn}"
    cp "$work/out" "$work/json"
    local json_code=$code
    run doctor --schema "$schema" "${1-$dsn}"
    check "  text and JSON agree on the exit code" is "$code:$err" "$json_code:"
    if [ -n "$python" ]; then
        check "  and on what is found" is "$("$python" -c '
import json, sys
report = json.load(open(sys.argv[1]))
for finding in report["findings"]:
    print(finding["severity"].ljust(8), finding["id"])
assert report["ok"] == (sys.argv[2] == "0")
' "$work/json" "$code")" "$(grep -E "^(ok|note|warning|problem) +[a-z_.]+$" "$work/out")"
    fi
}
# finds SEVERITY ID; nothing where the severity is "none".
finds() {
    if [ "$1" = none ]; then ! grep -qE "^[a-z]+ +$2\$" <<<"$out"; return; fi
    grep -qE "^$1 +$2\$" <<<"$out"
}
# sql_of ID: of a finding.
sql_of() {
    "$python" -c '
import json, sys
for finding in json.load(open(sys.argv[1]))["findings"]:
    if finding["id"] == sys.argv[2]:
        print(finding["sql"])
' "$work/json" "$1"
}
# cures ID SEVERITY [DSN]: runs the SQL of the finding, and looks again.
cures() {
    if [ -z "$python" ]; then return; fi
    sql_of "$1" >"$work/sql"
    check "  it comes with SQL" test -s "$work/sql"
    sql -c "SET client_min_messages = warning" -f "$work/sql" >/dev/null 2>"$work/err"
    code=$? err=$(cat "$work/err")
    check "  which runs" is "$code:$err" "0:"
    doctor "${3-$dsn}"
    check "  and then it is $2" finds "$2" "$1"
}

# ---- the command line ---------------------------------------------------------------------------
for command in doctor stats; do
    run $command
    check "$command without DSN: usage error" is "$code:$out" "2:"
    run $command one two
    check "$command with two DSN: usage error" is "$code:$out" "2:"
    run $command --help
    check "$command --help" is "$code:$err" "0:"
    check "  tells of --json" has "$out" "--json"
    run $command "host=/nonexistent dbname=none password=geheim"
    check "$command without a server fails" is "$code:$out" "1:"
    check "  with the reason" starts "$err" "psycache: $command failed: "
    check "  without the password" lacks "$err" geheim
    run $command "password=geheim nonsense"
    check "$command with no DSN fails" is "$code:$out" "1:"
    check "  without the password" lacks "$err" geheim
    run $command --schema= "$dsn"
    check "$command with an empty schema fails" is "$code:$out:$err" \
        "1::psycache: $command failed: schema must not be empty"
done

# ---- the table ----------------------------------------------------------------------------------
fresh_schema
run stats --schema "$schema" "$dsn"
check "stats without a table fails" is "$code:$out" "1:"
check "  and names the remedy" has "$err" "init-db"
doctor
check "finds that there is no table" finds problem table.missing
check "  which is wrong" is "$code" 1
cures table.missing none
check "the new table is as it should be" finds ok table.unlogged

run init-db --tags --notify --schema "$schema" "$dsn"
doctor
check "a new table is healthy" is "$code" 0
for id in server.version server.recovery table.unlogged table.columns index.key index.expiry \
    privileges.missing vacuum.autovacuum vacuum.never vacuum.held_back table.bloat cleanup.overdue \
    tags.table.unlogged tags.index.key notify.triggers notify.queue pooler.transaction_mode \
    connections.budget clock.skew role.lock_timeout role.statement_timeout; do
    check "  $id is ok" finds ok $id
done
check "  the last line sums up" has "$(tail -n 1 <<<"$out")" "psycache: 0 problems, 0 warnings, "

if [ -e /dev/full ]; then
    "$program" doctor --schema "$schema" "$dsn" >/dev/full 2>"$work/err"
    code=$? out="" err=$(cat "$work/err")
    check "a report that cannot be written fails" is "$code" 1
    check "  with the reason" has "$err" "cannot write"
fi
"$program" stats --schema "$schema" "$dsn" >&- 2>"$work/err"
code=$? out="" err=$(cat "$work/err")
check "a closed standard output fails" is "$code" 1

table="\"$quoted\".psycache"
# broken WHAT SEVERITY ID SQL: breaks something, and lets it be cured.
broken() {
    sql -c "$4"
    doctor
    check "finds $1" finds "$2" "$3"
    check "  exit code" is "$code" "$([ "$2" = note ] && echo 0 || echo 1)"
    cures "$3" ok
}
broken "a logged table" note table.unlogged "ALTER TABLE $table SET LOGGED"
broken "a missing index" warning index.expiry "DROP INDEX \"$quoted\".ix_psycache_expires_at"
broken "an index that is not valid" warning index.expiry \
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid =
        '\"$quoted\".ix_psycache_expires_at'::regclass"
broken "a missing primary key" problem index.key \
    "ALTER TABLE $table DROP CONSTRAINT psycache_pkey"
broken "autovacuum that is off for the table" warning vacuum.autovacuum \
    "ALTER TABLE $table SET (autovacuum_enabled = false)"
broken "a missing trigger" warning notify.triggers "DROP TRIGGER psycache_notify_update ON $table"
broken "a trigger that is off" warning notify.triggers \
    "ALTER TABLE $table DISABLE TRIGGER psycache_notify_update"
broken "a trigger that is not always on" note notify.triggers \
    "ALTER TABLE $table ENABLE TRIGGER psycache_notify_update"
broken "an entry that expired long ago" warning cleanup.overdue \
    "INSERT INTO $table VALUES ('old', '{}', now() - interval '3 days'),
        ('stub', '{}', now() - interval '999999 days')"
check "  the stub stays" is "$(sql -c "SELECT string_agg(key, ' ') FROM $table")" stub
broken "a column of another type" problem table.columns \
    "ALTER TABLE $table ALTER COLUMN value TYPE json"
check "  and has its index" finds ok index.expiry

fresh_schema
run init-db --no-expiry-index --schema "$schema" "$dsn"
doctor
check "an index that was left out is a note" finds note index.expiry
check "  which is not wrong" is "$code" 0
fresh_schema
sql -c "CREATE VIEW $table AS SELECT ''::text AS key, '{}'::jsonb AS value, now() AS expires_at"
doctor
check "a view is a note" finds note table.kind
run stats --schema "$schema" "$dsn"
check "  of which stats tells what it can" is "$code:$err" "0:"

# ---- what the server counts ---------------------------------------------------------------------
fresh_schema
run init-db --schema "$schema" "$dsn"
sql -c "ALTER TABLE $table SET (autovacuum_enabled = false)"
# A session tells what it has changed when it ends; before PostgreSQL 15 that is heard a little later.
sql -c "INSERT INTO $table SELECT 'key' || i, jsonb_build_object('n', i),
        now() + CASE WHEN i % 4 = 0 THEN interval '-1 s' ELSE interval '1 h' END
    FROM generate_series(1, 40000) AS i"
sql -c "DELETE FROM $table WHERE substr(key, 4)::int > 20000"
for _ in $(seq 100); do
    doctor >"$work/checks"
    if finds warning table.bloat; then break; fi
    sleep 0.1
done
cat "$work/checks"
check "finds dead rows" finds warning table.bloat
check "  and that nothing has vacuumed the table" finds warning vacuum.never
run stats --schema "$schema" "$dsn"
check "stats tells of it" is "$code:$err" "0:"
check "  entries" eval '[[ $out =~ entries\ +about\ 20000 ]]'
check "  dead rows" eval '[[ $out =~ dead\ rows\ +about\ 20000 ]]'
check "  expired ones" eval '[[ $out =~ expired\ entries\ +about\ 2[0-9]\ % ]]'
check "  the vacuum that was not" eval '[[ $out =~ autovacuum\ +never,\ never ]]'
check "  no tags" eval '[[ $out =~ table\ of\ tags\ +none ]]'
if [ -n "$python" ]; then
    run stats --json --schema "$schema" "$dsn"
    check "  in JSON, too" "$python" -c '
import json, sys
report = json.load(open(sys.argv[1]))
assert report["table"]["rows_estimated"] == 20000, report
assert report["table"]["dead_rows"] == 20000, report
assert report["table"]["table_bytes"] > 1000000, report
assert report["table"]["unlogged"] is True, report
assert 0.1 < report["expired_share_estimated"] < 0.4, report
assert report["tags"] is None and report["notify_triggers"] == 0, report
' "$work/out"
fi
sql -c "BEGIN" -c "LOCK $table" -c "SELECT pg_sleep(20)" -c "COMMIT" >/dev/null &
holder=$!
for _ in $(seq 50); do
    [ "$(sql -c "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock'
        AND relation = '$table'::regclass")" = 0 ] || break
    sleep 0.1
done
SECONDS=0
run doctor --schema "$schema" "$dsn"
check "does not wait long for a table that is locked" test "$SECONDS" -lt 15
check "  but says that it could not look" eval '[[ $out == *not_looked_at*55P03* ]]'
run stats --schema "$schema" "$dsn"
check "  nor do stats" is "$code:$err" "0:"
kill $holder
wait $holder 2>/dev/null
sql -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE query LIKE '%pg_sleep(20)%' AND pid <> pg_backend_pid()" >/dev/null

# ---- the role -----------------------------------------------------------------------------------
fresh_schema
run init-db --tags --schema "$schema" "$dsn"
make_role
doctor "$as_role"
check "finds privileges that are missing" finds problem privileges.missing
check "  on the table of tags, too" finds problem tags.privileges.missing
check "  what the role may not see is no error" finds note not_looked_at
cures privileges.missing ok "$as_role"
cures tags.privileges.missing ok "$as_role"
check "  TRUNCATE is a note" finds note privileges.truncate
check "  which is not wrong" is "$code" 0
cures privileges.truncate none "$as_role"
sql -c "REVOKE ALL ON SCHEMA \"$quoted\" FROM \"$role\""
doctor "$as_role"
check "finds a schema that may not be used" finds problem privileges.missing
cures privileges.missing ok "$as_role"
sql -c "ALTER TABLE $table ENABLE ROW LEVEL SECURITY"
doctor "$as_role"
check "finds policies for rows" finds warning privileges.row_security
cures privileges.row_security none "$as_role"
for timeout in lock_timeout statement_timeout; do
    sql -c "ALTER ROLE \"$role\" SET $timeout = '1s'"
    doctor "$as_role"
    check "finds a $timeout" finds warning role.$timeout
    check "  of a second" has "$out" "$timeout is 1 s for the role \"$role\""
    cures role.$timeout ok "$as_role"
done
sql -c "ALTER ROLE \"$role\" SET idle_in_transaction_session_timeout = '1s'"
doctor "$as_role"
check "finds a time-out that touches TransactionCache alone" \
    finds note role.idle_in_transaction_session_timeout
check "  which is not wrong" is "$code" 0
if [ "$(sql -c "SELECT current_setting('server_version_num')::int >= 140000")" = t ]; then
    sql -c "ALTER ROLE \"$role\" SET idle_session_timeout = '1min'"
    doctor "$as_role"
    check "finds that the server closes idle connections" finds note role.idle_session_timeout
    cures role.idle_session_timeout ok "$as_role"
fi
if [ "$(sql -c "SELECT current_setting('server_version_num')::int >= 170000")" = t ]; then
    sql -c "ALTER ROLE \"$role\" SET transaction_timeout = '1s'"
    doctor "$as_role"
    check "finds a transaction_timeout" finds warning role.transaction_timeout
    cures role.transaction_timeout ok "$as_role"
fi
sql -c "ALTER ROLE \"$role\" CONNECTION LIMIT 3"
doctor "$as_role"
check "finds a limit of the role that is too small for a pool" finds warning connections.role_limit
cures connections.role_limit ok "$as_role"
sql -c "ALTER ROLE \"$role\" CONNECTION LIMIT 1"
doctor "$as_role"
check "one connection is enough for the doctor" finds note not_looked_at
sql -c "ALTER ROLE \"$role\" CONNECTION LIMIT -1"

# ---- Citus: relations of the names of its catalogs stand in -------------------------------------
sql -c "CREATE SCHEMA \"$citus\"; SET search_path = \"$citus\";
    CREATE TABLE pg_dist_partition (logicalrelid regclass, partmethod \"char\", partkey text);
    CREATE TABLE pg_dist_shard (logicalrelid regclass);
    CREATE TABLE pg_dist_node (noderole text, isactive bool, shouldhaveshards bool);
    CREATE FUNCTION column_to_column_name(regclass, text) RETURNS text LANGUAGE sql STRICT
        AS 'SELECT \$2';
    INSERT INTO pg_dist_node SELECT 'primary', true, true FROM generate_series(1, 2)"
export PGOPTIONS="-c search_path=$citus"
doctor
check "finds a table that Citus does not distribute" finds note citus.distribution
sql -c "INSERT INTO pg_dist_partition VALUES ('$table', 'n', NULL)"
doctor
check "finds a reference table" finds warning citus.distribution
sql -c "UPDATE pg_dist_partition SET partmethod = 'h', partkey = 'value'"
doctor
check "finds a table that is distributed by something else" finds problem citus.distribution
sql -c "UPDATE pg_dist_partition SET partkey = 'key';
    INSERT INTO pg_dist_shard SELECT '$table' FROM generate_series(1, 32)"
doctor
check "finds many shards" finds note citus.distribution
check "  and says how many" has "$out" "32 shards on 2 nodes"
unset PGOPTIONS

# ---- a pooler -----------------------------------------------------------------------------------
# start_pooler MODE: $pooled is its DSN.
start_pooler() {
    bouncer=$(mktemp -d /tmp/psycache-pooler.XXXXXX)
    chmod 755 "$bouncer"
    local port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000)) as=()
    local host user server_port database
    host=$(sql -c '\echo :HOST') user=$(sql -c '\echo :USER')
    server_port=$(sql -c '\echo :PORT') database=$(sql -c '\echo :DBNAME')
    echo "\"$user\" \"\"" >"$bouncer/users"
    cat >"$bouncer/pgbouncer.ini" <<END
[databases]
* = host=$host port=$server_port
[pgbouncer]
listen_addr =
listen_port = $port
unix_socket_dir = $bouncer
auth_type = trust
auth_file = $bouncer/users
pool_mode = $1
END
    if [ "$(id -u)" -eq 0 ]; then
        chown -R postgres "$bouncer"
        as=(setpriv --reuid=postgres --regid=postgres --init-groups)
    fi
    (cd / && exec "${as[@]}" "$pgbouncer" -q "$bouncer/pgbouncer.ini") >"$work/pooler" 2>&1 &
    bouncer_pid=$!
    pooled="host=$bouncer port=$port user=$user dbname=$database"
    for _ in $(seq 100); do
        if "$psql" -X -q -c "SELECT 1" "$pooled" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    cat "$work/pooler"
}
stop_pooler() {
    kill "$bouncer_pid"
    wait "$bouncer_pid" 2>/dev/null
    rm -rf "$bouncer"
    bouncer_pid='' bouncer=''
}
pgbouncer=$(PATH=$PATH:/usr/sbin command -v pgbouncer || true)
if [ -z "$pgbouncer" ]; then
    echo "skipped: pgbouncer is not installed"
else
    start_pooler session
    doctor "$pooled"
    check "a pooler in session mode is ok" finds ok pooler.transaction_mode
    check "  and is seen" has "$out" "A pooler is between"
    stop_pooler
    start_pooler transaction
    for _ in 1 2 3; do
        doctor "$pooled"
        check "finds a pooler in transaction mode" finds note pooler.transaction_mode
        check "  which is not wrong" is "$code" 0
    done
    run init-db --notify --schema "$schema" "$dsn"
    doctor "$pooled"
    check "  unless near caches want to listen" finds warning pooler.transaction_mode
    run put key 5 --ttl 1h --schema "$schema" "$pooled"
    check "puts through it" is "$code:$err" "0:"
    run get key --schema "$schema" "$pooled"
    check "gets through it" is "$code:$out:$err" "0:5:"
    check "the doctor leaves no setting with the server" is \
        "$("$psql" -X -q -A -t -c "SHOW statement_timeout" "$pooled")" 0
    stop_pooler
fi

report
