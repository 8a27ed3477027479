// rows.cu - what happens to whole rows between two products of matrices: residual addition, reflection, norm. One block per
// row; a row stays in registers from its one reading to its one writing. Roundings as in kernels/src/{householder,decoder/norm}.rs.

#include "common.cuh"

// The compiler declares a function of this name; `-Dnorm=norm_of_cuda` renames it before this file begins.
#undef norm

namespace {

constexpr unsigned MOST_THREADS = 1024;
// 16-byte accesses of one thread: a block has a thread for every 16 elements.
constexpr unsigned ACCESSES = 2;

// This thread's part of a row. What lies beyond the row is zero and adds nothing to a sum.
struct Part {
    float x[ACCESSES][WIDE];

    __device__ __forceinline__ void load(const bf16* row, unsigned width) {
        ASSERT_LAUNCH(blockDim.x * ACCESSES * WIDE >= width);
#pragma unroll
        for (unsigned i = 0; i < ACCESSES; ++i) {
            const unsigned at = (i * blockDim.x + threadIdx.x) * WIDE;
            unpack(at < width ? load_wide(row + at) : Wide{}, x[i]);
        }
    }

    __device__ __forceinline__ void store(bf16* row, unsigned width) const {
#pragma unroll
        for (unsigned i = 0; i < ACCESSES; ++i) {
            const unsigned at = (i * blockDim.x + threadIdx.x) * WIDE;
            if (at < width) {
                store_wide(row + at, packed(x[i]));
            }
        }
    }

    // Every element becomes what `f` makes of it and of the element of `other` in its place.
    template <typename F>
    __device__ __forceinline__ void combine(const Part& other, F f) {
#pragma unroll
        for (unsigned i = 0; i < ACCESSES; ++i) {
#pragma unroll
            for (unsigned j = 0; j < WIDE; ++j) {
                x[i][j] = f(x[i][j], other.x[i][j]);
            }
        }
    }

    template <typename F>
    __device__ __forceinline__ float sum(const Part& other, F term) const {
        float sum = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < ACCESSES; ++i) {
#pragma unroll
            for (unsigned j = 0; j < WIDE; ++j) {
                sum = __fadd_rn(sum, term(x[i][j], other.x[i][j]));
            }
        }
        return sum;
    }

    __device__ __forceinline__ void add(const Part& other) {
        combine(other, [](float a, float b) { return rounded(__fadd_rn(a, b)); });
    }

    // Products rounded, their sum not yet.
    __device__ __forceinline__ float dot(const Part& v) const {
        return sum(v, [](float x, float v) { return rounded(__fmul_rn(x, v)); });
    }

    __device__ __forceinline__ void reflect(const Part& v, float dot) {
        const float twice = rounded(__fmul_rn(2.0f, rounded(dot)));
        combine(v, [=](float x, float v) { return rounded(__fsub_rn(x, rounded(__fmul_rn(twice, v)))); });
    }
};

__device__ __forceinline__ void norm_row(Part& row, const bf16* weight, bf16* out, unsigned width, float eps, float (*partial)[WARP]) {
    Part weights;
    weights.load(weight, width);
    float squares[1] = {row.sum(row, [](float x, float) { return __fmul_rn(x, x); })};
    block_sum(squares, partial);
    const float scale = norm_scale(squares[0], width, eps);
    row.combine(weights, [=](float x, float weight) { return normed(x, scale, weight); });
    row.store(out, width);
}

__device__ __forceinline__ uint64_t row_start(unsigned width) {
    return static_cast<uint64_t>(blockIdx.x) * width;
}

}  // namespace

KERNEL __launch_bounds__(MOST_THREADS) norm(const bf16* residual, const bf16* weight, bf16* normed, uint32_t width, float eps) {
    __shared__ float partial[1][WARP];
    Part row;
    row.load(residual + row_start(width), width);
    norm_row(row, weight, normed + row_start(width), width, eps, partial);
}

KERNEL __launch_bounds__(MOST_THREADS) add_norm(const bf16* hidden, bf16* residual, const bf16* weight, bf16* normed, uint32_t width, float eps) {
    __shared__ float partial[1][WARP];
    Part row, other;
    row.load(residual + row_start(width), width);
    other.load(hidden + row_start(width), width);
    row.add(other);
    row.store(residual + row_start(width), width);
    norm_row(row, weight, normed + row_start(width), width, eps, partial);
}

KERNEL __launch_bounds__(MOST_THREADS) reflect_add_norm(const bf16* hidden, bf16* residual, const bf16* v, const bf16* weight, bf16* normed, uint32_t width, float eps) {
    __shared__ float partial[2][WARP], squares[1][WARP];
    Part row, other, direction;
    row.load(residual + row_start(width), width);
    other.load(hidden + row_start(width), width);
    direction.load(v, width);
    float dots[2] = {other.dot(direction), row.dot(direction)};
    block_sum(dots, partial);
    other.reflect(direction, dots[0]);
    row.reflect(direction, dots[1]);
    row.add(other);
    row.store(residual + row_start(width), width);
    norm_row(row, weight, normed + row_start(width), width, eps, squares);
}

// The last row of each sequence.
KERNEL __launch_bounds__(256) gather_last(const bf16* from, bf16* to, uint32_t seq_len, uint32_t width) {
    const bf16* row = from + (static_cast<uint64_t>(blockIdx.x) * seq_len + seq_len - 1) * width;
    for (unsigned at = threadIdx.x * WIDE; at < width; at += blockDim.x * WIDE) {
        store_wide(to + row_start(width) + at, load_wide(row + at));
    }
}

EMULATED(norm, WARP, MOST_THREADS)
EMULATED(add_norm, WARP, MOST_THREADS)
EMULATED(reflect_add_norm, WARP, MOST_THREADS)
EMULATED(gather_last, 256, 256)
