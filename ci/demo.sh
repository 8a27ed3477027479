#!/usr/bin/env bash
# demo.sh CLUSTER - from nothing to a proven Sprint; leaves everything up.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ci/images.sh
exec "${CARGO_TARGET_DIR:-target}/debug/demo" --cluster "$1"
