// v1.cu - what `transformer_v1` (docs/poc-v1.md) needs beside products, in half precision: every result is rounded where the reference
// rounds it, single precision within. Correct and plain: the network no longer runs it, so nothing here is tuned.

#include "silu.cuh"

namespace {

using half_bits = uint16_t;

constexpr unsigned THREADS = 256;
constexpr unsigned WARPS = THREADS / WARP;

__device__ __forceinline__ half_bits to_half(float x) {
#ifdef __CUDACC__
    half_bits bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    return emulator::to_half(x);
#endif
}

__device__ __forceinline__ float from_half(half_bits x) {
#ifdef __CUDACC__
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x));
    return wide;
#else
    return emulator::from_half(x);
#endif
}

__device__ __forceinline__ float halved(float x) {
    return from_half(to_half(x));
}

__device__ __forceinline__ float warp_largest(float x) {
#pragma unroll
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
    }
    return x;
}

}  // namespace

// One block a row, of any width.
KERNEL __launch_bounds__(THREADS) v1_norm(const half_bits* x, const half_bits* weight, half_bits* out, uint32_t width, float eps) {
    __shared__ float partial[1][WARP];
    const uint64_t row = static_cast<uint64_t>(blockIdx.x) * width;
    float squares[1] = {0.0f};
    for (unsigned i = threadIdx.x; i < width; i += THREADS) {
        const float value = from_half(x[row + i]);
        squares[0] = __fadd_rn(squares[0], __fmul_rn(value, value));
    }
    block_sum(squares, partial);
    const float scale = norm_scale(squares[0], width, eps);
    for (unsigned i = threadIdx.x; i < width; i += THREADS) {
        out[row + i] = to_half(__fmul_rn(halved(__fmul_rn(from_half(x[row + i]), scale)), from_half(weight[i])));
    }
}

// Grid (rows). Turns neighbours of `heads` heads by the angles of the row's position, in place. Rows are `stride` elements apart, those of a
// sequence are `rows` and the first stands at position `first`. Angles are pairs of halves, cosine first, by position.
KERNEL __launch_bounds__(THREADS) v1_rope(half_bits* x, const half_bits* angles, uint32_t heads, uint32_t head_dim, uint32_t stride, uint32_t rows, uint32_t first) {
    const unsigned pairs = head_dim / 2;
    half_bits* row = x + static_cast<uint64_t>(blockIdx.x) * stride;
    const half_bits* turn = angles + static_cast<uint64_t>(first + blockIdx.x % rows) * head_dim;
    for (unsigned i = threadIdx.x; i < heads * pairs; i += THREADS) {
        const unsigned pair = i % pairs;
        half_bits* at = row + static_cast<uint64_t>(i / pairs) * head_dim + 2 * pair;
        const float cosine = from_half(turn[2 * pair]), sine = from_half(turn[2 * pair + 1]);
        const float a = from_half(at[0]), b = from_half(at[1]);
        at[0] = to_half(__fsub_rn(__fmul_rn(a, cosine), __fmul_rn(b, sine)));
        at[1] = to_half(__fadd_rn(__fmul_rn(a, sine), __fmul_rn(b, cosine)));
    }
}

// Grid (queries of a sequence, query heads, sequences); four bytes of dynamic shared memory a token. A query sees the keys up to its own
// token; the last query stands at the last token. `group` query heads share a key head.
KERNEL __launch_bounds__(THREADS)
    v1_attention(const half_bits* q, const half_bits* k, const half_bits* v, half_bits* out, uint32_t head_dim, uint32_t group, uint32_t tokens, uint32_t q_stride, uint32_t kv_stride,
                 uint32_t out_stride, float root) {
    DYNAMIC_SHARED(memory);
    __shared__ float partial[1][WARP];
    __shared__ float tops[WARPS];
    float* scores = reinterpret_cast<float*>(memory);
    const unsigned visible = tokens - gridDim.x + blockIdx.x + 1, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const uint64_t query_row = static_cast<uint64_t>(blockIdx.z) * gridDim.x + blockIdx.x;
    const half_bits* query = q + query_row * q_stride + blockIdx.y * head_dim;
    const uint64_t first = static_cast<uint64_t>(blockIdx.z) * tokens;
    const unsigned at = blockIdx.y / group * head_dim;

    float top = minus_infinity();
    for (unsigned row = threadIdx.x; row < visible; row += THREADS) {
        const half_bits* key = k + (first + row) * kv_stride + at;
        float dot = 0.0f;
        for (unsigned i = 0; i < head_dim; ++i) {
            dot = __fadd_rn(dot, __fmul_rn(from_half(query[i]), from_half(key[i])));
        }
        const float score = halved(__fdiv_rn(halved(dot), root));
        scores[row] = score;
        top = fmaxf(top, score);
    }
    top = warp_largest(top);
    if (lane == 0) {
        tops[warp] = top;
    }
    __syncthreads();
    for (unsigned i = 0; i < WARPS; ++i) {
        top = fmaxf(top, tops[i]);
    }
    float total[1] = {0.0f};
    for (unsigned row = threadIdx.x; row < visible; row += THREADS) {
        const float weight = exponential(__fsub_rn(scores[row], top));
        scores[row] = weight;
        total[0] = __fadd_rn(total[0], weight);
    }
    block_sum(total, partial);
    for (unsigned row = threadIdx.x; row < visible; row += THREADS) {
        scores[row] = halved(__fdiv_rn(scores[row], total[0]));
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < head_dim; i += THREADS) {
        float sum = 0.0f;
        for (unsigned row = 0; row < visible; ++row) {
            sum = __fadd_rn(sum, __fmul_rn(scores[row], from_half(v[(first + row) * kv_stride + at + i])));
        }
        out[query_row * out_stride + blockIdx.y * head_dim + i] = to_half(sum);
    }
}

// Grid (inner / 256 rounded up, rows). A row of `gate_up` is the gate, then what it lets through.
KERNEL __launch_bounds__(THREADS) v1_swiglu(const half_bits* gate_up, half_bits* out, uint32_t inner) {
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= inner) {
        return;
    }
    const half_bits* row = gate_up + static_cast<uint64_t>(blockIdx.y) * 2 * inner;
    out[static_cast<uint64_t>(blockIdx.y) * inner + i] = to_half(__fmul_rn(halved(silu(from_half(row[i]))), from_half(row[inner + i])));
}

// Grid (width / 256 rounded up, rows). Adds to the state, in place.
KERNEL __launch_bounds__(THREADS) v1_add(half_bits* state, const half_bits* x, uint32_t width) {
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= width) {
        return;
    }
    const uint64_t at = static_cast<uint64_t>(blockIdx.y) * width + i;
    state[at] = to_half(__fadd_rn(from_half(state[at]), from_half(x[at])));
}

EMULATED(v1_norm, THREADS, THREADS)
EMULATED(v1_rope, THREADS, THREADS)
EMULATED(v1_attention, THREADS, THREADS)
EMULATED(v1_swiglu, THREADS, THREADS)
EMULATED(v1_add, THREADS, THREADS)
