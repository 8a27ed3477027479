// grouped_gemm.cu - products of rows in eight bits with weights in eight bits, one matrix of weights a group of rows:
// out[row][o] = sum over groups g of 128 of (sum over k in g of x[row][k] w[o][k]) * (x_scale[row][g] w_scale[o / 128][g]).
//
// Two levels: tensor cores add what has one pair of scales, 128 of the inner dimension, from zero; then it is scaled and added in
// single precision. A tile is 128 rows of one group by 128 columns, so that a step has one scale of weights. How many rows a group
// has is known to the device alone: the grid has room for the most tiles there can be, and those that are not end at once.
//
// | grid | threads | dynamic shared memory in bytes |
// |---|---|---|
// | (outer / 128, most tiles of rows) | 256 | 98304 |
//
// What a step to wgmma replaces is `Share::multiply` and how `load` fills a stage; the arguments stay.

#include "fp8.cuh"
#include "tensor_core.cuh"
#include "tile.cuh"

namespace {

constexpr unsigned THREADS = 256, STAGES = 3;
constexpr unsigned ROWS = 128, COLUMNS = 128;
constexpr unsigned TILE_BYTES = ROWS * LINE, STAGE_BYTES = 2 * TILE_BYTES;
// Warps stand four down and two across; each has 32 rows by 64 columns in tiles of 16 by 8.
constexpr unsigned DOWN = 4, M = ROWS / DOWN / 16, N = 8, WARP_ROWS = 16 * M, WARP_COLUMNS = 8 * N;
// Chunks of a tile that one thread copies, and how many rows lie between them.
constexpr unsigned COPIES = ROWS * CHUNKS / THREADS, COPY_ROWS = THREADS / CHUNKS;
static_assert(GROUP == LINE && COLUMNS == GROUP && COLUMNS == 2 * WARP_COLUMNS && WARP_COLUMNS * 2 == LINE);

// Rows of a tile: of which group, from which row of the output on, how many.
struct Rows {
    unsigned group, first, there;
};

// The group whose tiles hold `tile`: the last that begins at or before it and is not empty.
__device__ __forceinline__ unsigned group_of(unsigned tile, const uint32_t* tiles, unsigned groups) {
    unsigned low = 0, high = groups;
    while (high - low > 1) {
        const unsigned middle = (low + high) / 2;
        if (tiles[middle] <= tile) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// One warp's part of a tile.
struct Share {
    float sums[M][N][4], parts[M][N][4];

    __device__ __forceinline__ void begin() {
#pragma unroll
        for (unsigned m = 0; m < M; ++m) {
#pragma unroll
            for (unsigned n = 0; n < N; ++n) {
#pragma unroll
                for (unsigned i = 0; i < 4; ++i) {
                    sums[m][n][i] = 0.0f;
                }
            }
        }
    }

    // parts = rows * weights transposed, of one stage.
    __device__ __forceinline__ void multiply(const unsigned char* rows, const unsigned char* weights, unsigned first_row, unsigned first_column) {
        const unsigned lane = threadIdx.x % WARP;
#pragma unroll
        for (unsigned m = 0; m < M; ++m) {
#pragma unroll
            for (unsigned n = 0; n < N; ++n) {
#pragma unroll
                for (unsigned i = 0; i < 4; ++i) {
                    parts[m][n][i] = 0.0f;
                }
            }
        }
#pragma unroll
        for (unsigned k = 0; k < GROUP / 32; ++k) {
            uint32_t a[M][4];
#pragma unroll
            for (unsigned m = 0; m < M; ++m) {
                load_tiles(a[m], rows + place_in_tile(first_row + m * 16 + lane % 16, k * 2 + lane / 16));
            }
#pragma unroll
            for (unsigned n = 0; n < N / 2; ++n) {
                uint32_t b[4];
                load_tiles(b, weights + place_in_tile(first_column + n * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
                for (unsigned m = 0; m < M; ++m) {
                    multiply_add_codes(parts[m][2 * n], a[m], b[0], b[1]);
                    multiply_add_codes(parts[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

    // sums += parts, scaled.
    __device__ __forceinline__ void promote(const float (&row_scales)[M][2], float weight_scale) {
#pragma unroll
        for (unsigned m = 0; m < M; ++m) {
#pragma unroll
            for (unsigned half = 0; half < 2; ++half) {
                const float scale = __fmul_rn(row_scales[m][half], weight_scale);
#pragma unroll
                for (unsigned n = 0; n < N; ++n) {
#pragma unroll
                    for (unsigned i = half * 2; i < half * 2 + 2; ++i) {
                        sums[m][n][i] = __fmaf_rn(parts[m][n][i], scale, sums[m][n][i]);
                    }
                }
            }
        }
    }

    // Writes the rows that exist, through shared memory that nobody else reads or writes any more.
    __device__ __forceinline__ void finish(unsigned char* shared, bf16* to, unsigned stride, unsigned there) const {
        const unsigned lane = threadIdx.x % WARP;
#pragma unroll
        for (unsigned m = 0; m < M; ++m) {
#pragma unroll
            for (unsigned half = 0; half < 2; ++half) {
#pragma unroll
                for (unsigned n = 0; n < N; ++n) {
                    unsigned char* pair = shared + place_in_tile(m * 16 + half * 8 + lane / 4, n) + lane % 4 * 4;
                    *reinterpret_cast<uint32_t*>(pair) = pack(sums[m][n][half * 2], sums[m][n][half * 2 + 1]);
                }
            }
        }
        __syncwarp();
#pragma unroll
        for (unsigned i = 0; i < WARP_ROWS * CHUNKS / WARP; ++i) {
            const unsigned at = i * WARP + lane, row = at / CHUNKS, chunk = at % CHUNKS;
            if (row < there) {
                const unsigned char* from = shared + place_in_tile(row, chunk);
                store_wide(to + static_cast<uint64_t>(row) * stride + chunk * WIDE, load_wide(reinterpret_cast<const bf16*>(from)));
            }
        }
    }
};

}  // namespace

// `starts` and `tiles` hold of each group its first row and its first tile, and after them the number of all; without them there is
// one group of `rows` rows. Row r of the output is of row order[r] / sharing of x, or of row r without `order`.
KERNEL __launch_bounds__(THREADS) grouped_gemm_fp8(const uint8_t* x, const float* x_scales, const uint8_t* weights, const float* weight_scales, bf16* out,
                                                   const uint32_t* starts, const uint32_t* tiles, const uint32_t* order, uint32_t groups, uint32_t rows,
                                                   uint32_t sharing, uint32_t inner, uint32_t outer, uint32_t out_stride) {
    DYNAMIC_SHARED(shared);
    ASSERT_LAUNCH(gridDim.x * COLUMNS == outer && inner % GROUP == 0);
    const unsigned tile = blockIdx.y;
    Rows mine{0, tile * ROWS, 0};
    if (starts != nullptr) {
        ASSERT_LAUNCH(gridDim.y >= tiles[groups]);
        if (tile >= tiles[groups]) {
            return;
        }
        mine.group = group_of(tile, tiles, groups);
        mine.first = starts[mine.group] + (tile - tiles[mine.group]) * ROWS;
        mine.there = min(ROWS, starts[mine.group + 1] - mine.first);
    } else {
        ASSERT_LAUNCH(gridDim.y == (rows + ROWS - 1) / ROWS);
        mine.there = min(ROWS, rows - mine.first);
    }
    const auto source = [&](unsigned row) { return order != nullptr ? order[mine.first + row] / sharing : mine.first + row; };

    // What this thread copies: the same chunk of a few rows, and of weights as many.
    const unsigned column = blockIdx.x * COLUMNS, copy_row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    const uint8_t* from[COPIES];
#pragma unroll
    for (unsigned i = 0; i < COPIES; ++i) {
        const unsigned row = copy_row + i * COPY_ROWS;
        from[i] = x + static_cast<uint64_t>(row < mine.there ? source(row) : 0) * inner + chunk * CHUNK;
    }
    const uint8_t* from_weights = weights + (static_cast<uint64_t>(mine.group) * outer + column + copy_row) * inner + chunk * CHUNK;
    const auto load = [&](unsigned stage, unsigned step) {
        unsigned char* to = shared + stage * STAGE_BYTES;
#pragma unroll
        for (unsigned i = 0; i < COPIES; ++i) {
            const unsigned row = copy_row + i * COPY_ROWS;
            copy_later(to + place_in_tile(row, chunk), reinterpret_cast<const bf16*>(from[i] + step * GROUP), row < mine.there);
            const uint8_t* weight = from_weights + static_cast<uint64_t>(i * COPY_ROWS) * inner + step * GROUP;
            copy_later(to + TILE_BYTES + place_in_tile(row, chunk), reinterpret_cast<const bf16*>(weight), true);
        }
    };

    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, steps = inner / GROUP;
    const unsigned first_row = warp % DOWN * WARP_ROWS, first_column = warp / DOWN * WARP_COLUMNS;
    // Scales of this lane's rows, and of the weights this tile meets.
    const float* row_scales[M][2];
#pragma unroll
    for (unsigned m = 0; m < M; ++m) {
#pragma unroll
        for (unsigned half = 0; half < 2; ++half) {
            const unsigned row = first_row + m * 16 + half * 8 + lane / 4;
            row_scales[m][half] = x_scales + static_cast<uint64_t>(row < mine.there ? source(row) : source(0)) * steps;
        }
    }
    const float* column_scales = weight_scales + static_cast<uint64_t>(mine.group * gridDim.x + blockIdx.x) * steps;

#pragma unroll
    for (unsigned step = 0; step < STAGES - 1; ++step) {
        if (step < steps) {
            load(step, step);
        }
        commit_copies();
    }
    Share share;
    share.begin();
    for (unsigned step = 0; step < steps; ++step) {
        // This step's stage is there; behind the barrier the stage before it is read no more.
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        const unsigned next = step + STAGES - 1;
        if (next < steps) {
            load(next % STAGES, next);
        }
        commit_copies();
        float scales[M][2];
#pragma unroll
        for (unsigned m = 0; m < M; ++m) {
            scales[m][0] = row_scales[m][0][step];
            scales[m][1] = row_scales[m][1][step];
        }
        const unsigned char* stage = shared + step % STAGES * STAGE_BYTES;
        share.multiply(stage, stage + TILE_BYTES, first_row, first_column);
        share.promote(scales, column_scales[step]);
    }
    // All warps have read the last stage.
    __syncthreads();
    bf16* to = out + static_cast<uint64_t>(mine.first + first_row) * out_stride + column + first_column;
    share.finish(shared + warp * WARP_ROWS * LINE, to, out_stride, mine.there > first_row ? mine.there - first_row : 0);
}

EMULATED(grouped_gemm_fp8, THREADS, THREADS)
