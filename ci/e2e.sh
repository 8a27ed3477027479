#!/usr/bin/env bash
# e2e.sh TEST... - suites that need a cluster, one cluster at a time. `sprint` and `moments` run the whole product, and need
# two cores that nobody else uses.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The same selection as that of the unit tests, so that nothing is compiled twice.
tests=(cargo test --workspace --exclude crds)
images=
# What is built beside the tests: a package's programs come with any test of it that runs them.
beside=()
for name in "$@"; do
    tests+=(--test "$name")
    case $name in
        sprint | moments | protection) images=yes ;;
        crashes) beside+=(--test convergence --test real_time --test generated) ;;
    esac
done
"${tests[@]}" ${beside[@]+"${beside[@]}"} --no-run
if [ -n "$images" ]; then ci/images.sh; else "${CARGO_TARGET_DIR:-target}/debug/harness" build; fi
exec "${tests[@]}" -- --ignored --test-threads=1 --nocapture
