#!/usr/bin/env bash
# engine-image.sh [--check] - packs the image of slots that compute on GPUs natively into target/images/engine.tar: /usr/bin/node-agent, /usr/bin/slot
# and cuBLASLt, which is downloaded once, pinned by hash. The driver is not in it: the container runtime brings the machine's.
# With --check nothing is downloaded: an image with the simulated library in its place, unpacked and looked at.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

check=
case "${1:-}" in
    "") ;;
    --check) check=yes ;;
    *) echo "usage: ci/engine-image.sh [--check]" >&2; exit 2 ;;
esac

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
library=usr/lib/x86_64-linux-gnu/libcublasLt.so.13
[ "$(uname -m)" = x86_64 ] || {
    echo "engine-image: the pinned cuBLASLt is for x86_64" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -n "$check" ]; then
    kernels/cuda/host/build-host.sh --driver "$work"
    cublas=$work/libcublasLt.so
    licence=LICENSE
    archive=$work/engine.tar
else
    pins=$(sha256sum kernels/cuda/cublas.txt | cut -d' ' -f1)
    if [ "$(cat "$target/cublas/pins" 2>/dev/null)" != "$pins" ]; then
        rm -rf "$target/cublas"
        python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-cache-dir --no-deps --require-hashes --only-binary :all: \
            --target "$target/cublas" -r kernels/cuda/cublas.txt
        echo "$pins" >"$target/cublas/pins"
    fi
    cublas=$target/cublas/nvidia/cu13/lib/libcublasLt.so.13
    licence=$(find "$target/cublas" -path '*nvidia_cublas*' -type f -iname 'license*' | head -1)
    archive=$target/images/engine.tar
fi

# What people run is optimised; what is only looked at takes what the other suites have built.
profile=release
[ -z "$check" ] || profile=dev
built=$target/${profile/dev/debug}
cargo build -q -p e2e --bin harness
cargo build -q --profile "$profile" -p node-agent --bin node-agent
# The program that goes into any image links everything, libc included.
cargo rustc -q --profile "$profile" -p node-agent --bin slot -- -C target-feature=+crt-static
for program in node-agent slot; do
    strip -o "$work/$program" "$built/$program"
done
# As programs: what they are linked with comes along, and nothing is taken out of the library.
"$target/debug/harness" image engine --bin "$work/node-agent=/usr/bin/node-agent" --bin "$work/slot=/usr/bin/slot" --bin "$cublas=/$library" \
    --file "$licence=/usr/share/doc/cublas/LICENSE" --entrypoint /usr/bin/node-agent --with-libs --output "$archive"
[ -n "$check" ] || exit 0

# A layer is a tar; all of them make the root.
root=$work/root
mkdir -p "$work/image" "$root"
tar -C "$work/image" -xf "$archive"
for blob in "$work"/image/blobs/sha256/*; do
    if tar -tf "$blob" >/dev/null 2>&1; then tar -C "$root" -xf "$blob"; fi
done
fail() {
    echo "engine-image: $*" >&2
    exit 1
}
[ -s "$root/usr/share/doc/cublas/LICENSE" ] || fail "no licence beside the library"
inside() { chroot "$root" "$@" 2>&1; }
[[ $(inside /usr/bin/node-agent engine --help) == *--socket* ]] || fail "node-agent does not run in its image"
[[ $(inside /usr/bin/slot --help) == *Usage* ]] || fail "slot does not run in its image"
# By the name alone, as the engine asks for it, with nothing but the image's own files.
found=$(inside /lib64/ld-linux-x86-64.so.2 --list "/$library") || fail "the library cannot be loaded: $found"
! grep "not found" <<<"$found" >&2 || fail "the library lacks others"
inside /lib64/ld-linux-x86-64.so.2 --preload libcublasLt.so.13 /usr/bin/node-agent --version >"$work/said" || fail "$(cat "$work/said")"
! grep -q "cannot be preloaded" "$work/said" || fail "the loader does not look where the library is: $(cat "$work/said")"
echo "engine-image: checked $(stat -c %s "$archive") bytes"
