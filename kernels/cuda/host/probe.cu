// probe.cu - kernels of the emulator's own tests: one function's numbers before they are rounded, and one misuse each.

#include "../random.cuh"

namespace {

constexpr unsigned THREADS = 1024;

}  // namespace

// Normals in single precision: cosines, then sines.
KERNEL probe_normals(float* out, uint32_t seed, uint32_t half) {
    __shared__ Point points[POINTS];
    load_points(points);
    __syncthreads();
    for (uint32_t index = threadIdx.x; index < half; index += blockDim.x) {
        normal_pair(seed, index, half, points, out[index], out[half + index]);
    }
}

KERNEL probe_barrier_missed_by_some() {
    if (threadIdx.x != 7) {
        __syncthreads();
    }
}

KERNEL probe_warp_apart(float* out) {
    if (threadIdx.x % WARP < 9) {
        out[threadIdx.x] = warp_sum(1.0f);
    } else {
        __syncwarp();
    }
}

KERNEL probe_lane_gone(float* out) {
    if (threadIdx.x % WARP != 3) {
        out[threadIdx.x] = warp_sum(1.0f);
    }
}

KERNEL probe_crooked_access(bf16* out) {
    store_wide(out + 1, Wide{});
}

KERNEL probe_beyond_the_buffer(bf16* out, uint32_t len) {
    out[len + threadIdx.x] = 1;
}

KERNEL probe_beyond_the_array(float* out) {
    __shared__ float numbers[WARP];
    numbers[threadIdx.x + 1] = 1.0f;
    out[threadIdx.x] = numbers[threadIdx.x];
}

KERNEL probe_beyond_shared_memory() {
    DYNAMIC_SHARED(bytes);
    bytes[blockDim.x * 128] = 1;
}

KERNEL probe_launch_too_small(bf16*, uint32_t len) {
    ASSERT_LAUNCH(blockDim.x >= len);
}

// Each warp's first lane tells the next warp its number, without a barrier in between.
KERNEL probe_race(uint32_t* out) {
    __shared__ uint32_t numbers[WARP];
    const unsigned warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    numbers[warp] = warp;
    out[threadIdx.x] = numbers[(warp + 1) % warps];
}

EMULATED(probe_normals, WARP, THREADS)
EMULATED(probe_barrier_missed_by_some, WARP, THREADS)
EMULATED(probe_warp_apart, WARP, THREADS)
EMULATED(probe_lane_gone, WARP, THREADS)
EMULATED(probe_crooked_access, WARP, THREADS)
EMULATED(probe_beyond_the_buffer, WARP, THREADS)
EMULATED(probe_beyond_the_array, WARP, THREADS)
EMULATED(probe_beyond_shared_memory, WARP, THREADS)
EMULATED(probe_launch_too_small, WARP, THREADS)
EMULATED(probe_race, WARP, THREADS)
