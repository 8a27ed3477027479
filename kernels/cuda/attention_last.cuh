// attention_last.cuh - attention of one query per sequence, the last token's, which sees all keys: what the last layer needs.
// Reads each key and value once; groups of lanes take keys by turns and join their results in the end. Single precision within.

#pragma once

#include "tensor_core.cuh"

namespace {

constexpr unsigned LAST_THREADS = 256;
// Keys a group reads before it waits for the first of them.
constexpr unsigned AHEAD = 4;

// A group's softmax so far, relative to the largest score so far, and this lane's part of the weighted values.
struct Partial {
    float largest, sum, out[WIDE];

    // Brings what was summed to the measure of `top`.
    __device__ __forceinline__ void measure_by(float top) {
        // Nothing summed yet, and nothing to come: no difference of infinities.
        const float shrink = largest == top ? 1.0f : power_of_two(__fsub_rn(largest, top));
        largest = top;
        sum = __fmul_rn(sum, shrink);
#pragma unroll
        for (unsigned i = 0; i < WIDE; ++i) {
            out[i] = __fmul_rn(out[i], shrink);
        }
    }

    __device__ __forceinline__ void add(float probability, const float (&value)[WIDE]) {
        sum = __fadd_rn(sum, probability);
#pragma unroll
        for (unsigned i = 0; i < WIDE; ++i) {
            out[i] = __fmaf_rn(probability, value[i], out[i]);
        }
    }
};

// Lanes of a group: one for each 16 bytes of a head, rounded up to a power of two.
__device__ __forceinline__ unsigned lanes_of(unsigned head_dim) {
    unsigned lanes = 1;
    while (lanes * WIDE < head_dim) {
        lanes *= 2;
    }
    return lanes;
}

__device__ __forceinline__ Wide load_if(bool inside, const bf16* from) {
    return inside ? load_wide(from) : Wide{};
}

// The largest over the block; what is no number is larger than nothing.
__device__ __forceinline__ float block_largest(float x, float* partial) {
#pragma unroll
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
    }
    if (threadIdx.x % WARP == 0) {
        partial[threadIdx.x / WARP] = x;
    }
    __syncthreads();
#pragma unroll
    for (unsigned warp = 0; warp < LAST_THREADS / WARP; ++warp) {
        x = fmaxf(x, partial[warp]);
    }
    return x;
}

}  // namespace

// Grid (heads, sequences); heads of up to 256 elements. Row b of `q` and of `out` is sequence b's.
KERNEL __launch_bounds__(LAST_THREADS) attention_last(const bf16* q, const bf16* k, const bf16* v, bf16* out, uint32_t q_stride, uint32_t kv_stride,
                                                 uint32_t out_stride, uint32_t heads, uint32_t kv_heads, uint32_t seq_len, uint32_t head_dim,
                                                 float scale) {
    __shared__ float largest[LAST_THREADS / WARP], sums[1][WARP], outs[LAST_THREADS][WIDE];
    const unsigned lanes = lanes_of(head_dim), groups = LAST_THREADS / lanes, group = threadIdx.x / lanes, lane = threadIdx.x % lanes;
    const unsigned head = blockIdx.x, column = lane * WIDE;
    const bool inside = column < head_dim;
    const uint64_t first = static_cast<uint64_t>(blockIdx.y) * seq_len * kv_stride + head / (heads / kv_heads) * head_dim + column;
    const float by = __fmul_rn(scale, LOG2_E);
    float query[WIDE];
    unpack(load_if(inside, q + static_cast<uint64_t>(blockIdx.y) * q_stride + head * head_dim + column), query);

    Partial partial{minus_infinity(), 0.0f, {}};
    // As many rounds in every group: their lanes meet in shuffles.
    for (unsigned round = 0; round < seq_len; round += groups * AHEAD) {
        Wide keys[AHEAD], values[AHEAD];
        float scores[AHEAD];
#pragma unroll
        for (unsigned i = 0; i < AHEAD; ++i) {
            const unsigned key = round + i * groups + group;
            const uint64_t at = first + static_cast<uint64_t>(key) * kv_stride;
            keys[i] = load_if(inside && key < seq_len, k + at);
            values[i] = load_if(inside && key < seq_len, v + at);
        }
        float top = partial.largest;
#pragma unroll
        for (unsigned i = 0; i < AHEAD; ++i) {
            float numbers[WIDE], dot = 0.0f;
            unpack(keys[i], numbers);
#pragma unroll
            for (unsigned j = 0; j < WIDE; ++j) {
                dot = __fmaf_rn(query[j], numbers[j], dot);
            }
            for (unsigned distance = lanes / 2; distance > 0; distance /= 2) {
                dot = __fadd_rn(dot, __shfl_xor_sync(ALL_LANES, dot, distance));
            }
            scores[i] = round + i * groups + group < seq_len ? __fmul_rn(dot, by) : minus_infinity();
            top = fmaxf(top, scores[i]);
        }
        partial.measure_by(top);
#pragma unroll
        for (unsigned i = 0; i < AHEAD; ++i) {
            float numbers[WIDE];
            unpack(values[i], numbers);
            if (round + i * groups + group < seq_len) {
                partial.add(power_of_two(__fsub_rn(scores[i], top)), numbers);
            }
        }
    }
    partial.measure_by(block_largest(partial.largest, largest));
#pragma unroll
    for (unsigned i = 0; i < WIDE; ++i) {
        outs[threadIdx.x][i] = partial.out[i];
    }
    // A group's sum is in each of its lanes; one of them counts.
    float sum[1] = {lane == 0 ? partial.sum : 0.0f};
    block_sum(sum, sums);
    if (threadIdx.x < head_dim) {
        float total = 0.0f;
        for (unsigned other = 0; other < groups; ++other) {
            total = __fadd_rn(total, outs[other * lanes + threadIdx.x / WIDE][threadIdx.x % WIDE]);
        }
        bf16* to = out + static_cast<uint64_t>(blockIdx.y) * out_stride + head * head_dim + threadIdx.x;
        *to = static_cast<bf16>(pack(__fdiv_rn(total, sum[0]), 0.0f));
    }
}

EMULATED(attention_last, LAST_THREADS, LAST_THREADS)
