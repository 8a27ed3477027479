#!/usr/bin/env bash
# e2e.sh - the suites that need a cluster, one cluster at a time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ci/images.sh
exec cargo test -p e2e --test api_server --test harness -- --ignored --test-threads=1 --nocapture
