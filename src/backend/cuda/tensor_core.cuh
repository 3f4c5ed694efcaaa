// Products of small matrices by a warp's tensor core (PTX: ldmatrix, mma.sync.m16n8k16; sm_80 and later), and what else
// CUDA's language lacks a word for. The only assembly of the project: the tests' emulation replaces this file.
//
// Lane l of a warp holds, with r = l / 4 and c = 2·(l % 4), two 16-bit elements a register:
//   A [16 × 16]  a₀: (r, c … c + 1)   a₁: (r + 8, c …)   a₂: (r, c + 8 …)   a₃: (r + 8, c + 8 …)
//   B [16 × 8]   b₀: (c … c + 1, r)   b₁: (c + 8 …, r)
//   C [16 × 8]   c₀, c₁: (r, c), (r, c + 1)              c₂, c₃: (r + 8, c), (r + 8, c + 1), float32
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace fairgptq::cuda {

/// Four 8 × 8 matrices from on-chip memory. Lane l has the address of row l % 8 of matrix l / 8, aligned to 16 bytes;
/// of each matrix it gets elements (l / 4, 2·(l % 4) … + 1).
__device__ inline void load_matrices(const void* row, std::uint32_t (&to)[4]) {
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}
/// As load_matrices, of each matrix elements (2·(l % 4) … + 1, l / 4).
__device__ inline void load_transposed(const void* row, std::uint32_t (&to)[4]) {
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

/// sum += A·B, products exact, summed in float32.
__device__ inline void multiply_add(__nv_bfloat16 /*type*/, const std::uint32_t (&a)[4], std::uint32_t b0,
                                    std::uint32_t b1, float (&sum)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void multiply_add(__half /*type*/, const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                                    float (&sum)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// 2^x to within 2 ulp; 0 where that is subnormal.
__device__ inline float power_of_2(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

/// Two elements of a register, rounded to nearest; `low` is the first in memory.
__device__ inline std::uint32_t packed(__nv_bfloat16 /*type*/, float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ inline std::uint32_t packed(__half /*type*/, float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&pair);
}

}  // namespace fairgptq::cuda
