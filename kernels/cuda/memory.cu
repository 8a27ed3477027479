// memory.cu - what finds a bad word of memory and a missing multiprocessor: words that follow from their place, written, compared again.
//
// A word is a pattern (its place, mixed), its complement, or two weights in bf16 with random signs and fractions, so that a chain of
// products over them keeps its size. The comparison computes each word again: what it finds has an address and the bits that differ.

#include "common.cuh"

namespace {

constexpr unsigned THREADS = 256;
// Words of one access, and of one finding: how many differ, place of the first, its bits that differ, nothing.
constexpr unsigned QUAD = 4;
constexpr uint32_t NONE = 0xffffffffu;
// Forms of a word; a larger number is the exponent of a weight as bf16 holds it.
constexpr uint32_t PATTERN = 0, COMPLEMENT = 1;

__device__ __forceinline__ uint32_t mixed(uint32_t segment, uint32_t place, uint32_t seed) {
    uint64_t x = (static_cast<uint64_t>(segment) << 32 | place) ^ static_cast<uint64_t>(seed) << 29;
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93ull;
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93ull;
    return static_cast<uint32_t>(x >> 32);
}

// Three of sixteen weights are of half the size: the mean square of all is then twice that of the exponent.
__device__ __forceinline__ uint32_t weight(uint32_t random, uint32_t exponent) {
    const uint32_t half = (random >> 8 & 15u) >= 13u ? 1u : 0u;
    return (random & 0x8000u) | (exponent - half) << 7 | (random & 0x7fu);
}

__device__ __forceinline__ uint32_t word_of(uint32_t segment, uint32_t place, uint32_t seed, uint32_t form) {
    const uint32_t random = mixed(segment, place, seed);
    if (form == PATTERN) {
        return random;
    }
    if (form == COMPLEMENT) {
        return ~random;
    }
    return weight(random & 0xffffu, form) | weight(random >> 16, form) << 16;
}

}  // namespace

// Any grid. `words` is a multiple of four.
KERNEL __launch_bounds__(THREADS) fill_words(uint32_t* to, uint32_t words, uint32_t segment, uint32_t seed, uint32_t form) {
    ASSERT_LAUNCH(words % QUAD == 0);
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * THREADS * QUAD;
    for (uint64_t at = (static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x) * QUAD; at < words; at += step) {
        Wide wide;
#pragma unroll
        for (unsigned i = 0; i < QUAD; ++i) {
            wide.words[i] = word_of(segment, static_cast<uint32_t>(at) + i, seed, form);
        }
        store_wide(reinterpret_cast<bf16*>(to + at), wide);
    }
}

// Any grid; four words a block are written to `found`.
KERNEL __launch_bounds__(THREADS) check_words(const uint32_t* from, uint32_t* found, uint32_t words, uint32_t segment, uint32_t seed, uint32_t form) {
    __shared__ uint32_t counts[THREADS];
    __shared__ uint32_t firsts[THREADS];
    __shared__ uint32_t masks[THREADS];
    ASSERT_LAUNCH(words % QUAD == 0);
    uint32_t count = 0, first = NONE, mask = 0;
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * THREADS * QUAD;
    for (uint64_t at = (static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x) * QUAD; at < words; at += step) {
        const Wide wide = load_wide(reinterpret_cast<const bf16*>(from + at));
#pragma unroll
        for (unsigned i = 0; i < QUAD; ++i) {
            const uint32_t place = static_cast<uint32_t>(at) + i;
            const uint32_t differ = wide.words[i] ^ word_of(segment, place, seed, form);
            if (differ != 0) {
                ++count;
                if (first == NONE) {
                    first = place;
                    mask = differ;
                }
            }
        }
    }
    counts[threadIdx.x] = count;
    firsts[threadIdx.x] = first;
    masks[threadIdx.x] = mask;
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t all = 0, lowest = NONE, bits = 0;
        for (unsigned i = 0; i < THREADS; ++i) {
            all += counts[i];
            if (firsts[i] < lowest) {
                lowest = firsts[i];
                bits = masks[i];
            }
        }
        uint32_t* out = found + blockIdx.x * QUAD;
        out[0] = all;
        out[1] = lowest;
        out[2] = bits;
        out[3] = 0;
    }
}

// Which multiprocessor each block ran on, one word a block. A block stays for a while, so that the next one has to go elsewhere.
KERNEL __launch_bounds__(1024) multiprocessors(uint32_t* out) {
#ifdef __CUDACC__
    constexpr long long STAY = 200000;
    const long long begun = clock64();
    uint32_t mine;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(mine));
    while (clock64() - begun < STAY) {
    }
#else
    const uint32_t mine = blockIdx.x % emulator::multiprocessors();
#endif
    if (threadIdx.x == 0) {
        out[blockIdx.x] = mine;
    }
}

EMULATED(fill_words, THREADS, THREADS)
EMULATED(check_words, THREADS, THREADS)
EMULATED(multiprocessors, 32, 1024)
