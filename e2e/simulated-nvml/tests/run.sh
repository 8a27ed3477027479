#!/bin/sh
# Builds and runs the tests: against the built library, and, where the compiler has them, with its sanitizers around the sources.
set -eu
cd "$(dirname "$0")"
root=$(cd .. && pwd)
out=$(mkdir -p "$OUT/tests" && cd "$OUT/tests" && pwd)
library=$(cd "$OUT" && pwd)
flags="-std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O1 -g"

run_all() { # directory with the three programs
    scratch=$1/scratch
    rm -rf "$scratch" && mkdir -p "$scratch"
    "$1/parse_test" "$root/samples" "$root/tests/malformed"
    "$1/library_test" "$root/samples" "$scratch" 2>"$1/library_test.err" || { cat "$1/library_test.err" >&2; exit 1; }
    "$1/threads_test" "$scratch" 2>"$1/threads_test.err" || { cat "$1/threads_test.err" >&2; exit 1; }
    grep -q 'gpus.yaml:2: unknown product "H900"' "$1/library_test.err" || { echo "library_test: stderr does not name file, line and reason" >&2; exit 1; }
}

echo "the built library"
mkdir -p "$out/plain"
$CC $flags -o "$out/plain/parse_test" parse_test.c ../src/inventory.c ../src/values.c ../src/products.c
for test in library_test threads_test; do
    $CC $flags -o "$out/plain/$test" $test.c -L"$library" -Wl,-rpath,"$library" -l:libnvidia-ml.so.1 -pthread
done
run_all "$out/plain"
extra=$(nm -D --defined-only "$library/libnvidia-ml.so.1" | awk '{print $3}' | grep -v '^nvml' || true)
[ -z "$extra" ] || { echo "the library exports more than NVML: $extra" >&2; exit 1; }

for sanitizer in address,undefined thread; do
    if ! echo 'int main(void){return 0;}' | $CC -fsanitize=$sanitizer -x c -o "$out/probe" - 2>/dev/null || ! "$out/probe"; then
        echo "-fsanitize=$sanitizer: this compiler does not have it, not run"
        continue
    fi
    echo "-fsanitize=$sanitizer"
    objects=$out/$sanitizer/objects
    rm -rf "$objects" && mkdir -p "$objects"
    (cd "$objects" && $CC $flags -fsanitize=$sanitizer -fno-sanitize-recover=all -c "$root"/src/*.c)
    for test in parse_test library_test threads_test; do
        $CC $flags -fsanitize=$sanitizer -fno-sanitize-recover=all -o "$out/$sanitizer/$test" $test.c "$objects"/*.o -pthread
    done
    run_all "$out/$sanitizer"
done
