// Plain kernels, bound by memory: neighbouring threads touch neighbouring elements of a row, and a grid of any size
// steps over the rest. Sums are taken in an order that depends on sizes alone; nothing is added atomically.
#include "backend/cuda/launch.cuh"
#include "backend/cuda/matrix_kernels.hpp"
#include "backend/cuda/scratch.hpp"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {
namespace {

constexpr int threads = 256;
constexpr std::int64_t tile_rows = error_tile_rows;

/// Rows on the grid's y side, columns on its x side.
dim3 grid_over(std::int64_t rows, std::int64_t cols) {
    return {blocks_for(cols, threads), blocks_for(rows, 1)};
}
template <class Function>
__device__ void for_each_element(std::int64_t rows, std::int64_t cols, const Function& function) {
    for (std::int64_t row = blockIdx.y; row < rows; row += gridDim.y)
        for (std::int64_t col = global_thread(); col < cols; col += all_threads())
            function(row, col);
}

__global__ void combine(Plain<const float> hessian, Plain<const float> covariance, float alpha, float damping,
                        const std::int32_t* order, Plain<float> out) {
    for_each_element(out.rows, out.cols, [&](std::int64_t row, std::int64_t col) {
        const std::int64_t from = order[row];
        const std::int64_t to = order[col];
        const float h = hessian.row(from)[to];
        const float c = covariance.data == nullptr ? 0.0F : covariance.row(from)[to];
        float value = covariance.data == nullptr || alpha == 0 ? h : h + alpha * c;
        if (row == col) value = h == 0 && c == 0 ? 1.0F : value + damping;
        out.row(row)[col] = value;
    });
}

template <class T>
__global__ void gather_columns(const T* in, std::int64_t stride, const std::int32_t* order, const std::uint8_t* dead,
                               Plain<float> out) {
    for_each_element(out.rows, out.cols, [&](std::int64_t row, std::int64_t col) {
        const std::int64_t from = order[col];
        out.row(row)[col] = dead != nullptr && dead[from] != 0 ? 0.0F : to_float(in[row * stride + from]);
    });
}

__global__ void gather_codes(Plain<const std::uint8_t> in, const std::int32_t* order, Plain<std::uint8_t> out) {
    for_each_element(out.rows, out.cols,
                     [&](std::int64_t row, std::int64_t col) { out.row(row)[col] = in.row(row)[order[col]]; });
}

__global__ void subtract(Plain<const float> a, Plain<const float> b, Plain<float> out) {
    for_each_element(out.rows, out.cols, [&](std::int64_t row, std::int64_t col) {
        out.row(row)[col] = a.row(row)[col] - b.row(row)[col];
    });
}

/// A block has a strip of a tile, and each of its threads some columns of it.
template <TileSum what>
__global__ void tile_strips(Plain<const float> a, Plain<const float> b, double* strips) {
    __shared__ double shared[reducing_threads];
    const std::int64_t count = ceil_div(a.cols, sum_strip);
    for (std::int64_t tile = blockIdx.y; tile * tile_rows < a.rows; tile += gridDim.y)
        for (std::int64_t strip = blockIdx.x; strip < count; strip += gridDim.x) {
            const std::int64_t end = smaller((tile + 1) * tile_rows, a.rows);
            double sum = 0;
            for (std::int64_t col = strip * sum_strip + threadIdx.x; col < smaller((strip + 1) * sum_strip, a.cols);
                 col += blockDim.x) {
#pragma unroll 8
                for (std::int64_t row = tile * tile_rows; row < end; ++row) {
                    const auto left = static_cast<double>(a.row(row)[col]);
                    const double right = b.data == nullptr ? 0 : static_cast<double>(b.row(row)[col]);
                    const double difference = left - right;
                    sum += what == TileSum::products ? left * right : difference * difference;
                }
            }
            sum = sum_block(sum, shared);
            if (threadIdx.x == 0) strips[tile * count + strip] = sum;
        }
}

__global__ void add_strips(const double* strips, std::int64_t tiles, std::int64_t count, double* sums) {
    for (std::int64_t tile = global_thread(); tile < tiles; tile += all_threads()) {
        double sum = 0;
        for (std::int64_t strip = 0; strip < count; ++strip)
            sum += strips[tile * count + strip];
        sums[tile] = sum;
    }
}

__global__ void add_tiles(const double* tiles, std::int64_t count, std::int64_t cols, double* sums) {
    for (std::int64_t col = global_thread(); col < cols; col += all_threads()) {
        double sum = 0;
#pragma unroll 8
        for (std::int64_t tile = 0; tile < count; ++tile)
            sum += static_cast<double>(static_cast<float>(tiles[tile * cols + col]));
        sums[col] = sum;
    }
}

/// A thread has a column of a tile.
__global__ void tile_columns(Plain<const float> a, Plain<const float> b, double* sums) {
    for (std::int64_t tile = blockIdx.y; tile * tile_rows < a.rows; tile += gridDim.y)
        for (std::int64_t col = global_thread(); col < a.cols; col += all_threads()) {
            const std::int64_t end = smaller((tile + 1) * tile_rows, a.rows);
            double sum = 0;
#pragma unroll 8
            for (std::int64_t row = tile * tile_rows; row < end; ++row) {
                const double difference = static_cast<double>(a.row(row)[col]) - static_cast<double>(b.row(row)[col]);
                sum += difference * difference;
            }
            sums[tile * a.cols + col] = sum;
        }
}

__global__ void diagonal(Plain<const float> matrix, float* result) {
    for (std::int64_t i = global_thread(); i < matrix.rows; i += all_threads())
        result[i] = matrix.row(i)[i];
}

/// Element k of a square matrix, in reading order, changes places with the k-th from the end; k < reversed_pairs(n).
__host__ __device__ std::int64_t reversed_pairs(std::int64_t n) {
    return (n * n + 1) / 2;
}
__device__ void reverse_pair(Plain<float> square, std::int64_t k, bool clear_lower) {
    const std::int64_t n = square.rows;
    const std::int64_t row = k / n;
    const std::int64_t col = k % n;
    float* first = square.row(row) + col;
    float* last = square.row(n - 1 - row) + (n - 1 - col);
    const float value = *first;
    // The element at the centre changes places with itself.
    *first = clear_lower && col < row ? 0.0F : *last;
    if (first != last) *last = clear_lower && col > row ? 0.0F : value;
}

__global__ void reverse(Plain<float> square, bool clear_lower) {
    for (std::int64_t k = global_thread(); k < reversed_pairs(square.rows); k += all_threads())
        reverse_pair(square, k, clear_lower);
}

__global__ void check_pivots(Plain<const float> factor, const float* original_diagonal, std::int32_t* failed) {
    constexpr float epsilon = 0x1p-23F;
    bool bad = false;
    for (std::int64_t i = threadIdx.x; i < factor.rows; i += blockDim.x) {
        const float root = factor.row(i)[i];
        bad = bad || !(root * root > epsilon * original_diagonal[i]) || !isfinite(root);
    }
    const int any = __syncthreads_or(bad ? 1 : 0);
    if (threadIdx.x == 0) *failed = any != 0 ? 1 : 0;
}

/// Column `col` of the inverse of an upper triangular matrix of at most 64 columns, solved from its diagonal up.
struct LeafMemory {
    float factor[inverted_leaf][inverted_leaf + 1];
    float inverse[inverted_leaf][inverted_leaf + 1];
};
__device__ void load_leaf_column(Plain<float> upper, std::int64_t begin, int col, LeafMemory& memory) {
    const auto size = static_cast<int>(smaller(inverted_leaf, upper.rows - begin));
    for (int row = 0; row < size; ++row)
        if (col < size) memory.factor[row][col] = upper.row(begin + row)[begin + col];
}
__device__ void invert_leaf_column(Plain<float> upper, std::int64_t begin, int col, LeafMemory& memory) {
    if (begin + col >= upper.rows) return;
    for (int row = col; row >= 0; --row) {
        float sum = row == col ? 1.0F : 0.0F;
        for (int k = row + 1; k <= col; ++k)
            sum = fmaf(-memory.factor[row][k], memory.inverse[k][col], sum);
        memory.inverse[row][col] = sum / memory.factor[row][row];
    }
    for (int row = 0; row <= col; ++row)
        upper.row(begin + row)[begin + col] = memory.inverse[row][col];
}

/// A block has a leaf, and each of its threads a column of the inverse.
__global__ void invert_leaves(Plain<float> upper) {
    __shared__ LeafMemory memory;
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * inverted_leaf;
    load_leaf_column(upper, begin, static_cast<int>(threadIdx.x), memory);
    __syncthreads();
    invert_leaf_column(upper, begin, static_cast<int>(threadIdx.x), memory);
}

__global__ void add_lower(Plain<const float> product, double* packed) {
    for (std::int64_t row = blockIdx.y; row < product.rows; row += gridDim.y) {
        double* sums = packed + row * (row + 1) / 2;
        for (std::int64_t col = global_thread(); col <= row; col += all_threads())
            sums[col] += static_cast<double>(product.row(row)[col]);
    }
}

/// Tiles of 32 x 32 below the diagonal, each written twice: as it stands, and mirrored through on-chip memory.
constexpr int mirror_tile = 32;
__global__ void finish_gram(const double* packed, double factor, Plain<float> gram) {
    __shared__ float tile[mirror_tile][mirror_tile + 1];
    const auto x = static_cast<int>(threadIdx.x);
    for (std::int64_t tile_row = blockIdx.y; tile_row * mirror_tile < gram.rows; tile_row += gridDim.y)
        for (std::int64_t tile_col = blockIdx.x; tile_col <= tile_row; tile_col += gridDim.x) {
            for (int y = static_cast<int>(threadIdx.y); y < mirror_tile; y += static_cast<int>(blockDim.y)) {
                const std::int64_t row = tile_row * mirror_tile + y;
                const std::int64_t col = tile_col * mirror_tile + x;
                if (row < gram.rows && col <= row) {
                    const auto value = static_cast<float>(factor * packed[row * (row + 1) / 2 + col]);
                    gram.row(row)[col] = value;
                    tile[y][x] = value;
                }
            }
            __syncthreads();
            for (int y = static_cast<int>(threadIdx.y); y < mirror_tile; y += static_cast<int>(blockDim.y)) {
                const std::int64_t row = tile_col * mirror_tile + y;  // mirrored
                const std::int64_t col = tile_row * mirror_tile + x;
                if (col < gram.rows && row < col) gram.row(row)[col] = tile[x][y];
            }
            __syncthreads();
        }
}

template <class T>
__global__ void dequantize(Plain<const std::uint8_t> codes, Plain<const float> scales, Plain<const std::uint8_t> zeros,
                           const std::int32_t* group_index, T* weights, std::int64_t stride) {
    for_each_element(codes.rows, codes.cols, [&](std::int64_t row, std::int64_t col) {
        const std::int32_t group = group_index[col];
        const int steps = static_cast<int>(codes.row(row)[col]) - static_cast<int>(zeros.row(row)[group]);
        store(scales.row(row)[group] * static_cast<float>(steps), weights + row * stride + col);
    });
}

template <class T>
__device__ float mean_of_tokens(const T* inputs, std::int64_t stride, std::int32_t first, std::int32_t count,
                                std::int64_t feature) {
    float sum = to_float(inputs[first * stride + feature]);
    for (std::int32_t token = 1; token < count; ++token)
        sum += to_float(inputs[(first + token) * stride + feature]);
    return sum / static_cast<float>(count);
}

template <class T>
__global__ void pair_differences(const T* inputs, std::int64_t stride, const PairTokens* pairs,
                                 Plain<float> differences) {
    for_each_element(differences.rows, differences.cols, [&](std::int64_t pair, std::int64_t feature) {
        const PairTokens tokens = pairs[pair];
        differences.row(pair)[feature] = mean_of_tokens(inputs, stride, tokens.first0, tokens.count0, feature) -
                                         mean_of_tokens(inputs, stride, tokens.first1, tokens.count1, feature);
    });
}

template <class T>
bool empty(const Plain<T>& matrix) {
    return matrix.rows == 0 || matrix.cols == 0;
}

}  // namespace

