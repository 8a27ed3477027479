// quantize.cu - activations to eight bits, each group of 128 neighbours of a token by its own scale. Sixteen threads a group, read
// once, written once. Roundings as in kernels/src/fp8.rs.

#include "fp8.cuh"
#include "silu.cuh"

namespace {

constexpr unsigned THREADS = 256;
constexpr unsigned GROUPS = THREADS / SHARERS;

}  // namespace

// Grid (groups / 16 rounded up): rows without gaps, `groups` of them all.
KERNEL __launch_bounds__(THREADS) quantize(const bf16* x, uint8_t* codes, float* scales, uint32_t groups) {
    const unsigned group = blockIdx.x * GROUPS + threadIdx.x / SHARERS;
    const bool inside = group < groups;
    ASSERT_LAUNCH(gridDim.x * GROUPS >= groups);
    float values[WIDE];
    unpack(inside ? load_wide(x + static_cast<uint64_t>(group) * GROUP + threadIdx.x % SHARERS * WIDE) : Wide{}, values);
    quantize_group(values, inside, group, codes, scales);
}

// The same of silu(gate) rounded, times up, rounded. A row of `gate_up` is the gate, then what it lets through; `row_groups` is the
// groups of a row of the result.
KERNEL __launch_bounds__(THREADS) swiglu_quantize(const bf16* gate_up, uint8_t* codes, float* scales, uint32_t groups, uint32_t row_groups) {
    const unsigned group = blockIdx.x * GROUPS + threadIdx.x / SHARERS;
    const bool inside = group < groups;
    ASSERT_LAUNCH(gridDim.x * GROUPS >= groups);
    const uint64_t row = group / row_groups;
    const bf16* from = gate_up + (row * row_groups + group) * GROUP + threadIdx.x % SHARERS * WIDE;
    float gate[WIDE], up[WIDE];
    unpack(inside ? load_wide(from) : Wide{}, gate);
    unpack(inside ? load_wide(from + row_groups * GROUP) : Wide{}, up);
#pragma unroll
    for (unsigned i = 0; i < WIDE; ++i) {
        gate[i] = rounded(__fmul_rn(rounded(silu(gate[i])), up[i]));
    }
    quantize_group(gate, inside, group, codes, scales);
}

EMULATED(quantize, THREADS, THREADS)
EMULATED(swiglu_quantize, THREADS, THREADS)
