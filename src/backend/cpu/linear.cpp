// One single-threaded product per tile of the output. Tiles are large enough for OpenBLAS to run at its full rate,
// which it reaches only when each packed element is used some hundred times.
#include "backend/linear.hpp"

#include <algorithm>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/blas.hpp"

namespace fairgptq {

namespace {

struct TileSize {
    std::int64_t tokens = 0;
    std::int64_t outputs = 0;
};

/// Larger tiles pack less, smaller ones share out better. Depends on the sizes alone, never on the threads.
TileSize tile_size(std::int64_t tokens) {
    if (tokens < 2048) return {256, 512};
    return {tokens < 8192 ? 512 : 1024, 1024};
}

void add_bias(MatrixView<float> tile, const float* bias) {
    for (std::int64_t row = 0; row < tile.rows; ++row) {
        float* values = tile.row(row);
#pragma omp simd
        for (std::int64_t col = 0; col < tile.cols; ++col)
            values[col] += bias[col];
    }
}

}  // namespace

void CpuBackend::linear(TensorView inputs, TensorView weights, const float* bias, TensorView output, bool accumulate) {
    if (inputs.cols != weights.cols || output.rows != inputs.rows || output.cols != weights.rows)
        throw Failure("linear: inputs [{}, {}] times weights [{}, {}] transposed cannot give [{}, {}]", inputs.rows,
                      inputs.cols, weights.rows, weights.cols, output.rows, output.cols);
    const MatrixView<const float> x = inputs.float32();
    const MatrixView<const float> w = weights.float32();
    const MatrixView<float> y = output.float32();
    const float beta = accumulate ? 1.0F : 0.0F;
    const TileSize tile = tile_size(y.rows);
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (std::int64_t token = 0; token < y.rows; token += tile.tokens) {
        for (std::int64_t feature = 0; feature < y.cols; feature += tile.outputs) {
            const auto tokens = std::min(tile.tokens, y.rows - token);
            const auto features = std::min(tile.outputs, y.cols - feature);
            const auto part = y.block(token, feature, tokens, features);
            blas::gemm(blas::Transpose::no, blas::Transpose::yes, 1.0F, x.rows_from(token, tokens),
                       w.rows_from(feature, features), beta, part);
            if (bias != nullptr) add_bias(part, bias + feature);
        }
    }
}

}  // namespace fairgptq
