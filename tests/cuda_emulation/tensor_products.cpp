// Products of fragments (tensor_core.cpp), which are in registers: no sanitizer checks them (targets.cmake).
#include "backend/cuda/tensor_core.cuh"
#include "tensor_sum.hpp"

namespace emulation {
namespace {

constexpr int warp = 32;
constexpr int rows = 16, cols = 8, inner = 16;

std::uint16_t half_of(std::uint32_t pair, int which) {
    return static_cast<std::uint16_t>(pair >> (16U * static_cast<unsigned>(which)));
}

void multiply_all(const void* const* lanes) {
    const auto part = [&](int lane) -> const MultiplyAdd& { return *static_cast<const MultiplyAdd*>(lanes[lane]); };
    float a[rows][inner];
    float b[inner][cols];
    for (int lane = 0; lane < warp; ++lane) {
        const MultiplyAdd& one = part(lane);
        const int r = lane / 4;
        const int c = 2 * (lane % 4);
        for (int which = 0; which < 2; ++which) {
            for (int i = 0; i < 4; ++i)
                a[r + i % 2 * 8][c + i / 2 * 8 + which] = one.to_float(half_of(one.a[i], which));
            for (int i = 0; i < 2; ++i)
                b[c + i * 8 + which][r] = one.to_float(half_of(one.b[i], which));
        }
    }
    for (int lane = 0; lane < warp; ++lane)
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i / 2 * 8;
            const int col = 2 * (lane % 4) + i % 2;
            for (int begin = 0; begin < inner; begin += products_at_once) {
                double products[products_at_once];
                for (int k = 0; k < products_at_once; ++k)
                    products[k] = static_cast<double>(a[row][begin + k]) * static_cast<double>(b[begin + k][col]);
                part(lane).sum[i] = add_products(part(lane).sum[i], products);
            }
        }
}

}  // namespace

void multiply_add(const MultiplyAdd& lane, int line) {
    together_in_warp(&lane, multiply_all, line);
}

}  // namespace emulation
