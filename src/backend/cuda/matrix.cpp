// Large products go slab of rows by slab of rows, which bounds the scratch memory, in an order of sums that does not
// depend on the rows (products.hpp).
#include "backend/matrix.hpp"

#include <algorithm>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/matrix_kernels.hpp"
#include "backend/cuda/scratch.hpp"
#include "backend/cuda/strips.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t tile_rows = cuda::error_tile_rows;
using cuda::slab_rows;

void require(bool holds, const char* operation) {
    if (!holds) throw Failure("{}: the sizes of its matrices disagree", operation);
}

bool alike(MatrixView<const float> a, MatrixView<const float> b) {
    return a.rows == b.rows && a.cols == b.cols;
}

/// Sums over a matrix's tiles of rows, which come to the host together.
class TileSums {
  public:
    TileSums(cuda::Scratch& memory, std::int64_t rows, std::int64_t cols)
        : tiles_(cuda::ceil_div(rows, tile_rows)),
          cols_(cols),
          strips_(memory.get<double>(cuda::tile_sums(rows, cols))),
          sums_(strips_ + tiles_ * cuda::ceil_div(cols, cuda::sum_strip)) {}

    /// Of rows from `begin` on, where a tile begins.
    void add(cuda::TileSum what, MatrixView<const float> a, MatrixView<const float> b, std::int64_t begin,
             cudaStream_t stream) const {
        double* strips = strips_ + begin / tile_rows * cuda::ceil_div(cols_, cuda::sum_strip);
        cuda::check(cuda::launch_tile_strips(what, cuda::plain(a), cuda::plain(b), strips, stream), "tile_strips");
    }
    void to_host(cuda::Memory& memory, std::span<double> sums) const {
        cuda::check(cuda::launch_add_strips(strips_, tiles_, cols_, sums_, memory.stream()), "add_strips");
        memory.copy_to_host(sums.data(), sums_, sums.size_bytes());
    }

  private:
    std::int64_t tiles_, cols_;
    double* strips_;  // [tiles][strips]
    double* sums_;    // [tiles]
};

}  // namespace

using cuda::plain;
using cuda::plain_const;
using cuda::Transpose;

void CudaBackend::combine(MatrixView<const float> hessian, MatrixView<const float> covariance, float alpha,
                          float damping, std::span<const std::int32_t> order, MatrixView<float> out) {
    require(hessian.rows == out.rows && hessian.cols == out.cols && out.rows == out.cols &&
                std::ssize(order) == out.rows &&
                (covariance.empty() || (covariance.rows == out.rows && covariance.cols == out.cols)),
            "combine");
    if (covariance.empty()) covariance.data = nullptr;
    const std::int32_t* device_order = on_device(order, indices_);
    cuda::check(
        cuda::launch_combine(plain(hessian), plain(covariance), alpha, damping, device_order, plain(out), stream()),
        "combine");
}

void CudaBackend::gather_columns(TensorView in, std::span<const std::int32_t> order, std::span<const std::uint8_t> dead,
                                 MatrixView<float> out) {
    require(in.rows == out.rows && in.cols == std::ssize(order) && out.cols == in.cols &&
                (dead.empty() || dead.size() == order.size()),
            "gather_columns");
    const std::int32_t* device_order = on_device(order, indices_);
    const std::uint8_t* device_dead = dead.empty() ? nullptr : on_device(dead, flags_);
    cuda::check(
        cuda::launch_gather_columns(in.data, in.type, in.stride, device_order, device_dead, plain(out), stream()),
        "gather_columns");
}

void CudaBackend::gather_codes(MatrixView<const std::uint8_t> in, std::span<const std::int32_t> order,
                               MatrixView<std::uint8_t> out) {
    require(in.rows == out.rows && in.cols == std::ssize(order) && out.cols == in.cols, "gather_codes");
    const std::int32_t* device_order = on_device(order, indices_);
    cuda::check(cuda::launch_gather_codes(plain(in), device_order, plain(out), stream()), "gather_codes");
}

