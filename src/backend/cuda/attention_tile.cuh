// Attention of one tile of queries of one head, by a block of four warps. A warp has its queries' scores and sums in
// registers; keys and values go through on-chip memory, 64 positions at a time: values arrive while scores are made,
// the next keys while values are summed.
#pragma once

#include <cuda_pipeline.h>

#include "backend/cuda/attention_kernels.hpp"
#include "backend/cuda/tensor_core.cuh"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {

/// @tparam dim elements of a head, in registers; a narrower head is filled up with zeros
template <int dim>
struct AttentionTile {
    static constexpr int warps = 4;
    static constexpr int threads = warps * 32;
    static constexpr int strips = dim <= 128 ? 2 : 1;  // of 16 queries, of a warp
    static constexpr int warp_queries = strips * 16;
    static constexpr int queries = warps * warp_queries;
    static constexpr int keys = 64;
    static constexpr int pieces = dim / 8;          // of 16 bytes, of a row
    static constexpr int pitch = (pieces + 1) * 8;  // elements from row to row: 8 rows are in banks of their own
    static constexpr int on_chip_bytes = (queries + 2 * keys) * pitch * 2;
    static_assert(dim % 16 == 0 && pieces % 2 == 0);
};

/// A block's part of one head.
template <class T>
struct HeadViews {
    const T* query;
    const T* key;
    const T* value;
    std::int64_t query_stride, key_stride, value_stride;
    int head_dim, value_dim;
};

/// Rows of a matrix into on-chip memory; zeros where there is no row or column.
/// @param address (row) the place of its first element
template <int dim, int rows, class T, class Address>
__device__ void load_some_rows(int valid_rows, int valid_cols, T* to, const Address& address) {
    using Tile = AttentionTile<dim>;
#pragma unroll 1
    for (int at = static_cast<int>(threadIdx.x); at < rows * Tile::pieces; at += Tile::threads) {
        const int row = at / Tile::pieces;
        const int col = at % Tile::pieces * 8;
        const bool there = row < valid_rows && col < valid_cols;
        // Nothing is read where all is filled, but the address must be one.
        const T* from = address(there ? row : 0) + (there ? col : 0);
        __pipeline_memcpy_async(to + row * Tile::pitch + col, from, 16, there ? 0 : 16);
    }
}
/// The same where all rows and columns are there, and rows `stride` elements apart.
template <int dim, int rows, class T>
__device__ void load_all_rows(const T* from, std::int64_t stride, T* to) {
    using Tile = AttentionTile<dim>;
    static_assert(rows * Tile::pieces % Tile::threads == 0);
    const auto thread = static_cast<int>(threadIdx.x);
    if constexpr (Tile::threads % Tile::pieces == 0) {  // a thread's pieces have one column
        constexpr int step = Tile::threads / Tile::pieces;
        from += thread / Tile::pieces * stride + thread % Tile::pieces * 8;
        to += thread / Tile::pieces * Tile::pitch + thread % Tile::pieces * 8;
#pragma unroll
        for (int row = 0; row < rows; row += step) {
            __pipeline_memcpy_async(to + row * Tile::pitch, from, 16);
            from += step * stride;
        }
    } else {
#pragma unroll
        for (int at = 0; at < rows * Tile::pieces; at += Tile::threads) {
            const int row = (thread + at) / Tile::pieces;
            const int col = (thread + at) % Tile::pieces * 8;
            __pipeline_memcpy_async(to + row * Tile::pitch + col, from + row * stride + col, 16);
        }
    }
}

/// What the GPU takes instead of the cap of AttentionShape.
struct ScoreCap {
    float largest;  // cap / scale, as scores are scaled later
    float slope;    // 2 · log₂ e · scale / cap
};

/// A warp's share of a tile: its queries from row `first_row` of the tile on.
template <class T, int dim>
struct WarpTile {
    using Tile = AttentionTile<dim>;
    static constexpr int key_tiles = Tile::keys / 8;
    static constexpr float infinity = __builtin_huge_valf();

    float sums[Tile::strips][dim / 8][4];
    float scores[Tile::strips][key_tiles][4];
    float largest[Tile::strips][2];  // of rows r and r + 8 of a strip, unscaled
    float weight[Tile::strips][2];   // this lane's columns only, until the end
    int lane;
    int position;  // of the warp's first query

