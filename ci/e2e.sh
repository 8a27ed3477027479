#!/usr/bin/env bash
# e2e.sh - the suites that need a cluster, one cluster at a time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The same selection as that of the unit tests, so that nothing is compiled twice.
tests=(cargo test --workspace --exclude crds --test api_server --test harness --test sprint)
"${tests[@]}" --no-run
# Programs of the cluster, and the images that the whole product runs from.
ci/images.sh
exec "${tests[@]}" -- --ignored --test-threads=1 --nocapture
