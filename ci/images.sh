#!/usr/bin/env bash
# images.sh - builds every program once and packs the images of the demo and the e2e suite into target/images.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
debug=$target/debug

cargo build --workspace --bins
# The program that goes into any image links everything, libc included.
cargo rustc -q -p node-agent --bin slot -- -C target-feature=+crt-static
make --no-print-directory -C e2e/simulated-nvml OUT="$(realpath "$target")/simulated-nvml"
"$debug/harness" build

"$debug/harness" image operator --bin "$debug/operator=/usr/bin/operator" --entrypoint /usr/bin/operator --with-libs --strip
"$debug/harness" image node-agent --bin "$debug/node-agent=/usr/bin/node-agent" --bin "$debug/slot=/usr/bin/slot" \
    --entrypoint /usr/bin/node-agent --with-libs --strip
"$debug/harness" image gpu-device-plugin --bin "$debug/gpu-device-plugin=/usr/bin/gpu-device-plugin" \
    --bin "$target/simulated-nvml/libnvidia-ml.so.1=/opt/simulated-nvml/libnvidia-ml.so.1" \
    --entrypoint /usr/bin/gpu-device-plugin --with-libs --strip
