#!/usr/bin/env bash
# The way of the metrics from a service to a dashboard, with Prometheus's own tools.
#
#   test/prometheus/scrape_test.sh SERVER DASHBOARD
#
# SERVER is examples/metrics_server, DASHBOARD is examples/grafana/psycache.json. The database is that
# of PSYCACHE_TEST_DSN. Everything runs on 127.0.0.1, on free ports.
set -euo pipefail

server=${1:?usage: scrape_test.sh SERVER DASHBOARD}
dashboard=${2:?usage: scrape_test.sh SERVER DASHBOARD}
export PSYCACHE_DSN=${PSYCACHE_TEST_DSN?PSYCACHE_TEST_DSN names no server}

fail() {
    echo "failed: $*" >&2
    exit 1
}

for tool in promtool prometheus; do
    if ! command -v "$tool" >/dev/null; then
        fail "$tool is missing (Debian: prometheus; test/run installs it)"
    fi
done

work=$(mktemp -d)
pids=()
finish() {
    local pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT

# port_in FILE PATTERN PID: waits until the process has written its port, the pattern's group.
port_in() {
    local port deadline=$((SECONDS + 30))
    touch "$1"  # the shell that starts the process may not have come so far
    while ((SECONDS < deadline)); do
        port=$(sed -nE "s|.*$2.*|\1|p" "$1" | head -n 1)
        if [ -n "$port" ]; then
            echo "$port"
            return
        fi
        kill -0 "$3" 2>/dev/null || break
        sleep 0.05
    done
    cat "$1" >&2
    fail "no port in $(basename "$1")"
}

# get PORT TARGET: prints the body of the answer; fails unless that is 200.
get() {
    local status
    exec {http}<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&"$http"
    cat <&"$http" >"$work/answer"
    exec {http}>&-
    status=$(head -n 1 "$work/answer")
    sed '1,/^\r$/d' "$work/answer"
    [[ $status == *" 200 "* ]] || {
        echo "GET $2: $status" >&2
        return 1
    }
}

# ---- the service ----------------------------------------------------------------------------------
"$server" --port 0 >"$work/server.log" 2>&1 &
pids+=($!)
port=$(port_in "$work/server.log" 'http://127\.0\.0\.1:([0-9]+)/metrics' $!)
for item in a b a a; do
    get "$port" "/items/scrape-$$-$item" | grep -F "scrape-$$-$item" >/dev/null || fail "/items"
done
get "$port" /healthz | grep -x ok >/dev/null || fail "/healthz"

get "$port" /metrics >"$work/metrics"
promtool check metrics <"$work/metrics" || fail "promtool objects to /metrics"
for line in 'psycache_hits_total{span_name="item"} 2' 'psycache_misses_total{span_name="item"} 2' \
    'psycache_pool_open_connections [1-9]' 'psycache_cleanup_last_run_timestamp_seconds [1-9]'; do
    grep -qE "^${line//[\{]/\\\{}" "$work/metrics" || fail "/metrics has no line $line"
done
echo "ok: the metrics are as promtool wants them"

# ---- the dashboard --------------------------------------------------------------------------------
# One expression a line, with what Grafana would put in for its variables.
sed -nE 's/^ *"expr": "(.*)",?$/\1/p' "$dashboard" |
    sed -e 's/\\"/"/g' -e 's/\$__rate_interval/5m/g' -e 's/\$[a-z_]*/.*/g' >"$work/queries"
[ "$(wc -l <"$work/queries")" -gt 20 ] || fail "found but few queries in the dashboard"
if grep -nF '\' "$work/queries"; then
    fail "the queries above have escapes that this test does not undo"
fi

sed -nE 's/^# TYPE (psycache_[a-z_]+) [a-z]+$/\1/p' "$work/metrics" | sort >"$work/exported"
grep -oE 'psycache_[a-z_]+' "$work/queries" | sort -u | while IFS= read -r name; do
    if grep -qx "$name" "$work/exported"; then
        echo "$name"
    elif grep -qx "${name%_*}" "$work/exported" && [[ $name =~ _(bucket|sum|count)$ ]]; then
        echo "${name%_*}"
    else
        fail "the dashboard asks for $name, which the service does not export"
    fi
done >"$work/shown"
sort -u "$work/shown" | diff - "$work/exported" ||
    fail "the metrics marked > are exported, and in no panel"
echo "ok: the dashboard shows what the service exports"

{
    printf 'groups:\n  - name: dashboard\n    rules:\n'
    number=0
    while IFS= read -r query; do
        number=$((number + 1))
        printf "      - record: query:%d\n        expr: '%s'\n" "$number" "${query//\'/\'\'}"
    done <"$work/queries"
} >"$work/rules.yml"
promtool check rules "$work/rules.yml" || fail "promtool objects to the dashboard's queries"
echo "ok: the dashboard's queries are PromQL"

# ---- Prometheus itself ----------------------------------------------------------------------------
cat >"$work/prometheus.yml" <<END
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - job_name: service
    static_configs: [{targets: ['127.0.0.1:$port']}]
END
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" \
    --web.listen-address=127.0.0.1:0 >"$work/prometheus.log" 2>&1 &
pids+=($!)
prometheus=$(port_in "$work/prometheus.log" 'msg="Listening on" address=127\.0\.0\.1:([0-9]+)' $!)

# ask QUERY: prints Prometheus's answer, JSON in one line; fails unless it was understood.
ask() {
    local query=$1 encoded='' i c
    for ((i = 0; i < ${#query}; i++)); do
        c=${query:i:1}
        if [[ $c == [a-zA-Z0-9_] ]]; then
            encoded+=$c
        else
            printf -v c '%%%02X' "'$c"
            encoded+=$c
        fi
    done
    get "$prometheus" "/api/v1/query?query=$encoded"
}

# eventually QUERY ANSWER: waits until the answer holds the text.
eventually() {
    local deadline=$((SECONDS + 20))
    while ((SECONDS < deadline)); do
        if ask "$1" 2>/dev/null | grep -F "$2" >/dev/null; then
            return
        fi
        sleep 0.2
    done
    ask "$1" >&2 || true
    tail -n 5 "$work/prometheus.log" >&2
    fail "Prometheus does not answer $1 with $2"
}
eventually 'up{job="service"}' '"1"]'
eventually 'psycache_hits_total{span_name="item"}' '"2"]'
eventually 'count_over_time(up{job="service"}[1m]) >= bool 2' '"1"]'  # rates need two scrapes
echo "ok: Prometheus scrapes the service"

answered=0
while IFS= read -r query; do
    answer=$(ask "$query") || fail "Prometheus cannot answer $query: $answer"
    if [[ $answer == *'"value":'* ]]; then
        answered=$((answered + 1))
    fi
done <"$work/queries"
[ "$answered" -gt 10 ] || fail "only $answered queries of the dashboard have an answer"
echo "ok: Prometheus answers the dashboard's queries, $answered of them with a value"

# ---- the end --------------------------------------------------------------------------------------
kill -TERM "${pids[0]}"
wait "${pids[0]}" || fail "the service did not end well: $(cat "$work/server.log")"
unset 'pids[0]'
echo "ok: the service stops"
