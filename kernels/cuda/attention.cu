// attention.cu - causal attention of whole sequences, after FlashAttention-2: tiles of keys stream through shared memory past a
// tile of queries, scores and probabilities stay in registers. In and out bf16; scores, softmax and sums in single precision,
// probabilities rounded to bf16 before they meet the values.
//
// | kernel | grid | threads | dynamic shared memory in bytes |
// |---|---|---|---|
// | attention_16 | (seq_len / 128 rounded up, heads, sequences) | 128 | 12288 |
// | attention_32 | the same | 128 | 24576 |
// | attention_64 | the same | 128 | 49152 |
// | attention_128 | the same | 128 | 98304 |
// | attention_last (attention_last.cuh) | (heads, sequences) | 256 | 0 |
//
// attention_128 needs CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES raised to its size.

#include "attention_last.cuh"
#include "tensor_core.cuh"

namespace {

constexpr unsigned THREADS = 128;
constexpr unsigned WARPS = THREADS / WARP;

// A tile of rows of bf16 in shared memory, in chunks of 16 bytes. A chunk's place is exchanged by its row, so that eight rows'
// chunks of one column lie in eight different groups of banks.
template <unsigned WIDTH>
struct Tile {
    static constexpr unsigned CHUNKS = WIDTH / WIDE;
    static constexpr unsigned ROW_BYTES = WIDTH * 2;
    // Rows that share the 128 bytes of all banks.
    static constexpr unsigned ROWS_PER_LINE = CHUNKS < 8 ? 8 / CHUNKS : 1;
    static constexpr unsigned PLACES = CHUNKS < 8 ? CHUNKS : 8;

    static __device__ __forceinline__ unsigned offset(unsigned row, unsigned chunk) {
        return row * ROW_BYTES + (chunk ^ row / ROWS_PER_LINE % PLACES) * 16;
    }

    // Asks for `ROWS` rows, of which the first `there` exist.
    template <unsigned ROWS>
    static __device__ __forceinline__ void load(unsigned char* to, const bf16* from, unsigned stride, unsigned there) {
        static_assert(ROWS * CHUNKS % THREADS == 0);
#pragma unroll
        for (unsigned i = 0; i < ROWS * CHUNKS / THREADS; ++i) {
            const unsigned at = i * THREADS + threadIdx.x, row = at / CHUNKS, chunk = at % CHUNKS;
            const bool inside = row < there;
            copy_later(to + offset(row, chunk), from + static_cast<uint64_t>(inside ? row : 0) * stride + chunk * WIDE, inside);
        }
    }
};

// What a launch is about.
struct Problem {
    const bf16 *q, *k, *v;
    bf16* out;
    unsigned q_stride, kv_stride, out_stride, heads, kv_heads, seq_len;
    float scale;
};

// Accumulators of a row of tiles, empty.
template <unsigned TILES>
__device__ __forceinline__ void clear(float (&row)[TILES][4]) {
#pragma unroll
    for (unsigned n = 0; n < TILES; ++n) {
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            row[n][i] = 0.0f;
        }
    }
}

// One warp's share: M times 16 queries of WIDTH elements against tiles of KEYS keys.
template <unsigned WIDTH, unsigned M, unsigned KEYS>
struct Share {
    using Rows = Tile<WIDTH>;
    static constexpr unsigned QUERIES = 16 * M;

    // Tiles of 16 queries by 8: outputs, scores. A lane holds of each two neighbours in row lane / 4 and two in the row eight below.
    float out[M][WIDTH / 8][4];
    float scores[M][KEYS / 8][4];
    // Of this lane's two rows: the largest score so far, and this lane's part of the sum of probabilities.
    float largest[M][2], sum[M][2];

    __device__ __forceinline__ void begin() {
#pragma unroll
        for (unsigned m = 0; m < M; ++m) {
            clear(out[m]);
            largest[m][0] = largest[m][1] = minus_infinity();
            sum[m][0] = sum[m][1] = 0.0f;
        }
    }

