// route.cu - which experts a token goes to, by the order of what, and back. Nothing here depends on which block comes first.
// Roundings as in kernels/src/moe/router.rs.

#include "silu.cuh"
#include "tensor_core.cuh"
#include "tile.cuh"

namespace {

constexpr unsigned THREADS = 128;
constexpr unsigned MOST_EXPERTS = 512, SCORES = MOST_EXPERTS / WARP;

// The router's product: 64 tokens by 64 experts, 64 of the inner dimension a stage; three parts of the weights.
constexpr unsigned ROWS = 64, DEPTH = LINE / 2, PARTS = 3;
constexpr unsigned TILE_BYTES = ROWS * LINE, STAGE_BYTES = (1 + PARTS) * TILE_BYTES;
constexpr unsigned COPIES = ROWS * CHUNKS / THREADS, COPY_ROWS = THREADS / CHUNKS;

// Chosen pairs that one block of the sort counts.
constexpr unsigned SLOTS = 2048;
constexpr uint32_t NOWHERE = 0xffffffffu;

__device__ __forceinline__ float sigmoid(float x) {
    return __fdiv_rn(1.0f, __fadd_rn(1.0f, exponential(-x)));
}

// Larger numbers to larger words, none to 0; what is no number is less than all that are.
__device__ __forceinline__ uint32_t ordered(float x) {
    const uint32_t bits = __float_as_uint(x);
    return x != x ? 1 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ uint64_t warp_largest(uint64_t x) {
#pragma unroll
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2) {
        const uint64_t other = __shfl_xor_sync(ALL_LANES, x, distance);
        x = other > x ? other : x;
    }
    return x;
}

__device__ __forceinline__ float warp_largest(float x) {
#pragma unroll
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
    }
    return x;
}

// This block's chosen experts into shared memory; nowhere beyond the last.
__device__ __forceinline__ void load_chosen(const uint32_t* chosen, uint32_t pairs, uint32_t (&slots)[SLOTS]) {
    for (unsigned at = threadIdx.x; at < SLOTS; at += blockDim.x) {
        const unsigned pair = blockIdx.x * SLOTS + at;
        slots[at] = pair < pairs ? chosen[pair] : NOWHERE;
    }
    __syncthreads();
}

}  // namespace

