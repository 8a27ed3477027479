// common.cuh - what every kernel stands on: number types, roundings, wide accesses, sums over a warp and over a block.
//
// The same file compiles with nvcc for the device and with g++ for the emulator (host/), which brings its own words for
// what nvcc has built in. Every rounding is written out: nothing is fused unless it says so, no fast mathematics.
#pragma once

#ifdef __CUDACC__
#include <stdint.h>
#define KERNEL extern "C" __global__ void
#define EMULATED(kernel, least_threads, most_threads)
#define ASSERT_ALIGNED(pointer, bytes)
// A launch that would leave something out ends with an error.
#define ASSERT_LAUNCH(condition) \
    if (!(condition)) {          \
        __trap();                \
    }
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#else
#include "host/cuda.h"
#endif

using bf16 = uint16_t;

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
// Elements of one 16-byte access.
constexpr unsigned WIDE = 8;

constexpr float LOG2_E = 1.44269504088896340736f;

struct alignas(16) Wide {
    uint32_t words[4];
};

// Two neighbours as one word, the lower address in the lower half; ties to even.
__device__ __forceinline__ uint32_t pack(float low, float high) {
#ifdef __CUDACC__
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    return emulator::to_bf16(low) | static_cast<uint32_t>(emulator::to_bf16(high)) << 16;
#endif
}

__device__ __forceinline__ float low(uint32_t pair) {
    return __uint_as_float(pair << 16);
}

__device__ __forceinline__ float high(uint32_t pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

// To the nearest bf16, still in single precision.
__device__ __forceinline__ float rounded(float x) {
    return low(pack(x, 0.0f));
}

__device__ __forceinline__ void unpack(const Wide& wide, float (&to)[WIDE]) {
#pragma unroll
    for (unsigned word = 0; word < 4; ++word) {
        to[2 * word] = low(wide.words[word]);
        to[2 * word + 1] = high(wide.words[word]);
    }
}

__device__ __forceinline__ Wide packed(const float (&from)[WIDE]) {
    Wide wide;
#pragma unroll
    for (unsigned word = 0; word < 4; ++word) {
        wide.words[word] = pack(from[2 * word], from[2 * word + 1]);
    }
    return wide;
}

__device__ __forceinline__ Wide load_wide(const bf16* from) {
    ASSERT_ALIGNED(from, 16);
    return *reinterpret_cast<const Wide*>(from);
}

// Into global memory. The compiler, left alone, does not always see that four words are one store.
__device__ __forceinline__ void store_wide(bf16* to, const Wide& wide) {
    ASSERT_ALIGNED(to, 16);
#ifdef __CUDACC__
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(to)), "r"(wide.words[0]), "r"(wide.words[1]), "r"(wide.words[2]), "r"(wide.words[3])
                 : "memory");
#else
    *reinterpret_cast<Wide*>(to) = wide;
#endif
}

// Every lane receives the sum; each level adds the same two numbers in every lane, so all receive the same bits.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2) {
        x = __fadd_rn(x, __shfl_xor_sync(ALL_LANES, x, distance));
    }
    return x;
}

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2) {
        x = __dadd_rn(x, __shfl_xor_sync(ALL_LANES, x, distance));
    }
    return x;
}

__device__ __forceinline__ float minus_infinity() {
    return __uint_as_float(0xff800000u);
}

// The sums of several numbers over a block of whole warps, in every thread. `partial` is read until the block's next barrier.
template <unsigned COUNT, typename T>
__device__ __forceinline__ void block_sum(T (&x)[COUNT], T (*partial)[WARP]) {
#pragma unroll
    for (unsigned which = 0; which < COUNT; ++which) {
        x[which] = warp_sum(x[which]);
    }
    const unsigned warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (warps == 1) {
        return;
    }
    if (lane == 0) {
#pragma unroll
        for (unsigned which = 0; which < COUNT; ++which) {
            partial[which][warp] = x[which];
        }
    }
    __syncthreads();
#pragma unroll
    for (unsigned which = 0; which < COUNT; ++which) {
        x[which] = warp_sum(lane < warps ? partial[which][lane] : T(0));
    }
}

// What a row's elements are multiplied with.
__device__ __forceinline__ float norm_scale(float squares, unsigned width, float eps) {
    const float mean = __fdiv_rn(squares, __uint2float_rn(width));
    return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
}

__device__ __forceinline__ float normed(float x, float scale, float weight) {
    return __fmul_rn(rounded(__fmul_rn(x, scale)), weight);
}
