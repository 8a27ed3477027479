#!/usr/bin/env bash
# down.sh CLUSTER - takes the demo's cluster down; nothing of it stays.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
harness=${CARGO_TARGET_DIR:-target}/debug/harness
[ -x "$harness" ] || cargo build -q -p e2e --bin harness
exec "$harness" down --cluster "$1"