// logits[row][expert]: tokens in bf16 times weights in single precision, which are the sum of three bf16 each; products are exact,
// sums in single precision. Grid (experts / 64 rounded up, rows / 64 rounded up), 128 threads, 65536 bytes of dynamic shared memory.
KERNEL __launch_bounds__(THREADS) router(const bf16* x, const bf16* weights, float* logits, uint32_t rows, uint32_t experts, uint32_t width) {
    DYNAMIC_SHARED(shared);
    ASSERT_LAUNCH(gridDim.x * ROWS >= experts && gridDim.y * ROWS >= rows && width % DEPTH == 0);
    const unsigned first_row = blockIdx.y * ROWS, first_expert = blockIdx.x * ROWS, chunk = threadIdx.x % CHUNKS, steps = width / DEPTH;
    const auto load = [&](unsigned stage, unsigned step) {
        unsigned char* to = shared + stage * STAGE_BYTES;
#pragma unroll
        for (unsigned i = 0; i < COPIES; ++i) {
            const unsigned row = threadIdx.x / CHUNKS + i * COPY_ROWS, place = place_in_tile(row, chunk);
            const unsigned column = step * DEPTH + chunk * WIDE;
            bool inside = first_row + row < rows;
            copy_later(to + place, x + static_cast<uint64_t>(inside ? first_row + row : 0) * width + column, inside);
            inside = first_expert + row < experts;
            const uint64_t expert = inside ? first_expert + row : 0;
#pragma unroll
            for (unsigned part = 0; part < PARTS; ++part) {
                copy_later(to + (1 + part) * TILE_BYTES + place, weights + (part * static_cast<uint64_t>(experts) + expert) * width + column, inside);
            }
        }
    };
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float sums[ROWS / 8][4];
#pragma unroll
    for (unsigned n = 0; n < ROWS / 8; ++n) {
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            sums[n][i] = 0.0f;
        }
    }
    load(0, 0);
    commit_copies();
    for (unsigned step = 0; step < steps; ++step) {
        wait_for_copies<0>();
        __syncthreads();
        if (step + 1 < steps) {
            load((step + 1) % 2, step + 1);
        }
        commit_copies();
        const unsigned char* tokens = shared + step % 2 * STAGE_BYTES;
#pragma unroll
        for (unsigned k = 0; k < DEPTH / 16; ++k) {
            uint32_t a[4];
            load_tiles(a, tokens + place_in_tile(warp * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
            for (unsigned part = 0; part < PARTS; ++part) {
#pragma unroll
                for (unsigned n = 0; n < ROWS / 16; ++n) {
                    uint32_t b[4];
                    load_tiles(b, tokens + (1 + part) * TILE_BYTES + place_in_tile(n * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
                    multiply_add(sums[2 * n], a, b[0], b[1]);
                    multiply_add(sums[2 * n + 1], a, b[2], b[3]);
                }
            }
        }
    }
#pragma unroll
    for (unsigned n = 0; n < ROWS / 8; ++n) {
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned row = first_row + warp * 16 + i / 2 * 8 + lane / 4, expert = first_expert + n * 8 + lane % 4 * 2 + i % 2;
            if (row < rows && expert < experts) {
                logits[static_cast<uint64_t>(row) * experts + expert] = sums[n][i];
            }
        }
    }
}

// The best `top_k` experts of each token, best first, the lower number first among equals, and their weights, which sum to one.
// With `bias` a score is a sigmoid and the choice is by score plus bias, the weight by score alone; without, a score is a softmax.
// One warp a row: grid (rows / 4 rounded up).
KERNEL __launch_bounds__(THREADS) route(const float* logits, const float* bias, uint32_t* chosen, float* weights, uint32_t rows, uint32_t experts, uint32_t top_k) {
    const unsigned row = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    ASSERT_LAUNCH(gridDim.x * (THREADS / WARP) >= rows && experts <= MOST_EXPERTS && top_k <= WARP && top_k <= experts);
    if (row >= rows) {
        return;
    }
    const float* mine = logits + static_cast<uint64_t>(row) * experts;
    float scores[SCORES];
    uint32_t keys[SCORES];
    float largest = minus_infinity();
#pragma unroll
    for (unsigned i = 0; i < SCORES; ++i) {
        const unsigned expert = i * WARP + lane;
        scores[i] = expert < experts ? mine[expert] : minus_infinity();
        largest = fmaxf(largest, scores[i]);
    }
    if (bias == nullptr) {
        largest = warp_largest(largest);
        float sum = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < SCORES; ++i) {
            scores[i] = exponential(__fsub_rn(scores[i], largest));
            sum = __fadd_rn(sum, i * WARP + lane < experts ? scores[i] : 0.0f);
        }
        sum = warp_sum(sum);
#pragma unroll
        for (unsigned i = 0; i < SCORES; ++i) {
            scores[i] = __fdiv_rn(scores[i], sum);
            keys[i] = i * WARP + lane < experts ? ordered(scores[i]) : 0;
        }
    } else {
#pragma unroll
        for (unsigned i = 0; i < SCORES; ++i) {
            const unsigned expert = i * WARP + lane;
            scores[i] = sigmoid(scores[i]);
            keys[i] = expert < experts ? ordered(__fadd_rn(scores[i], bias[expert])) : 0;
        }
    }
    float total = 0.0f, my_score = 0.0f;
    unsigned my_expert = 0;
    for (unsigned place = 0; place < top_k; ++place) {
        uint64_t best = 0;
#pragma unroll
        for (unsigned i = 0; i < SCORES; ++i) {
            const uint64_t key = static_cast<uint64_t>(keys[i]) << 32 | (NOWHERE - (i * WARP + lane));
            best = key > best ? key : best;
        }
        const unsigned winner = NOWHERE - static_cast<uint32_t>(warp_largest(best));
        float score = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < SCORES; ++i) {
            if (winner == i * WARP + lane) {
                score = scores[i];
                keys[i] = 0;
            }
        }
        // One lane's number and zeros: all lanes have it.
        score = warp_sum(score);
        total = __fadd_rn(total, score);
        if (place == lane) {
            my_score = score;
            my_expert = winner;
        }
    }
    if (lane < top_k) {
        chosen[row * top_k + lane] = my_expert;
        weights[row * top_k + lane] = __fdiv_rn(my_score, total);
    }
}