cudaError_t launch_combine(Plain<const float> hessian, Plain<const float> covariance, float alpha, float damping,
                           const std::int32_t* order, Plain<float> out, cudaStream_t stream) {
    if (empty(out)) return cudaSuccess;
    return launch({grid_over(out.rows, out.cols), threads, 0, stream}, combine, hessian, covariance, alpha, damping,
                  order, out);
}

cudaError_t launch_gather_columns(const void* in, DType type, std::int64_t stride, const std::int32_t* order,
                                  const std::uint8_t* dead, Plain<float> out, cudaStream_t stream) {
    if (empty(out)) return cudaSuccess;
    return with_type(type, [&](auto element) {
        return launch({grid_over(out.rows, out.cols), threads, 0, stream}, gather_columns<decltype(element)>,
                      static_cast<const decltype(element)*>(in), stride, order, dead, out);
    });
}

cudaError_t launch_gather_codes(Plain<const std::uint8_t> in, const std::int32_t* order, Plain<std::uint8_t> out,
                                cudaStream_t stream) {
    if (empty(out)) return cudaSuccess;
    return launch({grid_over(out.rows, out.cols), threads, 0, stream}, gather_codes, in, order, out);
}

cudaError_t launch_subtract(Plain<const float> a, Plain<const float> b, Plain<float> out, cudaStream_t stream) {
    if (empty(out)) return cudaSuccess;
    return launch({grid_over(out.rows, out.cols), threads, 0, stream}, subtract, a, b, out);
}

