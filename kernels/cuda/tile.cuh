// tile.cuh - a tile of rows of 128 bytes in shared memory, whatever their numbers are. A chunk of 16 bytes has its place exchanged
// by its row, so that eight rows' chunks of one column lie in eight different groups of banks.
#pragma once

constexpr unsigned LINE = 128, CHUNK = 16, CHUNKS = LINE / CHUNK;

__device__ __forceinline__ unsigned place_in_tile(unsigned row, unsigned chunk) {
    return row * LINE + (chunk ^ row % CHUNKS) * CHUNK;
}
