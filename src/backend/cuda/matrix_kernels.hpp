// Kernels around the column loop: dense matrices of float32, Cholesky's edges, sums of covariances. All on `stream`;
// all return CUDA's status of the launch; any size, 0 included.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/portable.hpp"
#include "support/dtype.hpp"

namespace fairgptq::cuda {

/// As MatrixOperations::combine; covariance.data may be null. @param order on the device
cudaError_t launch_combine(Plain<const float> hessian, Plain<const float> covariance, float alpha, float damping,
                           const std::int32_t* order, Plain<float> out, cudaStream_t stream);

/// out[r, i] = in[r, order[i]], 0 where dead[order[i]]. @param order, dead on the device; dead may be null
cudaError_t launch_gather_columns(const void* in, DType type, std::int64_t stride, const std::int32_t* order,
                                  const std::uint8_t* dead, Plain<float> out, cudaStream_t stream);

/// out[r, i] = in[r, order[i]]. @param order on the device
cudaError_t launch_gather_codes(Plain<const std::uint8_t> in, const std::int32_t* order, Plain<std::uint8_t> out,
                                cudaStream_t stream);

cudaError_t launch_subtract(Plain<const float> a, Plain<const float> b, Plain<float> out, cudaStream_t stream);

/// What is added up over a tile of 64 rows: a·b, or (a − b)².
enum class TileSum : bool { products, squares };

/// strips[k, s] = the sum over tile k's columns of strip s (scratch.hpp), in float64 and in an order of its own; b.data
/// may be null for squares: 0.
cudaError_t launch_tile_strips(TileSum what, Plain<const float> a, Plain<const float> b, double* strips,
                               cudaStream_t stream);

/// sums[k] = Σ strips[k, s], strip after strip. @param width of the strips' tiles in columns
cudaError_t launch_add_strips(const double* strips, std::int64_t tiles, std::int64_t width, double* sums,
                              cudaStream_t stream);

/// tiles[k, c] = Σ over the 64 rows of tile k of (a[r, c] − b[r, c])², in float64, row after row.
cudaError_t launch_tile_columns(Plain<const float> a, Plain<const float> b, double* tiles, cudaStream_t stream);

/// sums[c] = Σ tiles[k, c], each rounded to float32, tile after tile.
cudaError_t launch_add_tiles(const double* tiles, std::int64_t count, std::int64_t cols, double* sums,
                             cudaStream_t stream);

cudaError_t launch_diagonal(Plain<const float> matrix, float* diagonal, cudaStream_t stream);

/// Reverses the order of a square matrix's rows and of its columns, in place.
/// @param clear_lower the strictly lower triangle of the result is set to 0
cudaError_t launch_reverse(Plain<float> square, bool clear_lower, cudaStream_t stream);

/// failed[0] = 1 if some pivot of a factor is not finite, or has lost all digits against the diagonal it started from.
cudaError_t launch_check_pivots(Plain<const float> factor, const float* original_diagonal, std::int32_t* failed,
                                cudaStream_t stream);

/// Inverts each block of 64 on the diagonal of an upper triangular matrix, in place.
cudaError_t launch_invert_leaves(Plain<float> upper, cudaStream_t stream);

/// packed += the lower triangle of `product`, in float64.
cudaError_t launch_add_lower(Plain<const float> product, double* packed, cudaStream_t stream);

/// gram = factor · packed, both triangles.
cudaError_t launch_finish_gram(const double* packed, double factor, Plain<float> gram, cudaStream_t stream);

/// As DequantizeOperations::dequantize.
cudaError_t launch_dequantize(Plain<const std::uint8_t> codes, Plain<const float> scales,
                              Plain<const std::uint8_t> zeros, const std::int32_t* group_index, void* weights,
                              DType type, std::int64_t stride, cudaStream_t stream);

/// As PairColumn, which nvcc cannot include.
struct PairTokens {
    std::int32_t first0, count0, first1, count1;
};
/// @param pairs on the device, [differences.rows]
cudaError_t launch_pair_differences(const void* inputs, DType type, std::int64_t stride, const PairTokens* pairs,
                                    Plain<float> differences, cudaStream_t stream);

}  // namespace fairgptq::cuda