    __device__ WarpTile(int first_position) : lane(static_cast<int>(threadIdx.x) % 32), position(first_position) {
#pragma unroll
        for (int s = 0; s < Tile::strips; ++s) {
#pragma unroll
            for (int d = 0; d < dim / 8; ++d)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    sums[s][d][i] = 0;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                largest[s][half] = -infinity;
                weight[s][half] = 0;
            }
        }
    }

    /// Whether one of the warp's queries sees one of the keys first_key … .
    __device__ bool sees(int first_key, int window) const {
        return first_key < position + Tile::warp_queries &&
               (window == 0 || first_key + Tile::keys > position - window + 1);
    }

    /// scores = q kᵀ. @param queries, keys on chip; queries from the warp's first on
    __device__ void score(const T* queries, const T* keys) {
#pragma unroll
        for (int s = 0; s < Tile::strips; ++s)
#pragma unroll
            for (int k = 0; k < key_tiles; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    scores[s][k][i] = 0;
        const int matrix = lane / 8;
        const int row = lane % 8;
        const T* query_row = queries + (matrix % 2 * 8 + row) * Tile::pitch + matrix / 2 * 8;
        const T* key_row = keys + (matrix / 2 * 8 + row) * Tile::pitch + matrix % 2 * 8;
#pragma unroll
        for (int d = 0; d < dim; d += 16) {
            std::uint32_t a[Tile::strips][4];
#pragma unroll
            for (int s = 0; s < Tile::strips; ++s)
                load_matrices(query_row + s * 16 * Tile::pitch + d, a[s]);
#pragma unroll
            for (int k = 0; k < key_tiles; k += 2) {
                std::uint32_t b[4];
                load_matrices(key_row + k * 8 * Tile::pitch + d, b);
#pragma unroll
                for (int s = 0; s < Tile::strips; ++s) {
                    multiply_add(T{}, a[s], b[0], b[1], scores[s][k]);
                    multiply_add(T{}, a[s], b[2], b[3], scores[s][k + 1]);
                }
            }
        }
    }

    /// scores s become c · tanh(s / c) = c − 2 · c / (1 + 2^(slope · s)), c being the largest. To 10⁻⁶ of it.
    __device__ void limit(ScoreCap cap) {
#pragma unroll
        for (int s = 0; s < Tile::strips; ++s)
#pragma unroll
            for (int k = 0; k < key_tiles; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float power = power_of_2(scores[s][k][i] * cap.slope);
                    scores[s][k][i] = cap.largest - __fdividef(2 * cap.largest, 1 + power);
                }
    }

    /// Scores of keys that a query must not see become −∞.
    __device__ void mask(int first_key, int window) {
        const bool all_before = first_key + Tile::keys - 1 <= position;
        const bool all_inside = window == 0 || first_key > position + Tile::warp_queries - 1 - window;
        if (all_before && all_inside) return;
#pragma unroll
        for (int s = 0; s < Tile::strips; ++s)
#pragma unroll
            for (int k = 0; k < key_tiles; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int query = position + s * 16 + i / 2 * 8 + lane / 4;
                    const int key = first_key + k * 8 + lane % 4 * 2 + i % 2;
                    if (key > query || (window > 0 && key <= query - window)) scores[s][k][i] = -infinity;
                }
    }

    /// scores become their exponentials by the largest so far; what is summed already is brought to that measure.
    /// @param scale times log₂ e
    __device__ void exponentiate(float scale) {
#pragma unroll
        for (int s = 0; s < Tile::strips; ++s)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float now = largest[s][half];
#pragma unroll
                for (int k = 0; k < key_tiles; ++k)
                    now = fmaxf(now, fmaxf(scores[s][k][2 * half], scores[s][k][2 * half + 1]));
                now = fmaxf(now, __shfl_xor_sync(0xffffffffU, now, 1));
                now = fmaxf(now, __shfl_xor_sync(0xffffffffU, now, 2));
                // Products are rounded before they are subtracted: where no score is larger than before, the correction
                // is 1 to the last bit. How many such blocks a query meets its tile decides, which its result must not.
                const float scaled = __fmul_rn(now, scale);
                const float base = now == -infinity ? 0.0F : scaled;  // a window's edge: nothing seen yet
                const float correction = power_of_2(__fmul_rn(largest[s][half], scale) - base);
                largest[s][half] = now;
                float sum = weight[s][half] * correction;
#pragma unroll
                for (int k = 0; k < key_tiles; ++k)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; ++i) {
                        scores[s][k][i] = power_of_2(fmaf(scores[s][k][i], scale, -base));
                        sum += scores[s][k][i];
                    }
                weight[s][half] = sum;
#pragma unroll
                for (int d = 0; d < dim / 8; ++d) {
                    sums[s][d][2 * half] *= correction;
                    sums[s][d][2 * half + 1] *= correction;
                }
            }
    }

    /// sums += exponentials · values, on chip
    __device__ void add_values(const T* values) {
        const int matrix = lane / 8;
        const int row = lane % 8;
        const T* value_row = values + (matrix % 2 * 8 + row) * Tile::pitch + matrix / 2 * 8;
#pragma unroll
        for (int k = 0; k < key_tiles; k += 2) {
            std::uint32_t a[Tile::strips][4];
#pragma unroll
            for (int s = 0; s < Tile::strips; ++s)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    a[s][i] = packed(T{}, scores[s][k + i / 2][i % 2 * 2], scores[s][k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (int d = 0; d < dim / 8; d += 2) {
                std::uint32_t b[4];
                load_transposed(value_row + k * 8 * Tile::pitch + d * 8, b);
#pragma unroll
                for (int s = 0; s < Tile::strips; ++s) {
                    multiply_add(T{}, a[s], b[0], b[1], sums[s][d]);
                    multiply_add(T{}, a[s], b[2], b[3], sums[s][d + 1]);
                }
            }
        }
    }

    /// Quotients, by way of on-chip memory so that whole pieces of rows are written.
    /// @param rows on chip, the warp's own; @param count queries of the warp that there are
    /// @param output (row of the warp) where it goes
    template <class Output>
    __device__ void store(T* rows, int count, int value_dim, const Output& output) {
#pragma unroll
        for (int s = 0; s < Tile::strips; ++s)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float total = weight[s][half];
                total += __shfl_xor_sync(0xffffffffU, total, 1);
                total += __shfl_xor_sync(0xffffffffU, total, 2);
                const float factor = 1.0F / total;
                T* row = rows + (s * 16 + half * 8 + lane / 4) * Tile::pitch + lane % 4 * 2;
#pragma unroll
                for (int d = 0; d < dim / 8; ++d)
                    *reinterpret_cast<std::uint32_t*>(row + d * 8) =
                        packed(T{}, sums[s][d][2 * half] * factor, sums[s][d][2 * half + 1] * factor);
            }
        __syncwarp();
        for (int at = lane; at < count * Tile::pieces; at += 32) {
            const int row = at / Tile::pieces;
            const int col = at % Tile::pieces * 8;
            if (col < value_dim)
                *reinterpret_cast<float4*>(output(row) + col) =
                    *reinterpret_cast<const float4*>(rows + row * Tile::pitch + col);
        }
    }
};

