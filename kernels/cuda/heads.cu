// heads.cu - queries and keys before attention: norm per head and rotary positions, in place. One warp per head; the two halves
// of a head are a pair's two numbers. Roundings as in kernels/src/decoder/{norm,attention}.rs.

#include "common.cuh"

namespace {

constexpr unsigned THREADS = 256;
constexpr unsigned HEADS = THREADS / WARP;
// Words of one lane in each half: heads have up to 256 elements.
constexpr unsigned WORDS = 2;

struct alignas(16) Turns {
    float cosine0, sine0, cosine1, sine1;
};

__device__ __forceinline__ uint32_t turned(float x0, float y0, float x1, float y1, const Turns& by) {
    return pack(__fsub_rn(__fmul_rn(x0, by.cosine0), __fmul_rn(y0, by.sine0)),
                __fsub_rn(__fmul_rn(x1, by.cosine1), __fmul_rn(y1, by.sine1)));
}

__device__ __forceinline__ uint32_t turned_other(float x0, float y0, float x1, float y1, const Turns& by) {
    return pack(__fadd_rn(__fmul_rn(y0, by.cosine0), __fmul_rn(x0, by.sine0)),
                __fadd_rn(__fmul_rn(y1, by.cosine1), __fmul_rn(x1, by.sine1)));
}

}  // namespace

// Grid (heads / 8 rounded up, rows); row r stands at position first + r % period.
KERNEL __launch_bounds__(THREADS) head_norm_rope(bf16* x, const bf16* q_weight, const bf16* k_weight, const float* rope, uint32_t stride,
                                                 uint32_t q_heads, uint32_t k_heads, uint32_t head_dim, uint32_t period, uint32_t first, float eps) {
    const unsigned head = blockIdx.x * HEADS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (head >= q_heads + k_heads) {
        return;
    }
    const unsigned half_words = head_dim / 4;
    bf16* start = x + static_cast<uint64_t>(blockIdx.y) * stride + head * head_dim;
    uint32_t* left = reinterpret_cast<uint32_t*>(start);
    uint32_t* right = left + half_words;
    ASSERT_ALIGNED(start, 16);
    // Left half, then right half; two numbers a word.
    float values[2][WORDS][2];
    float squares = 0.0f;
#pragma unroll
    for (unsigned i = 0; i < WORDS; ++i) {
        const unsigned word = lane + i * WARP;
        const bool inside = word < half_words;
        const uint32_t pairs[2] = {inside ? left[word] : 0, inside ? right[word] : 0};
#pragma unroll
        for (unsigned side = 0; side < 2; ++side) {
            values[side][i][0] = low(pairs[side]);
            values[side][i][1] = high(pairs[side]);
            squares = __fadd_rn(squares, __fmul_rn(values[side][i][0], values[side][i][0]));
            squares = __fadd_rn(squares, __fmul_rn(values[side][i][1], values[side][i][1]));
        }
    }
    const bf16* weight = head < q_heads ? q_weight : k_weight;
    if (weight != nullptr) {
        const float scale = norm_scale(warp_sum(squares), head_dim, eps);
        const uint32_t* weights = reinterpret_cast<const uint32_t*>(weight);
#pragma unroll
        for (unsigned i = 0; i < WORDS; ++i) {
            const unsigned word = lane + i * WARP;
#pragma unroll
            for (unsigned side = 0; side < 2; ++side) {
                const uint32_t pair = word < half_words ? weights[side * half_words + word] : 0;
                values[side][i][0] = rounded(normed(values[side][i][0], scale, low(pair)));
                values[side][i][1] = rounded(normed(values[side][i][1], scale, high(pair)));
            }
        }
    }
    const uint64_t position = first + blockIdx.y % period;
    const Turns* turns = reinterpret_cast<const Turns*>(rope) + position * half_words;
    ASSERT_ALIGNED(turns, 16);
#pragma unroll
    for (unsigned i = 0; i < WORDS; ++i) {
        const unsigned word = lane + i * WARP;
        if (word < half_words) {
            const Turns by = turns[word];
            const float(&l)[2] = values[0][i], (&r)[2] = values[1][i];
            left[word] = turned(l[0], r[0], l[1], r[1], by);
            right[word] = turned_other(l[0], r[0], l[1], r[1], by);
        }
    }
}

EMULATED(head_norm_rope, THREADS, THREADS)
