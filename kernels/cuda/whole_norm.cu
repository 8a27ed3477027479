// whole_norm.cu - queries or keys before attention where they are normed over all heads at once, and where only the first elements of a
// head are turned. In place, one block a row. Roundings as in kernels/src/decoder/{norm,attention}.rs.

#include "common.cuh"

namespace {

constexpr unsigned THREADS = 256;

__device__ __forceinline__ void unpack_at(const unsigned char* row, unsigned at, float (&to)[WIDE]) {
    unpack(load_wide(reinterpret_cast<const bf16*>(row) + at), to);
}

}  // namespace

// Grid (rows); row r stands at position first + r % period. Without `weight` nothing is normed. `rotary` is the part of a head that is
// turned, its two halves a pair's two numbers; `rope` holds cosine and sine of each position and pair. 2 * width bytes of dynamic
// shared memory.
KERNEL __launch_bounds__(THREADS) whole_norm_rope(bf16* x, const bf16* weight, const float* rope, uint32_t stride, uint32_t width, uint32_t head_dim,
                                                  uint32_t rotary, uint32_t period, uint32_t first, float eps) {
    DYNAMIC_SHARED(shared);
    __shared__ float partial[1][WARP];
    bf16* row = x + static_cast<uint64_t>(blockIdx.x) * stride;
    float squares[1] = {0.0f};
    for (unsigned at = threadIdx.x * WIDE; at < width; at += THREADS * WIDE) {
        const Wide wide = load_wide(row + at);
        *reinterpret_cast<Wide*>(shared + 2 * at) = wide;
        float values[WIDE];
        unpack(wide, values);
#pragma unroll
        for (unsigned i = 0; i < WIDE; ++i) {
            squares[0] = __fadd_rn(squares[0], __fmul_rn(values[i], values[i]));
        }
    }
    if (weight != nullptr) {
        block_sum(squares, partial);
        const float scale = norm_scale(squares[0], width, eps);
        for (unsigned at = threadIdx.x * WIDE; at < width; at += THREADS * WIDE) {
            float values[WIDE], weights[WIDE];
            unpack_at(shared, at, values);
            unpack(load_wide(weight + at), weights);
#pragma unroll
            for (unsigned i = 0; i < WIDE; ++i) {
                values[i] = normed(values[i], scale, weights[i]);
            }
            *reinterpret_cast<Wide*>(shared + 2 * at) = packed(values);
        }
    }
    // A pair's other number is another thread's.
    __syncthreads();
    const unsigned half = rotary / 2;
    const float* turns = rope + static_cast<uint64_t>(first + blockIdx.x % period) * rotary;
    for (unsigned at = threadIdx.x * WIDE; at < width; at += THREADS * WIDE) {
        const unsigned within = at % head_dim;
        float values[WIDE];
        unpack_at(shared, at, values);
        if (within < rotary) {
            const bool left = within < half;
            const unsigned pair = left ? within : within - half;
            float others[WIDE];
            unpack_at(shared, left ? at + half : at - half, others);
#pragma unroll
            for (unsigned i = 0; i < WIDE; ++i) {
                const float cosine = turns[2 * (pair + i)], sine = turns[2 * (pair + i) + 1];
                const float straight = __fmul_rn(values[i], cosine), across = __fmul_rn(others[i], sine);
                values[i] = left ? __fsub_rn(straight, across) : __fadd_rn(straight, across);
            }
        }
        store_wide(row + at, packed(values));
    }
}

EMULATED(whole_norm_rope, THREADS, THREADS)
