// In place of src/backend/cuda/tensor_core.cuh: what the instructions do, by the last lane of a warp that comes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace emulation {

/// One lane's part of an instruction; `result` is written.
struct LoadMatrices {
    const void* row;
    bool transposed;
    std::uint32_t* result;
};
void load_matrices(const LoadMatrices& lane, int line);

struct MultiplyAdd {
    float (*to_float)(std::uint16_t bits);
    const std::uint32_t* a;
    std::uint32_t b[2];
    float* sum;
};
void multiply_add(const MultiplyAdd& lane, int line);

template <class T>
float float_of_bits(std::uint16_t bits) {
    return fairgptq::to_float(T{{bits}}.stored);
}

}  // namespace emulation

namespace fairgptq::cuda {

inline void load_matrices(const void* row, std::uint32_t (&to)[4], int line = __builtin_LINE()) {
    emulation::load_matrices({row, false, to}, line);
}
inline void load_transposed(const void* row, std::uint32_t (&to)[4], int line = __builtin_LINE()) {
    emulation::load_matrices({row, true, to}, line);
}
template <class T>
void multiply_add(T /*type*/, const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1, float (&sum)[4],
                  int line = __builtin_LINE()) {
    emulation::multiply_add({emulation::float_of_bits<T>, a, {b0, b1}, sum}, line);
}

inline float power_of_2(float x) {
    return x < -126 ? 0 : std::exp2(x);
}

inline std::uint32_t packed_bits(std::uint16_t low, std::uint16_t high) {
    return static_cast<std::uint32_t>(high) << 16U | low;
}
inline std::uint32_t packed(__nv_bfloat16 /*type*/, float low, float high) {
    return packed_bits(to_bfloat16(low).bits, to_bfloat16(high).bits);
}
inline std::uint32_t packed(__half /*type*/, float low, float high) {
    return packed_bits(to_half(low).bits, to_half(high).bits);
}

}  // namespace fairgptq::cuda
