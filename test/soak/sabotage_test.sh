#!/usr/bin/env bash
# sabotage_test.sh FINDING PROGRAM NAME: the soak must end with status 1 and report FINDING.
set -euo pipefail
finding=$1 program=$2 name=$3

status=0
output=$("$program" --quiet --seconds 4 --callers 60 --sabotage "$name") || status=$?
printf '%s\n' "$output"
if [ "$status" -eq 77 ]; then
    exit 77
fi
if [ "$status" -ne 1 ]; then
    echo "it ended with $status instead of 1" >&2
    exit 1
fi
if ! grep -q "^VIOLATION.*$finding" <<<"$output"; then
    echo "it did not report: $finding" >&2
    exit 1
fi
