#!/usr/bin/env bash
# build-host.sh OUT.so - the kernels as a library for the CPU: every .cu of this folder as C++, over the emulator of host/.
set -euo pipefail

out=${1:?usage: build-host.sh OUT.so}
here=$(cd "$(dirname "$0")" && pwd)
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT

# Nothing fused, as on the device; indices into arrays are checked.
flags=(-std=c++17 -O2 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wextra -Werror -Wno-unknown-pragmas
    -fsanitize=bounds -fsanitize-undefined-trap-on-error -I "$here")

compile() { # SOURCE
    "${CXX:-g++}" "${flags[@]}" -x c++ -c "$1" -o "$objects/$(basename "$1").o"
}
jobs=()
for source in "$here"/*.cu "$here"/host/*.c*; do
    compile "$source" &
    jobs+=($!)
done
for job in "${jobs[@]}"; do
    wait "$job"
done
"${CXX:-g++}" -shared -o "$out.$$" "$objects"/*.o
mv "$out.$$" "$out"