cudaError_t launch_tile_strips(TileSum what, Plain<const float> a, Plain<const float> b, double* strips,
                               cudaStream_t stream) {
    if (empty(a)) return cudaSuccess;
    const dim3 grid(blocks_for(a.cols, static_cast<int>(sum_strip)), blocks_for(a.rows, static_cast<int>(tile_rows)));
    const auto kernel = what == TileSum::products ? tile_strips<TileSum::products> : tile_strips<TileSum::squares>;
    return launch({grid, reducing_threads, 0, stream}, kernel, a, b, strips);
}

cudaError_t launch_add_strips(const double* strips, std::int64_t tiles, std::int64_t width, double* sums,
                              cudaStream_t stream) {
    if (tiles == 0) return cudaSuccess;
    return launch({blocks_for(tiles, threads), threads, 0, stream}, add_strips, strips, tiles,
                  ceil_div(width, sum_strip), sums);
}

cudaError_t launch_tile_columns(Plain<const float> a, Plain<const float> b, double* tiles, cudaStream_t stream) {
    if (empty(a)) return cudaSuccess;
    return launch({grid_over(ceil_div(a.rows, tile_rows), a.cols), threads, 0, stream}, tile_columns, a, b, tiles);
}

cudaError_t launch_add_tiles(const double* tiles, std::int64_t count, std::int64_t cols, double* sums,
                             cudaStream_t stream) {
    if (cols == 0) return cudaSuccess;
    constexpr int few = 32;  // columns are few, and tiles many
    return launch({blocks_for(cols, few), few, 0, stream}, add_tiles, tiles, count, cols, sums);
}