// How often each expert was chosen among the pairs of this block: counts[block][expert]. A thread an expert, in whole warps.
KERNEL count_routes(const uint32_t* chosen, uint32_t* counts, uint32_t pairs, uint32_t experts) {
    __shared__ uint32_t slots[SLOTS];
    ASSERT_LAUNCH(gridDim.x * SLOTS >= pairs && blockDim.x >= experts);
    load_chosen(chosen, pairs, slots);
    uint32_t count = 0;
    for (unsigned at = 0; at < SLOTS; ++at) {
        count += slots[at] == threadIdx.x ? 1 : 0;
    }
    if (threadIdx.x < experts) {
        counts[blockIdx.x * experts + threadIdx.x] = count;
    }
}

// Sorts pairs of token and choice by expert, then by token: order[place] = pair, and places[pair] = place. Of each expert its first
// place and its first tile of `tile_rows`, and after them the number of all.
KERNEL place_routes(const uint32_t* chosen, const uint32_t* counts, uint32_t* starts, uint32_t* tiles, uint32_t* order, uint32_t* places, uint32_t pairs,
                    uint32_t experts, uint32_t tile_rows) {
    __shared__ uint32_t slots[SLOTS];
    __shared__ uint32_t totals[MOST_EXPERTS];
    ASSERT_LAUNCH(gridDim.x * SLOTS >= pairs && blockDim.x >= experts && experts <= MOST_EXPERTS);
    const unsigned expert = threadIdx.x;
    uint32_t before = 0, total = 0;
    if (expert < experts) {
        for (unsigned block = 0; block < gridDim.x; ++block) {
            const uint32_t count = counts[block * experts + expert];
            before += block < blockIdx.x ? count : 0;
            total += count;
        }
        totals[expert] = total;
    }
    load_chosen(chosen, pairs, slots);
    if (expert >= experts) {
        return;
    }
    uint32_t start = 0, tile = 0;
    for (unsigned other = 0; other < expert; ++other) {
        start += totals[other];
        tile += (totals[other] + tile_rows - 1) / tile_rows;
    }
    if (blockIdx.x == 0) {
        starts[expert] = start;
        tiles[expert] = tile;
        if (expert + 1 == experts) {
            starts[experts] = start + total;
            tiles[experts] = tile + (total + tile_rows - 1) / tile_rows;
        }
    }
    uint32_t place = start + before;
    for (unsigned at = 0; at < SLOTS; ++at) {
        if (slots[at] == expert) {
            const uint32_t pair = blockIdx.x * SLOTS + at;
            order[place] = pair;
            places[pair] = place;
            ++place;
        }
    }
}

// out[row] = sum over its experts, best first, of weight times their output, in single precision, rounded once. A block a row.
KERNEL __launch_bounds__(THREADS) combine(const bf16* outputs, const uint32_t* places, const float* weights, bf16* out, uint32_t width, uint32_t top_k) {
    const uint64_t row = blockIdx.x;
    for (unsigned at = threadIdx.x * WIDE; at < width; at += THREADS * WIDE) {
        float sum[WIDE] = {};
        for (unsigned choice = 0; choice < top_k; ++choice) {
            const uint64_t pair = row * top_k + choice;
            const float weight = weights[pair];
            float output[WIDE];
            unpack(load_wide(outputs + static_cast<uint64_t>(places[pair]) * width + at), output);
#pragma unroll
            for (unsigned i = 0; i < WIDE; ++i) {
                sum[i] = __fadd_rn(sum[i], __fmul_rn(weight, output[i]));
            }
        }
        store_wide(out + row * width + at, packed(sum));
    }
}

EMULATED(router, THREADS, THREADS)
EMULATED(route, THREADS, THREADS)
EMULATED(count_routes, WARP, MOST_EXPERTS)
EMULATED(place_routes, WARP, MOST_EXPERTS)
EMULATED(combine, THREADS, THREADS)
