#!/usr/bin/env bash
# The README's example is compiled code: its first C++ block must equal the region [readme] of
# examples/readme.cpp. And what the README links to must be there.
#
#   test/package/readme_test.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

awk '/^```cpp$/ { inside = 1; next } /^```$/ { if (inside) exit } inside' README.md >"$work/readme"
awk '/^\/\/ \[readme\]$/ { inside = !inside; next } inside' examples/readme.cpp >"$work/example"

if [ ! -s "$work/example" ]; then
    echo "examples/readme.cpp has no region between two lines \"// [readme]\"" >&2
    exit 1
fi
if ! diff -u --label README.md --label examples/readme.cpp "$work/readme" "$work/example"; then
    echo "the example in README.md is not the one that is compiled" >&2
    exit 1
fi

failures=0
while IFS= read -r target; do
    if [ ! -e "$target" ]; then
        echo "README.md links to $target, which is not there" >&2
        failures=$((failures + 1))
    fi
done < <(grep -oE '\]\([^)#]+\)' README.md | sed -E 's/^\]\((.*)\)$/\1/' | grep -vE '^[a-z]+:')

# Every example is one of the ways to use the library, and is listed. readme.cpp is the block itself.
for example in examples/*.cpp; do
    if [ "$example" != examples/readme.cpp ] && ! grep -qF "($example)" README.md; then
        echo "README.md does not mention $example" >&2
        failures=$((failures + 1))
    fi
done
[ "$failures" -eq 0 ] || exit 1
echo "README.md and the examples agree"
