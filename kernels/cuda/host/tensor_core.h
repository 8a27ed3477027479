// tensor_core.h - what the PTX of ../tensor_core.cuh does, after the PTX ISA: which element of a tile lies in which register of
// which lane. Only the words differ from the specification's: group = lane / 4, member = lane % 4.
#pragma once

#include "cuda.h"
#include "fp8.h"

namespace emulator {

// A[row][column] of 16 by 16: element i of the eight of a lane.
inline void place_in_a(unsigned lane, unsigned i, unsigned& row, unsigned& column) {
    const unsigned group = lane / 4, member = lane % 4;
    row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
    column = i < 4 ? member * 2 + (i & 1) : member * 2 + (i & 1) + 8;
}

// B[row][column] of 16 by 8: element i of four.
inline void place_in_b(unsigned lane, unsigned i, unsigned& row, unsigned& column) {
    const unsigned group = lane / 4, member = lane % 4;
    row = i < 2 ? member * 2 + (i & 1) : member * 2 + (i & 1) + 8;
    column = group;
}

// C[row][column] of 16 by 8: element i of four.
inline void place_in_c(unsigned lane, unsigned i, unsigned& row, unsigned& column) {
    const unsigned group = lane / 4, member = lane % 4;
    row = i < 2 ? group : group + 8;
    column = member * 2 + (i & 1);
}

inline float element(const uint32_t* registers, unsigned i) {
    return from_bf16(static_cast<uint16_t>(registers[i / 2] >> 16 * (i % 2)));
}

struct Product {
    float* c;
    const uint32_t* a;
    uint32_t b[2];
};

// Products are exact; how the device rounds their sum is not specified, here it is once.
inline void multiply_add_all(void** lanes) {
    float a[16][16], b[16][8];
    unsigned row, column;
    for (unsigned lane = 0; lane < 32; ++lane) {
        const Product& mine = *static_cast<Product*>(lanes[lane]);
        for (unsigned i = 0; i < 8; ++i) {
            place_in_a(lane, i, row, column);
            a[row][column] = element(mine.a, i);
        }
        for (unsigned i = 0; i < 4; ++i) {
            place_in_b(lane, i, row, column);
            b[row][column] = element(mine.b, i);
        }
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        float* c = static_cast<Product*>(lanes[lane])->c;
        for (unsigned i = 0; i < 4; ++i) {
            place_in_c(lane, i, row, column);
            double sum = c[i];
            for (unsigned k = 0; k < 16; ++k) {
                sum += static_cast<double>(a[row][k]) * static_cast<double>(b[k][column]);
            }
            c[i] = static_cast<float>(sum);
        }
    }
}

inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Product mine{c, a, {b0, b1}};
    together("mma.m16n8k16", multiply_add_all, &mine);
}

// A[row][column] of 16 by 32, eight bits an element: element i of the sixteen of a lane.
inline void place_of_code_in_a(unsigned lane, unsigned i, unsigned& row, unsigned& column) {
    const unsigned group = lane / 4, member = lane % 4;
    row = i < 4 || (i >= 8 && i < 12) ? group : group + 8;
    column = i < 8 ? member * 4 + (i & 3) : member * 4 + (i & 3) + 16;
}

// B[row][column] of 32 by 8: element i of eight.
inline void place_of_code_in_b(unsigned lane, unsigned i, unsigned& row, unsigned& column) {
    const unsigned group = lane / 4, member = lane % 4;
    row = i < 4 ? member * 4 + (i & 3) : member * 4 + (i & 3) + 16;
    column = group;
}

inline float code(const uint32_t* registers, unsigned i) {
    return from_e4m3(static_cast<uint8_t>(registers[i / 4] >> 8 * (i % 4)));
}

// Products are exact; their sum is rounded once, as above.
inline void multiply_add_all_codes(void** lanes) {
    float a[16][32], b[8][32];
    unsigned row, column;
    for (unsigned lane = 0; lane < 32; ++lane) {
        const Product& mine = *static_cast<Product*>(lanes[lane]);
        for (unsigned i = 0; i < 16; ++i) {
            place_of_code_in_a(lane, i, row, column);
            a[row][column] = code(mine.a, i);
        }
        for (unsigned i = 0; i < 8; ++i) {
            place_of_code_in_b(lane, i, row, column);
            b[column][row] = code(mine.b, i);
        }
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        float* c = static_cast<Product*>(lanes[lane])->c;
        for (unsigned i = 0; i < 4; ++i) {
            place_in_c(lane, i, row, column);
            double sum = c[i];
            for (unsigned k = 0; k < 32; ++k) {
                sum += static_cast<double>(a[row][k]) * static_cast<double>(b[column][k]);
            }
            c[i] = static_cast<float>(sum);
        }
    }
}

inline void multiply_add_codes(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Product mine{c, a, {b0, b1}};
    together("mma.m16n8k32", multiply_add_all_codes, &mine);
}

struct Tiles {
    uint32_t* to;
    const unsigned char* row;
    bool transposed;
};

// Lane l's register j is of tile j: row l / 4, columns 2 * (l % 4) and the next; transposed, the other way round.
inline void load_all_tiles(void** lanes) {
    for (unsigned tile = 0; tile < 4; ++tile) {
        uint16_t numbers[8][8];
        unsigned offsets[8];
        for (unsigned row = 0; row < 8; ++row) {
            const unsigned char* from = static_cast<Tiles*>(lanes[tile * 8 + row])->row;
            assert_aligned(from, 16, "ldmatrix");
            offsets[row] = shared_offset(from, 16);
            std::memcpy(numbers[row], from, 16);
        }
        count_conflicts(offsets);
        for (unsigned lane = 0; lane < 32; ++lane) {
            const Tiles& mine = *static_cast<Tiles*>(lanes[lane]);
            const unsigned group = lane / 4, member = lane % 4 * 2;
            const uint32_t first = mine.transposed ? numbers[member][group] : numbers[group][member];
            const uint32_t second = mine.transposed ? numbers[member + 1][group] : numbers[group][member + 1];
            mine.to[tile] = first | second << 16;
        }
    }
}

inline void load_tiles(uint32_t (&to)[4], const unsigned char* row, bool transposed) {
    Tiles mine{to, row, transposed};
    together(transposed ? "ldmatrix.trans" : "ldmatrix", load_all_tiles, &mine);
}

inline float power_of_two(float x) {
    const float power = std::exp2(x);
    return power < 0x1p-126f ? 0.0f : power;
}

}  // namespace emulator
