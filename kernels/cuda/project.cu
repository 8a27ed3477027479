// project.cu - from the last hidden state of a nonce to its artifact: length, pick, rotation, length, half precision. One block
// per nonce; steps and roundings as in kernels/src/{artifact,pick,rotation}.rs.

#include "random.cuh"

namespace {

constexpr unsigned THREADS = 256;
constexpr unsigned MOST_PICKS = WARP;
constexpr uint64_t NOTHING = ~0ull;

// A dimension and its score; the smaller the better. Scores of one seed never tie.
__device__ __forceinline__ uint64_t scored(uint32_t dimension, uint32_t seed) {
    return static_cast<uint64_t>(hash32(dimension, seed)) << 32 | dimension;
}

// The best of this thread's dimensions that is worse than `than`.
__device__ __forceinline__ uint64_t best_after(uint64_t than, uint32_t width, uint32_t seed, bool any) {
    uint64_t best = NOTHING;
    for (uint32_t dimension = threadIdx.x; dimension < width; dimension += THREADS) {
        const uint64_t candidate = scored(dimension, seed);
        if (candidate < best && (any || candidate > than)) {
            best = candidate;
        }
    }
    return best;
}

__device__ __forceinline__ uint64_t warp_smallest(uint64_t x) {
#pragma unroll
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2) {
        const uint64_t other = __shfl_xor_sync(ALL_LANES, x, distance);
        x = other < x ? other : x;
    }
    return x;
}

// The `k` best dimensions, best first. Whoever loses its best to the block looks for its next.
__device__ __forceinline__ void pick(uint32_t seed, uint32_t width, uint32_t k, uint32_t* winners, uint64_t (*partial)[THREADS / WARP]) {
    uint64_t mine = best_after(0, width, seed, true);
    for (unsigned place = 0; place < k; ++place) {
        uint64_t best = warp_smallest(mine);
        // Two of them by turns: the barrier of the next place is behind every reader of this one.
        uint64_t* warps = partial[place % 2];
        if (threadIdx.x % WARP == 0) {
            warps[threadIdx.x / WARP] = best;
        }
        __syncthreads();
#pragma unroll
        for (unsigned warp = 0; warp < THREADS / WARP; ++warp) {
            best = warps[warp] < best ? warps[warp] : best;
        }
        if (best == mine && best != NOTHING) {
            winners[place] = static_cast<uint32_t>(best);
            mine = best_after(best, width, seed, false);
        }
    }
    __syncthreads();
}

// Euclidean length of `k` numbers, added one by one in double precision.
__device__ __forceinline__ float length_of(const float* numbers, uint32_t k) {
    double sum = -0.0;
    for (unsigned i = 0; i < k; ++i) {
        const double x = static_cast<double>(numbers[i]);
        sum = __dadd_rn(sum, __dmul_rn(x, x));
    }
    return static_cast<float>(__dsqrt_rn(sum));
}

// Unit vectors of the k - 1 reflections, a warp at a time.
__device__ __forceinline__ void load_reflections(const uint32_t* seeds, uint32_t k, const Point* points, float (*reflections)[MOST_PICKS]) {
    const unsigned lane = threadIdx.x % WARP, half = k / 2 + k % 2;
    for (unsigned j = threadIdx.x / WARP; j + 1 < k; j += THREADS / WARP) {
        if (lane < k) {
            float by_cosine, by_sine;
            normal_pair(seeds[j], lane < half ? lane : lane - half, half, points, by_cosine, by_sine);
            reflections[j][lane] = lane < half ? by_cosine : by_sine;
        }
        __syncwarp();
        const float length = __fadd_rn(length_of(reflections[j], k), 1e-30f);
        __syncwarp();
        if (lane < k) {
            reflections[j][lane] = __fdiv_rn(reflections[j][lane], length);
        }
    }
}

// The picked numbers in the network's order: all but the worst by dimension, then the worst.
__device__ __forceinline__ unsigned place_of(unsigned lane, uint32_t k, const uint32_t* winners) {
    if (lane + 1 >= k) {
        return lane;
    }
    unsigned place = 0;
    for (unsigned other = 0; other + 1 < k; ++other) {
        place += winners[other] < winners[lane];
    }
    return place;
}

// One warp. Every lane adds all products in the same order, so the sums are the reference's.
__device__ __forceinline__ void rotate(float* numbers, uint32_t k, const float (*reflections)[MOST_PICKS]) {
    const unsigned lane = threadIdx.x;
    for (unsigned j = 0; j + 1 < k; ++j) {
        float dot = -0.0f;
        for (unsigned i = 0; i < k; ++i) {
            dot = __fadd_rn(dot, __fmul_rn(numbers[i], reflections[j][i]));
        }
        __syncwarp();
        if (lane < k) {
            numbers[lane] = __fsub_rn(numbers[lane], __fmul_rn(__fmul_rn(2.0f, dot), reflections[j][lane]));
        }
        __syncwarp();
    }
}

__device__ __forceinline__ uint16_t half_precision(float x) {
#ifdef __CUDACC__
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    return emulator::to_half(x);
#endif
}

}  // namespace

// Grid (nonces). Of a nonce's k seeds the first is the pick's, the others are the reflections'.
KERNEL __launch_bounds__(THREADS) project(const bf16* state, const uint32_t* seeds, uint16_t* artifacts, uint32_t* not_finite, uint32_t width, uint32_t k) {
    __shared__ Point points[POINTS];
    __shared__ double partial_squares[2][WARP];
    __shared__ uint64_t partial_scores[2][THREADS / WARP];
    __shared__ uint32_t winners[MOST_PICKS];
    __shared__ float reflections[MOST_PICKS][MOST_PICKS], numbers[MOST_PICKS];
    const bf16* row = state + static_cast<uint64_t>(blockIdx.x) * width;
    seeds += blockIdx.x * k;
    load_points(points);
    // The squares' sum, and how many numbers are not finite.
    double sums[2] = {0.0, 0.0};
    for (unsigned at = threadIdx.x * WIDE; at < width; at += THREADS * WIDE) {
        float x[WIDE];
        unpack(load_wide(row + at), x);
#pragma unroll
        for (unsigned i = 0; i < WIDE; ++i) {
            const double wide = static_cast<double>(x[i]);
            sums[0] = __dadd_rn(sums[0], __dmul_rn(wide, wide));
            sums[1] += (__float_as_uint(x[i]) & 0x7f800000u) == 0x7f800000u ? 1.0 : 0.0;
        }
    }
    block_sum(sums, partial_squares);
    load_reflections(seeds + 1, k, points, reflections);
    pick(seeds[0], width, k, winners, partial_scores);
    if (threadIdx.x >= WARP) {
        return;
    }
    const unsigned lane = threadIdx.x;
    const bool finite = sums[1] == 0.0;
    if (lane == 0) {
        not_finite[blockIdx.x] = !finite;
    }
    const float length = __fadd_rn(static_cast<float>(__dsqrt_rn(sums[0])), 1e-8f);
    if (lane < k) {
        numbers[place_of(lane, k, winners)] = __fdiv_rn(low(row[winners[lane]]), length);
    }
    __syncwarp();
    rotate(numbers, k, reflections);
    const float rotated_length = __fadd_rn(length_of(numbers, k), 1e-8f);
    if (lane < k) {
        artifacts[blockIdx.x * k + lane] = finite ? half_precision(__fdiv_rn(numbers[lane], rotated_length)) : 0;
    }
}

EMULATED(project, THREADS, THREADS)