    // scores = queries * keys transposed.
    __device__ __forceinline__ void score(const unsigned char* queries, const unsigned char* keys) {
        const unsigned lane = threadIdx.x % WARP;
#pragma unroll
        for (unsigned m = 0; m < M; ++m) {
            clear(scores[m]);
        }
#pragma unroll
        for (unsigned k = 0; k < WIDTH / 16; ++k) {
            uint32_t a[M][4];
#pragma unroll
            for (unsigned m = 0; m < M; ++m) {
                load_tiles(a[m], queries + Rows::offset(m * 16 + lane % 16, k * 2 + lane / 16));
            }
#pragma unroll
            for (unsigned n = 0; n < KEYS / 16; ++n) {
                uint32_t b[4];
                load_tiles(b, keys + Rows::offset(n * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
                for (unsigned m = 0; m < M; ++m) {
                    multiply_add(scores[m][2 * n], a[m], b[0], b[1]);
                    multiply_add(scores[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

    // What comes after a query is not seen by it.
    __device__ __forceinline__ void mask(unsigned first_query, unsigned first_key) {
        const unsigned lane = threadIdx.x % WARP;
#pragma unroll
        for (unsigned m = 0; m < M; ++m) {
#pragma unroll
            for (unsigned n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                for (unsigned i = 0; i < 4; ++i) {
                    const unsigned query = first_query + m * 16 + lane / 4 + i / 2 * 8;
                    const unsigned key = first_key + n * 8 + lane % 4 * 2 + i % 2;
                    scores[m][n][i] = key > query ? minus_infinity() : scores[m][n][i];
                }
            }
        }
    }

    // Scores to probabilities relative to the largest score so far; what was summed before is brought to the same measure.
    // `scale` is that of the scores times log2(e): exponentials are powers of two.
    __device__ __forceinline__ void soften(float scale) {
#pragma unroll
        for (unsigned m = 0; m < M; ++m) {
#pragma unroll
            for (unsigned half = 0; half < 2; ++half) {
                float top = largest[m][half];
#pragma unroll
                for (unsigned n = 0; n < KEYS / 8; ++n) {
                    top = fmaxf(top, fmaxf(scores[m][n][half * 2], scores[m][n][half * 2 + 1]));
                }
                // Four lanes hold a row.
                top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
                top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2));
                const float shift = __fmul_rn(top, scale);
                const float shrink = power_of_two(__fmaf_rn(largest[m][half], scale, -shift));
                largest[m][half] = top;
                float total = __fmul_rn(sum[m][half], shrink);
#pragma unroll
                for (unsigned n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                    for (unsigned i = half * 2; i < half * 2 + 2; ++i) {
                        scores[m][n][i] = power_of_two(__fmaf_rn(scores[m][n][i], scale, -shift));
                        total = __fadd_rn(total, scores[m][n][i]);
                    }
                }
                sum[m][half] = total;
#pragma unroll
                for (unsigned n = 0; n < WIDTH / 8; ++n) {
                    out[m][n][half * 2] = __fmul_rn(out[m][n][half * 2], shrink);
                    out[m][n][half * 2 + 1] = __fmul_rn(out[m][n][half * 2 + 1], shrink);
                }
            }
        }
    }

    // out += probabilities * values.
    __device__ __forceinline__ void gather(const unsigned char* values) {
        const unsigned lane = threadIdx.x % WARP;
#pragma unroll
        for (unsigned k = 0; k < KEYS / 16; ++k) {
            uint32_t a[M][4];
#pragma unroll
            for (unsigned m = 0; m < M; ++m) {
                const float(&left)[4] = scores[m][2 * k], (&right)[4] = scores[m][2 * k + 1];
                a[m][0] = pack(left[0], left[1]);
                a[m][1] = pack(left[2], left[3]);
                a[m][2] = pack(right[0], right[1]);
                a[m][3] = pack(right[2], right[3]);
            }
#pragma unroll
            for (unsigned n = 0; n < WIDTH / 16; ++n) {
                uint32_t b[4];
                load_tiles_transposed(b, values + Rows::offset(k * 16 + lane % 16, n * 2 + lane / 16));
#pragma unroll
                for (unsigned m = 0; m < M; ++m) {
                    multiply_add(out[m][2 * n], a[m], b[0], b[1]);
                    multiply_add(out[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

    // Writes the outputs of the `there` queries that exist, through this warp's queries in shared memory, which are read no more.
    __device__ __forceinline__ void finish(unsigned char* queries, bf16* to, unsigned stride, unsigned there) {
        const unsigned lane = threadIdx.x % WARP;
        __syncwarp();
#pragma unroll
        for (unsigned m = 0; m < M; ++m) {
#pragma unroll
            for (unsigned half = 0; half < 2; ++half) {
                float total = sum[m][half];
                total = __fadd_rn(total, __shfl_xor_sync(ALL_LANES, total, 1));
                total = __fadd_rn(total, __shfl_xor_sync(ALL_LANES, total, 2));
                const float by = __fdiv_rn(1.0f, total);
                const unsigned row = m * 16 + half * 8 + lane / 4;
#pragma unroll
                for (unsigned n = 0; n < WIDTH / 8; ++n) {
                    uint32_t* pair = reinterpret_cast<uint32_t*>(queries + Rows::offset(row, n) + lane % 4 * 4);
                    *pair = pack(__fmul_rn(out[m][n][half * 2], by), __fmul_rn(out[m][n][half * 2 + 1], by));
                }
            }
        }
        __syncwarp();
#pragma unroll
        for (unsigned i = 0; i < QUERIES * Rows::CHUNKS / WARP; ++i) {
            const unsigned at = i * WARP + lane, row = at / Rows::CHUNKS, chunk = at % Rows::CHUNKS;
            if (row < there) {
                const unsigned char* from = queries + Rows::offset(row, chunk);
                store_wide(to + static_cast<uint64_t>(row) * stride + chunk * WIDE, load_wide(reinterpret_cast<const bf16*>(from)));
            }
        }
    }
};

// One block: a tile of queries of one head. Shared memory: the queries, then two tiles of keys, then two of values.
template <unsigned WIDTH, unsigned M, unsigned KEYS>
__device__ __forceinline__ void attend(const Problem& problem, unsigned char* shared) {
    using Warp = Share<WIDTH, M, KEYS>;
    using Rows = Tile<WIDTH>;
    constexpr unsigned QUERIES = Warp::QUERIES * WARPS, TILE_BYTES = KEYS * Rows::ROW_BYTES;
    static_assert(QUERIES == 128 && QUERIES * Rows::ROW_BYTES + 4 * TILE_BYTES == 768 * WIDTH, "the table above");

    ASSERT_LAUNCH(gridDim.x == (problem.seq_len + QUERIES - 1) / QUERIES);
    // Blocks start in the order of their number: all heads' last tiles first, they have the most keys.
    const unsigned number = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z), columns = gridDim.y * gridDim.z;
    const unsigned tile = gridDim.x - 1 - number / columns, head = number % columns % gridDim.y, sequence = number % columns / gridDim.y;

    const unsigned first_query = tile * QUERIES, warp = threadIdx.x / WARP, mine = first_query + warp * Warp::QUERIES;
    const uint64_t first_row = static_cast<uint64_t>(sequence) * problem.seq_len;
    const unsigned kv_column = head / (problem.heads / problem.kv_heads) * WIDTH;
    const bf16* q = problem.q + (first_row + first_query) * problem.q_stride + head * WIDTH;
    const bf16* k = problem.k + first_row * problem.kv_stride + kv_column;
    const bf16* v = problem.v + first_row * problem.kv_stride + kv_column;
    const unsigned last_key = min(problem.seq_len, first_query + QUERIES), tiles = (last_key + KEYS - 1) / KEYS;

    unsigned char* queries = shared;
    unsigned char* keys = queries + QUERIES * Rows::ROW_BYTES;
    unsigned char* values = keys + 2 * TILE_BYTES;
    unsigned char* my_queries = queries + warp * Warp::QUERIES * Rows::ROW_BYTES;

    Rows::template load<QUERIES>(queries, q, problem.q_stride, problem.seq_len - first_query);
    Rows::template load<KEYS>(keys, k, problem.kv_stride, problem.seq_len);
    commit_copies();
    Rows::template load<KEYS>(values, v, problem.kv_stride, problem.seq_len);
    commit_copies();

    Warp share;
    share.begin();
    const float scale = __fmul_rn(problem.scale, LOG2_E);
    for (unsigned t = 0; t < tiles; ++t) {
        const unsigned first_key = t * KEYS, buffer = t % 2 * TILE_BYTES;
        // All but the newest group, the values of this tile; behind the barrier the other buffers are read no more.
        wait_for_copies<1>();
        __syncthreads();
        if (t + 1 < tiles) {
            const unsigned next = first_key + KEYS, other = (t + 1) % 2 * TILE_BYTES;
            const uint64_t start = static_cast<uint64_t>(next) * problem.kv_stride;
            Rows::template load<KEYS>(keys + other, k + start, problem.kv_stride, problem.seq_len - next);
            commit_copies();
            Rows::template load<KEYS>(values + other, v + start, problem.kv_stride, problem.seq_len - next);
            commit_copies();
        } else {
            commit_copies();
            commit_copies();
        }
        // A warp whose queries all come before this tile, or after the sequence, has nothing to do.
        const bool seen = first_key < mine + Warp::QUERIES && mine < problem.seq_len;
        if (seen) {
            share.score(my_queries, keys + buffer);
            if (first_key + KEYS > mine + 1) {
                share.mask(mine, first_key);
            }
            share.soften(scale);
        }
        wait_for_copies<2>();
        __syncthreads();
        if (seen) {
            share.gather(values + buffer);
        }
    }
    bf16* out = problem.out + (first_row + mine) * problem.out_stride + head * WIDTH;
    share.finish(my_queries, out, problem.out_stride, mine < problem.seq_len ? problem.seq_len - mine : 0);
}

}  // namespace

#define ATTENTION(WIDTH, M, KEYS)                                                                                                    \
    KERNEL __launch_bounds__(THREADS) attention_##WIDTH(const bf16* q, const bf16* k, const bf16* v, bf16* out, uint32_t q_stride,   \
                                                        uint32_t kv_stride, uint32_t out_stride, uint32_t heads, uint32_t kv_heads,  \
                                                        uint32_t seq_len, float scale) {                                             \
        DYNAMIC_SHARED(shared);                                                                                                      \
        attend<WIDTH, M, KEYS>({q, k, v, out, q_stride, kv_stride, out_stride, heads, kv_heads, seq_len, scale}, shared);            \
    }                                                                                                                                \
    EMULATED(attention_##WIDTH, THREADS, THREADS)

ATTENTION(16, 2, 64)
ATTENTION(32, 2, 64)
ATTENTION(64, 2, 64)
ATTENTION(128, 2, 64)
