// probe_fp8.cu - a kernel of the emulator's own tests: one product of the tensor core in eight bits.

#include "../tensor_core.cuh"

// Every lane's registers: four of a, two of b, four of c.
KERNEL probe_multiply_codes(const uint32_t* a, const uint32_t* b, float* c) {
    const unsigned lane = threadIdx.x;
    const uint32_t mine[4] = {a[lane * 4], a[lane * 4 + 1], a[lane * 4 + 2], a[lane * 4 + 3]};
    float sums[4] = {c[lane * 4], c[lane * 4 + 1], c[lane * 4 + 2], c[lane * 4 + 3]};
    multiply_add_codes(sums, mine, b[lane * 2], b[lane * 2 + 1]);
    for (unsigned i = 0; i < 4; ++i) {
        c[lane * 4 + i] = sums[i];
    }
}

EMULATED(probe_multiply_codes, WARP, WARP)