/// The whole kernel for one tile and one head.
/// @param output (row) the place of the head's first element there
template <int dim, bool capped, class T, class Output>
__device__ void attend(T* on_chip, const HeadViews<T>& head, QueryTile tile, int window, float scale, ScoreCap cap,
                       const Output& output) {
    using Tile = AttentionTile<dim>;
    T* queries = on_chip;
    T* keys = queries + Tile::queries * Tile::pitch;
    T* values = keys + Tile::keys * Tile::pitch;
    const int first_row = static_cast<int>(threadIdx.x) / 32 * Tile::warp_queries;
    const int all_keys = tile.position + tile.queries;
    // Blocks of keys begin at multiples of their size, whoever asks: a query's sums are taken in one order always.
    const int seen_from = window > 0 && tile.position >= window ? tile.position - window + 1 : 0;
    const auto load = [&](int first, const T* from, std::int64_t stride, int cols, T* to) {
        const bool in_prefix = first < tile.prefix_keys;
        const bool mixed = in_prefix && first + Tile::keys > tile.prefix_keys;
        if (!mixed && first + Tile::keys <= all_keys && cols == dim) {
            const int row = (in_prefix ? tile.prefix : tile.own - tile.prefix_keys) + first;
            load_all_rows<dim, Tile::keys>(from + row * stride, stride, to);
        } else {
            load_some_rows<dim, Tile::keys>(all_keys - first, cols, to, [&](int row) {
                const int position = first + row;
                const int begin = position < tile.prefix_keys ? tile.prefix : tile.own - tile.prefix_keys;
                return from + (begin + position) * stride;
            });
        }
        __pipeline_commit();
    };

    const auto load_keys = [&](int first) { load(first, head.key, head.key_stride, head.head_dim, keys); };
    load_some_rows<dim, Tile::queries>(tile.queries, head.head_dim, queries,
                                       [&](int row) { return head.query + (tile.row + row) * head.query_stride; });
    int first = seen_from / Tile::keys * Tile::keys;
    load_keys(first);
    WarpTile<T, dim> warp(tile.position + first_row);
    const int count = static_cast<int>(smaller(tile.queries - first_row, Tile::warp_queries));  // may be below 0
    for (; first < all_keys; first += Tile::keys) {
        __pipeline_wait_prior(0);
        __syncthreads();  // keys are there, and the last values read
        load(first, head.value, head.value_stride, head.value_dim, values);
        const bool sees = count > 0 && warp.sees(first, window);
        if (sees) {
            warp.score(queries + first_row * Tile::pitch, keys);
            if constexpr (capped) warp.limit(cap);
            warp.mask(first, window);
            warp.exponentiate(scale);
        }
        __pipeline_wait_prior(0);
        __syncthreads();  // values are there, and the keys read
        if (first + Tile::keys < all_keys) load_keys(first + Tile::keys);
        if (sees) warp.add_values(values);
    }
    if (count > 0)
        warp.store(queries + first_row * Tile::pitch, count, head.value_dim,
                   [&](int row) { return output(tile.row + first_row + row); });
}

}  // namespace fairgptq::cuda