// −αWC, then times Rᵀ, then times R into the target.
void CudaBackend::shift_target(MatrixView<const float> weights, MatrixView<const float> covariance, float alpha,
                               MatrixView<const float> inverse, std::span<const std::int32_t> order,
                               MatrixView<float> target, std::span<double> bias) {
    const std::int64_t n = weights.cols;
    require(covariance.rows == n && covariance.cols == n && inverse.rows == n && inverse.cols == n &&
                std::ssize(order) == n && target.rows == weights.rows && target.cols == n &&
                std::ssize(bias) == cuda::ceil_div(weights.rows, tile_rows),
            "shift_target");
    if (target.empty()) return;
    const std::int32_t* device_order = on_device(order, indices_);
    const std::int64_t most_rows = std::min(slab_rows, weights.rows);
    float* first_memory = first_.get<float>(most_rows * n);
    float* second_memory = second_.get<float>(most_rows * n);
    const TileSums sums(flags_, weights.rows, n);
    for (std::int64_t begin = 0; begin < weights.rows; begin += slab_rows) {
        const std::int64_t rows = std::min(slab_rows, weights.rows - begin);
        const MatrixView<float> first(first_memory, rows, n);
        const MatrixView<float> second(second_memory, rows, n);
        const MatrixView<const float> slab = weights.rows_from(begin, rows);
        products_.fixed_order(Transpose::no, -alpha, slab, covariance, 0, first);
        sums.add(cuda::TileSum::products, slab, first, begin, stream());
        cuda::check(cuda::launch_gather_columns(first.data, DType::float32, first.stride, device_order, nullptr,
                                                plain(second), stream()),
                    "gather_columns (shift)");
        cuda::multiply_upper_transposed(products_, second, inverse, first);
        cuda::add_multiply_upper(products_, first, inverse, target.rows_from(begin, rows));
    }
    sums.to_host(memory_, bias);
    for (double& sum : bias)
        sum /= -static_cast<double>(alpha);
}

void CudaBackend::copy(MatrixView<const float> in, MatrixView<float> out) {
    require(in.rows == out.rows && in.cols == out.cols, "copy");
    if (out.empty()) return;
    memory_.use();
    const auto bytes = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(float); };
    cuda::check(cudaMemcpy2DAsync(out.data, bytes(out.stride), in.data, bytes(in.stride), bytes(in.cols),
                                  static_cast<std::size_t>(in.rows), cudaMemcpyDeviceToDevice, stream()),
                "cudaMemcpy2DAsync (copy)");
}

void CudaBackend::subtract(MatrixView<const float> a, MatrixView<const float> b, MatrixView<float> out) {
    require(a.rows == out.rows && a.cols == out.cols && b.rows == out.rows && b.cols == out.cols, "subtract");
    memory_.use();
    cuda::check(cuda::launch_subtract(plain(a), plain(b), plain(out), stream()), "subtract");
}

void CudaBackend::quadratic_forms(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                                  std::span<double> result) {
    const std::int64_t n = matrix.cols;
    require(symmetric.rows == n && symmetric.cols == n && std::ssize(result) == cuda::ceil_div(matrix.rows, tile_rows),
            "quadratic_forms");
    if (matrix.rows == 0) return;
    const std::int64_t most_rows = std::min(slab_rows, matrix.rows);
    float* memory = first_.get<float>(most_rows * n);
    const TileSums sums(second_, matrix.rows, n);
    for (std::int64_t begin = 0; begin < matrix.rows; begin += slab_rows) {
        const MatrixView<const float> values = matrix.rows_from(begin, std::min(slab_rows, matrix.rows - begin));
        const MatrixView<float> products(memory, values.rows, n);
        cuda::half_symmetric_product(products_, values, symmetric, products);
        sums.add(cuda::TileSum::products, values, products, begin, stream());
    }
    sums.to_host(memory_, result);
}

void CudaBackend::tile_squares(MatrixView<const float> a, MatrixView<const float> b, std::span<double> result) {
    require((b.empty() || alike(a, b)) && std::ssize(result) == cuda::ceil_div(a.rows, tile_rows), "tile_squares");
    if (b.empty()) b.data = nullptr;
    memory_.use();
    const TileSums sums(second_, a.rows, a.cols);
    sums.add(cuda::TileSum::squares, a, b, 0, stream());
    sums.to_host(memory_, result);
}

void CudaBackend::column_errors(MatrixView<const float> a, MatrixView<const float> b, std::span<double> result) {
    require(alike(a, b) && std::ssize(result) == a.cols, "column_errors");
    memory_.use();
    const std::int64_t count = cuda::ceil_div(a.rows, tile_rows);
    auto* tiles = second_.get<double>((count + 1) * a.cols);
    double* sums = tiles + count * a.cols;
    cuda::check(cuda::launch_tile_columns(plain(a), plain(b), tiles, stream()), "tile_columns");
    cuda::check(cuda::launch_add_tiles(tiles, count, a.cols, sums, stream()), "add_tiles");
    memory_.copy_to_host(result.data(), sums, result.size_bytes());
}

void CudaBackend::diagonal(MatrixView<const float> matrix, std::span<float> result) {
    require(matrix.rows == matrix.cols && std::ssize(result) == matrix.rows, "diagonal");
    memory_.use();
    auto* values = second_.get<float>(matrix.rows);
    cuda::check(cuda::launch_diagonal(plain(matrix), values, stream()), "diagonal");
    memory_.copy_to_host(result.data(), values, result.size_bytes());
}

}  // namespace fairgptq
