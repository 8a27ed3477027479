// inputs.cu - the embeddings of a batch of nonces, grown from their seeds and written once.

#include "random.cuh"

namespace {

constexpr unsigned THREADS = 256;
// Pairs of normals of one thread: one 16-byte access of cosines and one of sines.
constexpr unsigned PAIRS = WIDE;

// Writes what lies before `end`; at once where that is all of it and the place is a multiple of 16 bytes.
__device__ __forceinline__ void store_up_to(bf16* to, const bf16* end, const float (&values)[PAIRS]) {
    if (to + PAIRS <= end && reinterpret_cast<uintptr_t>(to) % sizeof(Wide) == 0) {
        store_wide(to, packed(values));
        return;
    }
#pragma unroll
    for (unsigned i = 0; i < PAIRS; ++i) {
        if (to + i < end) {
            to[i] = static_cast<bf16>(pack(values[i], 0.0f));
        }
    }
}

}  // namespace

// Grid (pairs of a segment / 2048 rounded up, segments, nonces). A segment's first half are its cosines, the rest its sines.
KERNEL __launch_bounds__(THREADS) fill_inputs(bf16* out, const uint32_t* seeds, uint32_t segments, uint32_t segment_len, uint32_t len) {
    __shared__ Point points[POINTS];
    load_points(points);
    __syncthreads();
    const uint64_t first = static_cast<uint64_t>(blockIdx.y) * segment_len;
    if (first >= len) {
        return;
    }
    const uint32_t length = min(segment_len, len - static_cast<uint32_t>(first)), half = length / 2 + length % 2;
    const uint32_t index = (blockIdx.x * THREADS + threadIdx.x) * PAIRS;
    if (index >= half) {
        return;
    }
    const uint32_t seed = seeds[blockIdx.z * segments + blockIdx.y];
    float cosines[PAIRS], sines[PAIRS];
#pragma unroll
    for (unsigned i = 0; i < PAIRS; ++i) {
        normal_pair(seed, index + i, half, points, cosines[i], sines[i]);
    }
    bf16* segment = out + static_cast<uint64_t>(blockIdx.z) * len + first;
    store_up_to(segment + index, segment + half, cosines);
    store_up_to(segment + half + index, segment + length, sines);
}

EMULATED(fill_inputs, THREADS, THREADS)
