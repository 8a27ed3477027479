#!/usr/bin/env bash
# build-host.sh OUT.so - the kernels as a library for the CPU: every .cu of the folder above as C++, over the emulator of this one.
# build-host.sh --driver FOLDER - the same as the libraries a program of CUDA looks for: libcuda.so and libcublasLt.so in a folder for LD_LIBRARY_PATH.
set -euo pipefail

usage='usage: build-host.sh OUT.so | --driver FOLDER'
here=$(cd "$(dirname "$0")" && pwd)
kernels=$(dirname "$here")
folder=
out=${1:?$usage}
if [ "$out" = --driver ]; then
    folder=${2:?$usage}
    mkdir -p "$folder"
    out=$folder/libcuda.so
fi
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT

# Nothing fused, as on the device; indices into arrays are checked.
flags=(-std=c++17 -O2 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wextra -Werror -Wno-unknown-pragmas
    -fsanitize=bounds -fsanitize-undefined-trap-on-error -I "$kernels")

compile() { # SOURCE
    "${CXX:-g++}" "${flags[@]}" -x c++ -c "$1" -o "$objects/$(basename "$1").o"
}
jobs=()
for source in "$kernels"/*.cu "$here"/*.c*; do
    compile "$source" &
    jobs+=($!)
done
for job in "${jobs[@]}"; do
    wait "$job"
done
"${CXX:-g++}" -shared -o "$out.$$" "$objects"/*.o
mv "$out.$$" "$out"
if [ -n "$folder" ]; then
    ln -sfn libcuda.so "$folder/libcublasLt.so"
fi
