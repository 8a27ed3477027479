#!/usr/bin/env bash
# alone.sh - each crate compiles by itself, without features another crate happens to switch on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for crate in crds proto kernels node-agent operator kubectl-gonka e2e network-simulator virtual-fleet; do
    echo "--- $crate"
    cargo check -q -p "$crate"
done
