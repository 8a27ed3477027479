#!/usr/bin/env bash
# cubins.sh [--check] - compiles kernels/cuda for the device with a pinned compiler, no GPU needed, and looks at what came out:
# no spills, no local memory, tensor cores where they belong. With --check, what is checked in must be what comes out, to the byte.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

check=
case "${1:-}" in
    "") ;;
    --check) check=yes ;;
    *) echo "usage: ci/cubins.sh [--check]" >&2; exit 2 ;;
esac

sources=kernels/cuda
kept=$sources/cubin
compiler=${CARGO_TARGET_DIR:-target}/cuda-compiler
mkdir -p "$compiler"
compiler=$(cd "$compiler" && pwd)

# What was compiled: kept beside the result, so that a forgotten run shows also where no compiler can be had.
of_sources() { (cd $sources && cat compiler.txt ./*.cu ./*.cuh | sha256sum | cut -d' ' -f1); }
if [ -n "$check" ] && [ "$(of_sources)" != "$(cat $kept/sources.sha256)" ]; then
    echo "cubins: $kept is of other sources: run ci/cubins.sh and commit" >&2
    exit 1
fi

# The compiler, once for each list of pins.
pins=$(sha256sum $sources/compiler.txt | cut -d' ' -f1)
if [ "$(cat "$compiler/pins" 2>/dev/null)" != "$pins" ]; then
    rm -rf "$compiler"
    mkdir -p "$compiler"
    if ! python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes --only-binary :all: \
        --target "$compiler" -r $sources/compiler.txt; then
        [ -n "$check" ] || exit 1
        echo "cubins: NOT COMPILED, the pinned compiler cannot be installed here; $kept is of these sources by its digest alone"
        exit 0
    fi
    echo "$pins" >"$compiler/pins"
fi
export PATH="$compiler/nvidia/cu13/bin:$PATH"

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT

# A name of the kernels' own that the compiler also declares is renamed there; rows.cu takes it back.
flags=(-std=c++17 -fmad=false -Dnorm=norm_of_cuda)

# NAME: the oldest architecture whose instructions suffice; numbers of eight bits are of 8.9.
least() {
    case "$1" in
        quantize | grouped_gemm) echo compute_89 ;;
        *) echo compute_80 ;;
    esac
}

compile() { # DIRECTORY NAME: from where it lies, so that no path gets in
    local least
    least=$(least "$2")
    (
        cd "$1"
        nvcc "${flags[@]}" -gencode=arch=compute_90a,code=sm_90a -Xptxas -v -cubin -o "$built/$2.sm_90a.cubin" "$2.cu" 2>"$built/$2.log"
        nvcc "${flags[@]}" -gencode="arch=$least,code=$least" -ptx -o "$built/$2.$least.ptx" "$2.cu" 2>>"$built/$2.log"
    ) || {
        cat "$built/$2.log" >&2
        return 1
    }
}

failed=
complain() {
    echo "cubins: $*" >&2
    failed=yes
}

# KERNEL PATTERN: its machine code holds it.
has() { grep -qE "$2" "$built/$1.sass"; }
needs() { # KERNEL PATTERN...
    local kernel=$1 pattern
    shift
    for pattern in "$@"; do
        has "$kernel" "$pattern" || complain "$kernel: no $pattern in its machine code"
    done
}

# KERNEL: what its machine code must be like.
examine() {
    ! has "$1" '\b(LDL|STL)\b' || complain "$1: local memory (LDL or STL)"
    case "$1" in
        attention_last) needs "$1" 'LDG\.E\.128' ;;
        attention_*) needs "$1" 'H(G)?MMA' 'LDSM' 'LDGSTS|UTMALDG' 'STG\.E\.128' ;;
        norm | add_norm | reflect_add_norm | gather_last | swiglu) needs "$1" 'LDG\.E\.128' 'STG\.E\.128' ;;
        fill_inputs) needs "$1" 'STG\.E\.128' 'DFMA' ;;
        project) needs "$1" 'LDG\.E\.128' ;;
        quantize | swiglu_quantize) needs "$1" 'LDG\.E\.128' 'STG\.E\.64' 'E4M3' ;;
        # For sm_90a ptxas makes products in half precision of those in eight bits: see docs/fp8-moe.md.
        grouped_gemm_fp8) needs "$1" 'QMMA|F2FP\.F16\.E4M3\.UNPACK' 'QMMA|HMMA' 'LDSM' 'LDGSTS' 'STG\.E\.128' ;;
        router) needs "$1" 'HMMA' 'LDSM' 'LDGSTS' ;;
        combine | whole_norm_rope) needs "$1" 'LDG\.E\.128' 'STG\.E\.128' ;;
        route | count_routes | place_routes) ! has "$1" '\b(ATOM|ATOMG|ATOMS|RED)\b' || complain "$1: an atomic operation" ;;
        fill_words) needs "$1" 'STG\.E\.128' ;;
        check_words) needs "$1" 'LDG\.E\.128' ;;
        multiprocessors) needs "$1" 'SR_VIRTUALSMID|SR_VIRTID|SMID' ;;
        v1_*) ;;
        head_norm_rope) ;;
        *) complain "$1: say in ci/cubins.sh what its machine code must hold" ;;
    esac
}

printf '%-18s %9s %13s %11s\n' kernel registers shared/bytes spill/bytes
for source in $sources/*.cu; do
    name=$(basename "$source" .cu)
    compile "$sources" "$name"
    ! grep -i warning "$built/$name.log" >&2 || complain "$name: the compiler warns"
    # Of each kernel: name, registers, static shared memory, stack and spilled bytes.
    awk '/Compiling entry function/ {split($0, part, "\047"); kernel = part[2]}
         /bytes stack frame/ {spilled = $1 + $5 + $9}
         /: Used/ {shared = 0; for (i = 1; i < NF; ++i) if ($(i + 2) ~ /^smem/) shared = $i; print kernel, $5, shared, spilled}' "$built/$name.log" >"$built/$name.kernels"
    [ -s "$built/$name.kernels" ] || complain "$name: no kernels"
    while read -r kernel registers shared spilled; do
        printf '%-18s %9s %13s %11s\n' "$kernel" "$registers" "$shared" "$spilled"
        [ "$spilled" = 0 ] || complain "$kernel: $spilled bytes of stack or spills"
        cuobjdump -sass -fun "$kernel" "$built/$name.sm_90a.cubin" >"$built/$kernel.sass"
        has "$kernel" 'EXIT' || complain "$kernel: no machine code"
        examine "$kernel"
    done <"$built/$name.kernels"
done
rm -f "$built"/*.sass "$built"/*.log "$built"/*.kernels
of_sources >"$built/sources.sha256"

# Nothing of where or when: the same from a copy elsewhere.
copy=$(mktemp -d)
trap 'rm -rf "$built" "$copy"' EXIT
mkdir -p "$copy/some/where"
cp $sources/*.cu $sources/*.cuh "$copy/some/where"
first=$built
built=$copy
for source in "$copy"/some/where/*.cu; do
    compile "$copy/some/where" "$(basename "$source" .cu)"
done
built=$first
for file in "$built"/*.cubin "$built"/*.ptx; do
    cmp -s "$file" "$copy/$(basename "$file")" || complain "$(basename "$file"): depends on where it is compiled"
done

if [ -n "$check" ]; then
    diff -rq "$built" $kept >&2 || complain "$kept is not what its sources give: run ci/cubins.sh and commit"
elif [ -z "$failed" ]; then
    mkdir -p $kept
    rm -f $kept/*.cubin $kept/*.ptx
    cp "$built"/* $kept/
fi
[ -z "$failed" ] || exit 1
echo "cubins: $([ -n "$check" ] && echo checked || echo wrote) $(ls $kept | wc -l) files, $(cat $kept/* | wc -c) bytes"
