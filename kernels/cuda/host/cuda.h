// cuda.h - the words of CUDA C++ that the kernels use, for g++. What needs the other threads of a block goes to emulator.cpp.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#define KERNEL extern "C" void
#define EMULATED(kernel, least_threads, most_threads) \
    static const emulator::Registration registration_of_##kernel(#kernel, emulator::call<kernel>, least_threads, most_threads);
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __constant__ static
// One block runs at a time. A section of its own, so that the emulator can fill it with rubbish before each block.
#define __shared__ static __attribute__((section("shared_memory")))
#define DYNAMIC_SHARED(name) unsigned char* const name = emulator::dynamic_shared()
#define ASSERT_LAUNCH(condition)                                          \
    if (!(condition)) {                                                   \
        emulator::die("%s: this launch leaves something out", __func__); \
    }
#define ASSERT_ALIGNED(pointer, bytes) emulator::assert_aligned(pointer, bytes, __func__)

namespace emulator {

struct Index {
    unsigned x, y, z;
};

// What the running thread is told about itself.
struct Thread {
    Index thread, block, block_dim, grid_dim;
};
extern Thread self;

[[noreturn]] void die(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Those that the machine in this file's place has (the tests mask some).
inline unsigned multiprocessors() {
    const char* text = std::getenv("SIMULATED_CUDA_SMS");
    const unsigned long count = text ? std::strtoul(text, nullptr, 10) : 132;
    return count ? static_cast<unsigned>(count) : 1;
}

unsigned char* dynamic_shared();
unsigned shared_offset(const void* pointer, size_t bytes);
void barrier();

// Waits until all lanes of the warp have come to the same operation; the last one runs it over what each brought.
using Operation = void (*)(void** lanes);
void together(const char* name, Operation operation, void* mine);

// A copy that happens as late as it may.
void copy_later(void* to, const void* from, unsigned bytes, unsigned filled);
void commit_copies();
void wait_for_copies(unsigned but_newest);

// Sixteen-byte accesses of eight lanes at a time: how many more passes their banks cost than one.
void count_conflicts(const unsigned (&offsets)[8]);

inline void assert_aligned(const void* pointer, size_t bytes, const char* where) {
    if (reinterpret_cast<uintptr_t>(pointer) % bytes != 0) {
        die("%s: %p is not aligned to %zu bytes", where, pointer, bytes);
    }
}

template <typename To, typename From>
inline To bits(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// As the device: every NaN becomes the same one.
inline uint16_t to_bf16(float x) {
    const uint32_t from = bits<uint32_t>(x);
    return x != x ? 0x7fff : static_cast<uint16_t>((from + 0x7fff + (from >> 16 & 1)) >> 16);
}

inline float from_bf16(uint16_t x) {
    return bits<float>(static_cast<uint32_t>(x) << 16);
}

inline uint16_t to_half(float x) {
    const uint32_t from = bits<uint32_t>(x), size = from & 0x7fffffff;
    const uint16_t sign = static_cast<uint16_t>(from >> 16 & 0x8000);
    if (size > 0x7f800000) {
        return 0x7fff;
    }
    if (size < 0x38800000) {
        // Below the smallest normal half, halves are multiples of 2^-24: the step of single precision between 0.5 and 1.
        return sign | static_cast<uint16_t>(bits<uint32_t>(bits<float>(size) + 0.5f) - bits<uint32_t>(0.5f));
    }
    const uint32_t carried = size + 0xfff + (size >> 13 & 1);
    return sign | (carried >= 0x47800000 ? 0x7c00 : static_cast<uint16_t>((carried - 0x38000000) >> 13));
}

inline float from_half(uint16_t x) {
    const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16, size = x & 0x7fff;
    if (size < 0x400) {
        return bits<float>(bits<uint32_t>(static_cast<float>(size) * 0x1p-24f) | sign);
    }
    return bits<float>(sign | (size >= 0x7c00 ? size << 13 | 0x7f800000 : (size << 13) + 0x38000000));
}

template <typename T>
inline T shuffle_xor(T mine, unsigned distance) {
    struct Lane {
        T value, result;
        unsigned distance;
    } lane{mine, mine, distance};
    together("__shfl_xor_sync", [](void** lanes) {
        for (unsigned i = 0; i < 32; ++i) {
            Lane& lane = *static_cast<Lane*>(lanes[i]);
            lane.result = static_cast<Lane*>(lanes[i ^ lane.distance])->value;
        }
    }, &lane);
    return lane.result;
}

// Calls a kernel with arguments as cuLaunchKernel takes them.
template <typename... Arguments, size_t... Place>
inline void unpack_and_call(void (*kernel)(Arguments...), void** args, std::index_sequence<Place...>) {
    kernel(*static_cast<Arguments*>(args[Place])...);
}

template <typename... Arguments>
inline void unpack_and_call(void (*kernel)(Arguments...), void** args) {
    unpack_and_call(kernel, args, std::index_sequence_for<Arguments...>{});
}

template <auto Kernel>
void call(void** args) {
    unpack_and_call(Kernel, args);
}

struct Registration {
    Registration(const char* name, void (*call)(void** args), unsigned least_threads, unsigned most_threads);
};

}  // namespace emulator

#define threadIdx (emulator::self.thread)
#define blockIdx (emulator::self.block)
#define blockDim (emulator::self.block_dim)
#define gridDim (emulator::self.grid_dim)

template <typename T>
inline T __shfl_xor_sync(unsigned mask, T mine, unsigned distance) {
    if (mask != 0xffffffffu) {
        emulator::die("__shfl_xor_sync of some lanes only is not emulated");
    }
    return emulator::shuffle_xor(mine, distance);
}

inline void __syncthreads() { emulator::barrier(); }
inline void __syncwarp() { emulator::together("__syncwarp", [](void**) {}, nullptr); }

inline float __uint_as_float(uint32_t x) { return emulator::bits<float>(x); }
inline uint32_t __float_as_uint(float x) { return emulator::bits<uint32_t>(x); }
inline float __uint2float_rn(uint32_t x) { return static_cast<float>(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline uint32_t min(uint32_t a, uint32_t b) { return a < b ? a : b; }
