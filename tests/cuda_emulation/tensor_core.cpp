// Fragments as PTX lays them out over a warp's lanes (src/backend/cuda/tensor_core.cuh has the table). Their products
// are in tensor_products.cpp.
#include "backend/cuda/tensor_core.cuh"

#include <cstring>

namespace emulation {
namespace {

constexpr int warp = 32;

void load_all(const void* const* lanes) {
    const auto part = [&](int lane) -> const LoadMatrices& { return *static_cast<const LoadMatrices*>(lanes[lane]); };
    for (int matrix = 0; matrix < 4; ++matrix) {
        std::uint16_t elements[8][8];
        for (int row = 0; row < 8; ++row) {
            const void* from = part(matrix * 8 + row).row;
            if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
                fail("a row of a matrix that is loaded is not aligned to 16 bytes");
            std::memcpy(elements[row], from, sizeof(elements[row]));
        }
        for (int lane = 0; lane < warp; ++lane) {
            const int r = lane / 4;
            const int c = 2 * (lane % 4);
            const bool transposed = part(lane).transposed;
            const std::uint32_t low = transposed ? elements[c][r] : elements[r][c];
            const std::uint32_t high = transposed ? elements[c + 1][r] : elements[r][c + 1];
            part(lane).result[matrix] = low | high << 16U;
        }
    }
}

}  // namespace

void load_matrices(const LoadMatrices& lane, int line) {
    together_in_warp(&lane, load_all, line);
}

}  // namespace emulation
