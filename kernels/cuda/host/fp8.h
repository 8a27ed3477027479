// fp8.h - E4M3 as the PTX ISA has it: exponent of four bits with bias 7, fraction of three, no infinity, one NaN of either sign.
#pragma once

#include "cuda.h"

namespace emulator {

// To the nearest, ties to even; beyond the largest, infinity too, the largest.
inline uint8_t to_e4m3(float x) {
    const uint32_t from = bits<uint32_t>(x);
    const uint8_t sign = static_cast<uint8_t>(from >> 24 & 0x80);
    float size = bits<float>(from & 0x7fffffff);
    if (x != x) {
        return 0x7f;
    }
    if (size >= 448.0f) {
        return sign | 0x7e;
    }
    if (size < 0x1p-6f) {
        // Multiples of 2^-9: the step of single precision from 2^14 on.
        return sign | static_cast<uint8_t>(bits<uint32_t>(size + 0x1p14f) - bits<uint32_t>(0x1p14f));
    }
    const uint32_t pattern = bits<uint32_t>(size);
    return sign | static_cast<uint8_t>(((pattern + 0x7ffff + (pattern >> 20 & 1)) >> 20) - (120 << 3));
}

inline float from_e4m3(uint8_t code) {
    const int exponent = code >> 3 & 15, fraction = code & 7;
    float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9) : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
    if ((code & 0x7f) == 0x7f) {
        size = bits<float>(0x7fc00000u);
    }
    return code & 0x80 ? -size : size;
}

}  // namespace emulator
