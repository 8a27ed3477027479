// random.cuh - the generator of kernels/src/rng.rs with the elementary functions of kernels/src/elementary.rs, to the bit:
// a hash of an index, uniforms, and normals by Box-Muller, in double precision within and fused where those are fused.
#pragma once

#include "common.cuh"

constexpr unsigned POINTS = 16;

// Sixteen points between 0.7 and 1.4: the inverse of each, and its logarithm.
__constant__ const double INVERSES[POINTS] = {
    1.398907162146528,  1.3403141896637998, 1.286432210124115,  1.2367150214269895, 1.1906977166711752, 1.1479821020556429,
    1.1082251448272158, 1.0711297413057381, 1.036437278977283,  1.0,                0.9492859795739057, 0.8951049428609004,
    0.8476821620351103, 0.8050314851692001, 0.7664671008843108, 0.731428603316328,
};
__constant__ const double LOGARITHMS[POINTS] = {
    -0.33569133332882284, -0.2929040563774074,  -0.2518726580937369,  -0.21245868807117255, -0.17453945183745634,
    -0.1380057072319758,  -0.10275976698545139, -0.06871392447020525, -0.0357891387398228,  0.0,
    0.05204517742929496,  0.11081431298787942,  0.1652495223695143,   0.21687389031699977,  0.26596350281213970,
    0.3127556664073557,
};

// One of the points. Lanes ask for different ones, which shared memory answers at once and constant memory one by one.
struct Point {
    double inverse, logarithm;
};

// Fills the block's table; the caller's barrier follows.
__device__ __forceinline__ void load_points(Point* points) {
    if (threadIdx.x < POINTS) {
        points[threadIdx.x] = {INVERSES[threadIdx.x], LOGARITHMS[threadIdx.x]};
    }
}

__device__ __forceinline__ uint32_t rotated(uint32_t x, unsigned by) {
    return x << by | x >> (32 - by);
}

__device__ __forceinline__ uint32_t hash32(uint32_t key, uint32_t seed) {
    const uint32_t block = rotated(key * 0xcc9e2d51u, 15) * 0x1b873593u;
    uint32_t hash = rotated(seed ^ block, 13) * 5 + 0xe6546b64u;
    hash = (hash ^ hash >> 16) * 0x85ebca6bu;
    hash = (hash ^ hash >> 13) * 0xc2b2ae35u;
    return hash ^ hash >> 16;
}

// Multiplying with a power of two is dividing by its inverse, to the bit.
__device__ __forceinline__ float uniform(uint32_t seed, uint32_t index) {
    return __fmul_rn(__uint2float_rn(hash32(index, seed)), 0x1p-32f);
}

// Natural logarithm of a normal number above zero.
__device__ __forceinline__ float natural_logarithm(float x, const Point* points) {
    const uint32_t bits = __float_as_uint(x), offset = bits - 0x3f330000u;
    const double mantissa = static_cast<double>(__uint_as_float(bits - (offset & 0xff800000u)));
    const double power = static_cast<double>(static_cast<int32_t>(offset) >> 23);
    const Point point = points[(offset >> 19) % POINTS];
    const double rest = __fma_rn(mantissa, point.inverse, -1.0);
    const double nearest = __fma_rn(power, 0.69314718055994530942, point.logarithm);
    const double square = __dmul_rn(rest, rest);
    const double polynomial =
        __fma_rn(square, -0.25089342214237154, __fma_rn(rest, 0.333456765744066, -0.4999997485802103));
    return static_cast<float>(__fma_rn(square, polynomial, __dadd_rn(nearest, rest)));
}

// Sine and cosine of an angle between 0 and a whole turn.
__device__ __forceinline__ void sine_cosine(float angle, float& sine, float& cosine) {
    const double x = static_cast<double>(angle);
    // Two over pi, times 2^24: quarters are counted as a whole number of that many parts.
    const double parts = __dadd_rn(__dmul_rn(x, 10680707.430881744), 8388608.0);
    const double quarter = floor(__dmul_rn(parts, 0x1p-24));
    const double rest = __fma_rn(-quarter, 1.57079632679489661923, x);
    const double square = __dmul_rn(rest, rest), cube = __dmul_rn(square, rest), fourth = __dmul_rn(square, square);
    double s = __fma_rn(__dmul_rn(square, cube), __fma_rn(square, -0.00019517298981385725, 0.008332178146138854),
                        __fma_rn(cube, -0.16666654943701084, rest));
    double c = __fma_rn(__dmul_rn(square, fourth), __fma_rn(square, 2.439045070356454e-5, -0.001388676379437604),
                        __fma_rn(fourth, 0.041666623324344516, __fma_rn(square, -0.49999999725108224, 1.0)));
    // Each quarter further swaps the two and turns one sign; signs change no rounding.
    const int turns = static_cast<int>(quarter);
    if (turns & 1) {
        const double kept = s;
        s = c;
        c = kept;
    }
    sine = static_cast<float>(turns & 2 ? -s : s);
    cosine = static_cast<float>((turns + 1) & 2 ? -c : c);
}

// The normals number `index` and `half` + `index` of a seed, of 2 * `half` altogether.
__device__ __forceinline__ void normal_pair(uint32_t seed, uint32_t index, uint32_t half, const Point* points,
                                            float& by_cosine, float& by_sine) {
    const float radicand = fmaxf(uniform(seed, index), 1e-10f);
    const float radius = __fsqrt_rn(__fmul_rn(-2.0f, natural_logarithm(radicand, points)));
    float sine, cosine;
    sine_cosine(__fmul_rn(6.28318530717958647692f, uniform(seed, half + index)), sine, cosine);
    by_cosine = __fmul_rn(radius, cosine);
    by_sine = __fmul_rn(radius, sine);
}