cudaError_t launch_diagonal(Plain<const float> matrix, float* result, cudaStream_t stream) {
    if (matrix.rows == 0) return cudaSuccess;
    return launch({blocks_for(matrix.rows, threads), threads, 0, stream}, diagonal, matrix, result);
}

cudaError_t launch_reverse(Plain<float> square, bool clear_lower, cudaStream_t stream) {
    if (square.rows == 0) return cudaSuccess;
    return launch({blocks_for(reversed_pairs(square.rows), threads), threads, 0, stream}, reverse, square, clear_lower);
}

cudaError_t launch_check_pivots(Plain<const float> factor, const float* original_diagonal, std::int32_t* failed,
                                cudaStream_t stream) {
    return launch({1, threads, 0, stream}, check_pivots, factor, original_diagonal, failed);
}

cudaError_t launch_invert_leaves(Plain<float> upper, cudaStream_t stream) {
    if (upper.rows == 0) return cudaSuccess;
    const auto leaves = static_cast<unsigned>(ceil_div(upper.rows, inverted_leaf));
    return launch({leaves, static_cast<unsigned>(inverted_leaf), 0, stream}, invert_leaves, upper);
}

cudaError_t launch_add_lower(Plain<const float> product, double* packed, cudaStream_t stream) {
    if (empty(product)) return cudaSuccess;
    return launch({grid_over(product.rows, product.cols), threads, 0, stream}, add_lower, product, packed);
}

cudaError_t launch_finish_gram(const double* packed, double factor, Plain<float> gram, cudaStream_t stream) {
    if (empty(gram)) return cudaSuccess;
    const unsigned tiles = blocks_for(gram.rows, mirror_tile);
    return launch({dim3(tiles, tiles), dim3(mirror_tile, 8), 0, stream}, finish_gram, packed, factor, gram);
}

cudaError_t launch_dequantize(Plain<const std::uint8_t> codes, Plain<const float> scales,
                              Plain<const std::uint8_t> zeros, const std::int32_t* group_index, void* weights,
                              DType type, std::int64_t stride, cudaStream_t stream) {
    if (empty(codes)) return cudaSuccess;
    return with_type(type, [&](auto element) {
        return launch({grid_over(codes.rows, codes.cols), threads, 0, stream}, dequantize<decltype(element)>, codes,
                      scales, zeros, group_index, static_cast<decltype(element)*>(weights), stride);
    });
}

cudaError_t launch_pair_differences(const void* inputs, DType type, std::int64_t stride, const PairTokens* pairs,
                                    Plain<float> differences, cudaStream_t stream) {
    if (empty(differences)) return cudaSuccess;
    return with_type(type, [&](auto element) {
        return launch({grid_over(differences.rows, differences.cols), threads, 0, stream},
                      pair_differences<decltype(element)>, static_cast<const decltype(element)*>(inputs), stride, pairs,
                      differences);
    });
}

}  // namespace fairgptq::cuda
