// tensor_core.cuh - all PTX of the matrix kernels: products of tiles, their operands from shared memory, copies that happen
// meanwhile, a power of two. What a later step replaces by wgmma and bulk copies lies here and nowhere else.
//
// Operand layouts are those of the PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "Matrix Fragments for mma.m16n8k32".
#pragma once

#include "common.cuh"

#ifndef __CUDACC__
#include "host/tensor_core.h"
#endif

// c += a * b for a tile of 16 rows, 8 columns, 16 inner; bf16 in, single precision out.
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    emulator::multiply_add(c, a, b0, b1);
#endif
}

// c += a * b for a tile of 16 rows, 8 columns, 32 inner; E4M3 in, single precision out. An instruction of sm_89: ptxas for sm_90a makes
// conversions to half precision and two products of it.
__device__ __forceinline__ void multiply_add_codes(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    emulator::multiply_add_codes(c, a, b0, b1);
#endif
}

// Four tiles of 8 by 8: lane l brings the address of row l % 8 of tile l / 8 and receives of each tile two neighbours of row l / 4.
__device__ __forceinline__ void load_tiles(uint32_t (&to)[4], const unsigned char* row) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
                 : "memory");
#else
    emulator::load_tiles(to, row, false);
#endif
}

// The same with each tile's rows and columns exchanged.
__device__ __forceinline__ void load_tiles_transposed(uint32_t (&to)[4], const unsigned char* row) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
                 : "memory");
#else
    emulator::load_tiles(to, row, true);
#endif
}

// Sixteen bytes from memory to shared memory, there when waited for; zeros when not `inside`, and then nothing is read.
__device__ __forceinline__ void copy_later(unsigned char* to, const bf16* from, bool inside) {
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))), "l"(from), "r"(inside ? 16 : 0)
                 : "memory");
#else
    emulator::copy_later(to, from, 16, inside ? 16 : 0);
#endif
}

// Ends a group of copies.
__device__ __forceinline__ void commit_copies() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" : : : "memory");
#else
    emulator::commit_copies();
#endif
}

// Waits for this thread's groups of copies but for the newest ones.
template <unsigned BUT_NEWEST>
__device__ __forceinline__ void wait_for_copies() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" : : "n"(BUT_NEWEST) : "memory");
#else
    emulator::wait_for_copies(BUT_NEWEST);
#endif
}

// Within two units of the last place; results below the smallest normal number are zero.
__device__ __forceinline__ float power_of_two(float x) {
#ifdef __CUDACC__
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
#else
    return emulator::power_of_two(x);
#endif
}
