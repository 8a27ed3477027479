// probe.cu - kernels of the emulator's own tests: one function's numbers before they are rounded, and one misuse each.

#include "../random.cuh"
#include "../silu.cuh"

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

// A digest of all the generator can ask for: logarithm, sine and cosine of every uniform, in the order of kernels/src/elementary.rs.
KERNEL probe_every_uniform(uint64_t* result) {
    __shared__ Point points[POINTS];
    load_points(points);
    __syncthreads();
    if (threadIdx.x != 0) {
        return;
    }
    uint64_t digest = 0, count = 0;
    const auto add = [&](uint64_t word) {
        digest = (digest ^ word) * 0x9e3779b97f4a7c15ull;
        digest = digest << 29 | digest >> 35;
    };
    const auto visit = [&](float hash) {
        const float uniform = __fmul_rn(hash, 0x1p-32f);
        float sine, cosine;
        sine_cosine(__fmul_rn(6.28318530717958647692f, uniform), sine, cosine);
        add(static_cast<uint64_t>(__float_as_uint(sine)) << 32 | __float_as_uint(cosine));
        add(__float_as_uint(natural_logarithm(fmaxf(uniform, 1e-10f), points)));
        ++count;
    };
    for (uint32_t hash = 0; hash <= 1u << 24; ++hash) {
        visit(__uint2float_rn(hash));
    }
    for (uint32_t bits = 0x4b800001u; bits <= 0x4f800000u; ++bits) {
        visit(__uint_as_float(bits));
    }
    result[0] = count;
    result[1] = digest;
}

// The gate before it is rounded.
KERNEL probe_silu(float* numbers, uint32_t count) {
    for (uint32_t at = threadIdx.x; at < count; at += blockDim.x) {
        numbers[at] = silu(numbers[at]);
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
EMULATED(probe_every_uniform, WARP, THREADS)
EMULATED(probe_silu, WARP, THREADS)
EMULATED(probe_barrier_missed_by_some, WARP, THREADS)
EMULATED(probe_warp_apart, WARP, THREADS)
EMULATED(probe_lane_gone, WARP, THREADS)
EMULATED(probe_crooked_access, WARP, THREADS)
EMULATED(probe_beyond_the_buffer, WARP, THREADS)
EMULATED(probe_beyond_the_array, WARP, THREADS)
EMULATED(probe_beyond_shared_memory, WARP, THREADS)
EMULATED(probe_launch_too_small, WARP, THREADS)
EMULATED(probe_race, WARP, THREADS)
