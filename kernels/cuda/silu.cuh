// silu.cuh - x / (1 + exp(-x)) in single precision, to the bit that of kernels/src/decoder/mlp.rs; the exponential is that of kernels/src/vector.rs.

#pragma once

#include "common.cuh"

namespace {

// Two to the nearest whole power, times a polynomial of what is left.
__device__ __forceinline__ float exponential(float x) {
    // Adding it leaves the nearest whole number in the lowest bits.
    constexpr float WHOLE = 12582912.0f;
    const float bounded = fminf(fmaxf(x, -87.0f), 88.0f);
    const float shifted = __fadd_rn(__fmul_rn(bounded, 1.44269504088896340736f), WHOLE);
    const float power = __fsub_rn(shifted, WHOLE);
    const float rest = __fsub_rn(__fsub_rn(bounded, __fmul_rn(power, 0.6933594f)), __fmul_rn(power, -2.1219444e-4f));
    float polynomial = 1.9875691e-4f;
    polynomial = __fadd_rn(__fmul_rn(polynomial, rest), 1.3981999e-3f);
    polynomial = __fadd_rn(__fmul_rn(polynomial, rest), 8.333452e-3f);
    polynomial = __fadd_rn(__fmul_rn(polynomial, rest), 4.1665796e-2f);
    polynomial = __fadd_rn(__fmul_rn(polynomial, rest), 1.6666665e-1f);
    polynomial = __fadd_rn(__fmul_rn(polynomial, rest), 0.5f);
    const float fraction = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(polynomial, rest), rest), rest), 1.0f);
    const float scale = __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u);
    float result = __fmul_rn(fraction, scale);
    result = x < -87.0f ? 0.0f : result;
    result = x > 88.0f ? __uint_as_float(0x7f800000u) : result;
    return x == x ? result : x;
}

__device__ __forceinline__ float silu(float x) {
    return __fdiv_rn(x, __fadd_rn(1.0f, exponential(-x)));
}

}  // namespace
