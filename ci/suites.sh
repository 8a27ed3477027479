#!/usr/bin/env bash
# suites.sh SUITE... - runs make targets one after another and writes what each cost to target/ci-minutes.txt.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p target
report=target/ci-minutes.txt
printf '%-10s %8s\n' suite minutes >"$report"
passed=0 failed=0 first=$SECONDS

for suite in "$@"; do
    echo "=== $suite"
    started=$SECONDS
    case $suite in
        alone) command=(ci/alone.sh) ;;
        *) command=(make --no-print-directory "$suite") ;;
    esac
    if "${command[@]}"; then passed=$((passed + 1)); verdict=; else failed=$((failed + 1)); verdict=FAILED; fi
    printf '%-10s %8s %s\n' "$suite" "$(awk "BEGIN {printf \"%.1f\", ($SECONDS - $started) / 60}")" "$verdict" >>"$report"
done
printf '%-10s %8s\n' total "$(awk "BEGIN {printf \"%.1f\", ($SECONDS - $first) / 60}")" >>"$report"

echo "=== minutes"
cat "$report"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
