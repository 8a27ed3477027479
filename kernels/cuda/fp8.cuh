// fp8.cuh - numbers of eight bits (E4M3: four of exponent, three of fraction, no infinity) and the groups they are scaled in.
#pragma once

#include "common.cuh"

#ifndef __CUDACC__
#include "host/fp8.h"
#endif

// Neighbours along a row that share a scale; blocks of weights are this long and this wide.
constexpr unsigned GROUP = 128;
constexpr float LARGEST_CODE = 448.0f;
// A group of zeros is not divided by zero.
constexpr float SMALLEST_AMOUNT = 1e-10f;

// Four numbers as one word, the first in the lowest byte: ties to even, what is too large to the largest there is.
__device__ __forceinline__ uint32_t pack_codes(float first, float second, float third, float fourth) {
#ifdef __CUDACC__
    uint32_t packed;
    asm("{\n\t"
        ".reg .b16 low, high;\n\t"
        "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n\t"
        "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n\t"
        "mov.b32 %0, {low, high};\n\t"
        "}"
        : "=r"(packed)
        : "f"(first), "f"(second), "f"(third), "f"(fourth));
    return packed;
#else
    return emulator::to_e4m3(first) | static_cast<uint32_t>(emulator::to_e4m3(second)) << 8 | static_cast<uint32_t>(emulator::to_e4m3(third)) << 16 |
           static_cast<uint32_t>(emulator::to_e4m3(fourth)) << 24;
#endif
}

struct alignas(8) Codes {
    uint32_t words[2];
};

// What is no number is never the larger one, signalling or not.
__device__ __forceinline__ float larger(float x, float than) {
    return x > than ? x : than;
}

// Threads that share a group, eight numbers each.
constexpr unsigned SHARERS = GROUP / WIDE;

// Quantises a group: scale, then codes. All lanes of the warp come here; those that are not `inside` store nothing.
__device__ __forceinline__ void quantize_group(const float (&x)[WIDE], bool inside, uint64_t group, uint8_t* codes, float* scales) {
    float largest = 0.0f;
#pragma unroll
    for (unsigned i = 0; i < WIDE; ++i) {
        largest = larger(fabsf(x[i]), largest);
    }
#pragma unroll
    for (unsigned distance = SHARERS / 2; distance > 0; distance /= 2) {
        largest = larger(__shfl_xor_sync(ALL_LANES, largest, distance), largest);
    }
    if (!inside) {
        return;
    }
    const float scale = __fdiv_rn(larger(largest, SMALLEST_AMOUNT), LARGEST_CODE);
    float y[WIDE];
#pragma unroll
    for (unsigned i = 0; i < WIDE; ++i) {
        y[i] = __fdiv_rn(x[i], scale);
    }
    const unsigned mine = threadIdx.x % SHARERS;
    uint8_t* to = codes + group * GROUP + mine * WIDE;
    ASSERT_ALIGNED(to, 8);
    *reinterpret_cast<Codes*>(to) = {{pack_codes(y[0], y[1], y[2], y[3]), pack_codes(y[4], y[5], y[6], y[7])}};
    if (mine == 0) {
        scales[group] = scale;
    }
}
