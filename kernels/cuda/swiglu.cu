// swiglu.cu - the gate of the MLP: silu(gate) rounded, times up.

#include "silu.cuh"

namespace {

constexpr unsigned THREADS = 256;

}  // namespace

// Grid (inner / 2048 rounded up, rows). A row of `gate_up` is the gate, then what it lets through.
KERNEL __launch_bounds__(THREADS) swiglu(const bf16* gate_up, bf16* out, uint32_t inner) {
    const unsigned at = (blockIdx.x * THREADS + threadIdx.x) * WIDE;
    if (at >= inner) {
        return;
    }
    const bf16* row = gate_up + static_cast<uint64_t>(blockIdx.y) * 2 * inner;
    const Wide wide_gate = load_wide(row + at), wide_up = load_wide(row + inner + at);
    float gate[WIDE], up[WIDE];
    unpack(wide_gate, gate);
    unpack(wide_up, up);
#pragma unroll
    for (unsigned i = 0; i < WIDE; ++i) {
        gate[i] = __fmul_rn(rounded(silu(gate[i])), up[i]);
    }
    store_wide(out + static_cast<uint64_t>(blockIdx.y) * inner + at, packed(gate));
}

EMULATED(swiglu, THREADS, THREADS)
