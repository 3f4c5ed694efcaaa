// A state's columns do not depend on each other: a warp takes 32 of them through a whole sequence, in registers, token
// after token. What a token costs is its products, four an element of the state, if nothing else is in their way:
// queries and keys are brought on-chip some tokens at a time, and read from there once for every four columns.
#include <type_traits>

#include "backend/cuda/delta_rule_kernels.hpp"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/rows.cuh"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {
namespace {

constexpr int lanes = 32;
constexpr int delta_warps = 2;
constexpr int delta_threads = delta_warps * lanes;
constexpr int part_columns = delta_threads;  // of a value head that a block has
constexpr int staged_tokens = 16;
constexpr int sharing = 4;  // lanes that share as many columns, each with a quarter of the state's rows

__device__ float from_lane(float value, int distance) {
    return __shfl_xor_sync(0xffffffffU, value, distance);
}

/// What a token's sums and its value are multiplied by, lengths of its query and key among it: they stay as they are.
struct Factors {
    float faded;       // of the state,
    float remembered;  // of its product with the key,
    float learned;     // of the value's difference from that, before it is added to the state along the key,
    float gathered;    // of the state's product with the query,
    float match;       // and of what is learned, in the output
};

template <int Dim>
struct alignas(16) Staged {
    float keys[staged_tokens][Dim];  // 0 beyond a head's end
    float queries[staged_tokens][Dim];
    float values[staged_tokens][part_columns];
    Factors factors[staged_tokens];
};

/// Every 32nd of `count` elements, then 0.
template <class T, int Held>
__device__ void load_apart(const T* from, int count, T (&to)[Held]) {
#pragma unroll
    for (int i = 0; i < Held; ++i)
        if (i * lanes < count)
            to[i] = from[i * lanes];
        else
            store(0.0F, &to[i]);
}

/// What a block reads.
template <class T>
struct HeadRows {
    const T *queries, *keys, *values;
    std::int64_t stride;
    const float *b, *a;
    std::int64_t gates_stride;
    float decay, step;
    float epsilon, query_scale;
    int key_dim;
    int columns;  // of values, at most part_columns

    /// Brings tokens on-chip, a few of them at once: all are asked for before the first is waited for.
    /// @param row_at (token), of `tokens`
    template <int Dim, class RowAt>
    __device__ void stage(int tokens, const RowAt& row_at, Staged<Dim>& staged) const {
        constexpr int together = 4;  // tokens of a warp
        constexpr int held = (Dim + lanes - 1) / lanes;
        const int lane = static_cast<int>(threadIdx.x) % lanes;
        for (int first = static_cast<int>(threadIdx.x) / lanes * together; first < tokens;
             first += delta_warps * together) {
            const auto row_of_token = [&](int t) { return row_at(first + t < tokens ? first + t : tokens - 1); };
            T query[together][held];
            T key[together][held];
            T value[together][delta_warps];
#pragma unroll
            for (int t = 0; t < together; ++t) {
                const std::int64_t row = row_of_token(t) * stride + lane;
                load_apart(queries + row, key_dim - lane, query[t]);
                load_apart(keys + row, key_dim - lane, key[t]);
                load_apart(values + row, columns - lane, value[t]);
            }
            const std::int64_t gates_row = row_of_token(lane % together) * gates_stride;
            const float gate_b = b[gates_row];
            const float gate_a = a[gates_row];

            float sums[3][together] = {};  // queries' squares, keys', and products of both
#pragma unroll
            for (int t = 0; t < together; ++t) {
#pragma unroll
                for (int i = 0; i < held; ++i) {
                    const float q = to_float(query[t][i]);
                    const float k = to_float(key[t][i]);
                    sums[0][t] = fmaf(q, q, sums[0][t]);
                    sums[1][t] = fmaf(k, k, sums[1][t]);
                    sums[2][t] = fmaf(q, k, sums[2][t]);
                    const int place = lane + i * lanes;
                    if (place < Dim) {
                        staged.queries[first + t][place] = q;
                        staged.keys[first + t][place] = k;
                    }
                }
#pragma unroll
                for (int i = 0; i < delta_warps; ++i)
                    staged.values[first + t][lane + i * lanes] = to_float(value[t][i]);
            }
#pragma unroll
            for (int distance = lanes / 2; distance > 0; distance /= 2)
#pragma unroll
                for (int t = 0; t < together; ++t)
#pragma unroll
                    for (int which = 0; which < 3; ++which)
                        sums[which][t] += from_lane(sums[which][t], distance);
            float own[3] = {};  // of the lane's token
#pragma unroll
            for (int t = 0; t < together; ++t)
#pragma unroll
                for (int which = 0; which < 3; ++which)
                    if (lane == t) own[which] = sums[which][t];
            if (lane < together) staged.factors[first + lane] = factors(gate_b, gate_a, own[0], own[1], own[2]);
        }
    }

  private:
    __device__ Factors factors(float gate_b, float gate_a, float query_squares, float key_squares, float match) const {
        const float x = gate_a + step;
        // log(1 + e^x) for whatever x.
        const float faded = expf(decay * (fmaxf(x, 0.0F) + log1pf(expf(-fabsf(x)))));
        const float beta = 1.0F / (1.0F + expf(-gate_b));
        const float of_key = 1.0F / sqrtf(key_squares + epsilon);
        const float of_query = query_scale / sqrtf(query_squares + epsilon);
        return {faded, faded * of_key, beta * of_key, faded * of_query, match * of_query};
    }
};

/// A lane's part of a warp's 32 columns: a quarter of the rows of four columns, those of itself and its neighbours.
template <int Dim>
class LaneState {
  public:
    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < rows; ++i)
#pragma unroll
            for (int j = 0; j < sharing; ++j)
                s_[i][j] = 0;
    }
    /// Both through on-chip memory, where a warp needs what itself has brought: global memory is read and written in
    /// whole rows.
    /// @param place the first row, in the thread's column
    /// @param count rows, `stride` apart; the others are 0. Where there is no such column, none
    __device__ void load(const float* place, std::int64_t stride, int count, Staged<Dim>& staged) {
#pragma unroll
        for (int first = 0; first < Dim; first += tile_rows) {
            __syncwarp();  // the last tile's readers
#pragma unroll
            for (int i = 0; i < tile_rows; ++i)
                staged.values[i][threadIdx.x] = first + i < count ? place[i * stride] : 0.0F;
            if (first + tile_rows < count) place += tile_rows * stride;
            __syncwarp();
            each_in_tile(first, staged, [](float& value, const float& in_tile) { value = in_tile; });
        }
    }
    __device__ void keep(float* place, std::int64_t stride, int count, Staged<Dim>& staged) {
#pragma unroll
        for (int first = 0; first < Dim; first += tile_rows) {
            __syncwarp();
            each_in_tile(first, staged, [](float value, float& in_tile) { in_tile = value; });
            __syncwarp();
#pragma unroll
            for (int i = 0; i < tile_rows; ++i)
                if (first + i < count) place[i * stride] = staged.values[i][threadIdx.x];
            if (first + tile_rows < count) place += tile_rows * stride;
        }
    }

    /// @returns the output in the lane's column
    __device__ float token(const Staged<Dim>& staged, int t) {
        const Factors factors = staged.factors[t];
        float key[rows];
        float by_key[sharing] = {};
        float by_query[sharing] = {};
#pragma unroll
        for (int i = 0; i < rows; i += 4) {
            const float4 k = *reinterpret_cast<const float4*>(&staged.keys[t][row_of(i)]);
            const float4 q = *reinterpret_cast<const float4*>(&staged.queries[t][row_of(i)]);
            const float query[] = {q.x, q.y, q.z, q.w};
            key[i] = k.x;
            key[i + 1] = k.y;
            key[i + 2] = k.z;
            key[i + 3] = k.w;
#pragma unroll
            for (int row = 0; row < 4; ++row)
#pragma unroll
                for (int j = 0; j < sharing; ++j) {
                    by_key[j] = fmaf(key[i + row], s_[i + row][j], by_key[j]);
                    by_query[j] = fmaf(query[row], s_[i + row][j], by_query[j]);
                }
        }
        const float remembered = in_own_column(by_key);
        const float gathered = in_own_column(by_query);
        const float learned = factors.learned * fmaf(-factors.remembered, remembered, staged.values[t][threadIdx.x]);
        float of_columns[sharing];
#pragma unroll
        for (int j = 0; j < sharing; ++j)
            of_columns[j] = j == 0 ? learned : from_lane(learned, j);
#pragma unroll
        for (int i = 0; i < rows; ++i)
#pragma unroll
            for (int j = 0; j < sharing; ++j)
                s_[i][j] = fmaf(key[i], of_columns[j], factors.faded * s_[i][j]);
        // The query's product with the new state, by that with the old one: it need not wait.
        return fmaf(factors.match, learned, factors.gathered * gathered);
    }

  private:
    static constexpr int rows = Dim / sharing;
    static constexpr int tile_rows = 16;  // of the state: lanes that share columns read as much of a key at once
    static_assert(tile_rows == 4 * sharing && tile_rows <= staged_tokens && Dim % tile_rows == 0);

    /// Where in a key the lane's row `i` is: four lanes read 64 bytes side by side.
    __device__ static int row_of(int i) {
        return i / 4 * tile_rows + static_cast<int>(threadIdx.x) % sharing * 4 + i % 4;
    }
    /// Adds up what four lanes have of a column; column `j` of a lane is that of its neighbour lane ^ j.
    __device__ static float in_own_column(const float (&sums)[sharing]) {
        float sum = sums[0];
#pragma unroll
        for (int j = 1; j < sharing; ++j)
            sum += from_lane(sums[j], j);
        return sum;
    }
    template <class Visit>
    __device__ void each_in_tile(int first, Staged<Dim>& staged, const Visit& visit) {
#pragma unroll
        for (int i = 0; i < tile_rows / sharing; ++i)
#pragma unroll
            for (int j = 0; j < sharing; ++j)
                visit(s_[first / sharing + i][j], staged.values[row_of(i)][static_cast<int>(threadIdx.x) ^ j]);
    }

    float s_[rows][sharing];
};

/// A block has part_columns of a value head, through a sequence. The parts of a head follow each other, and its heads:
/// those of one key head find its queries and keys in the cache. Four blocks at a time leave a thread all the registers
/// that it can have; a fifth would take a third of them.
template <class T, int Dim>
__global__ __launch_bounds__(delta_threads, 4) void delta_rule(const __grid_constant__ PlainTensor mixed,
                                                               const __grid_constant__ Plain<const float> gates,
                                                               const float* decay, const float* step,
                                                               const DeltaWalk* walks, std::int64_t count,
                                                               const __grid_constant__ PlainDelta shape, float* states,
                                                               const __grid_constant__ PlainTensor output) {
    __shared__ Staged<Dim> staged;
    const auto thread = static_cast<int>(threadIdx.x);
    const std::int64_t parts = ceil_div(shape.value_dim, part_columns);
    for (std::int64_t item = blockIdx.x; item < count * shape.value_heads * parts; item += gridDim.x) {
        const DeltaWalk walk = walks[item / (shape.value_heads * parts)];
        const std::int64_t head = item / parts % shape.value_heads;
        const std::int64_t first = item % parts * part_columns;
        const std::int64_t key_head = head / (shape.value_heads / shape.key_heads);
        const std::int64_t key_cols = shape.key_heads * shape.key_dim;
        const T* queries = row_of<T>(mixed, 0) + key_head * shape.key_dim;
        const HeadRows<T> rows{queries,
                               queries + key_cols,
                               row_of<T>(mixed, 0) + 2 * key_cols + head * shape.value_dim + first,
                               mixed.stride,
                               gates.data + head,
                               gates.data + shape.value_heads + head,
                               gates.stride,
                               -expf(decay[head]),
                               step[head],
                               shape.epsilon,
                               1.0F / sqrtf(static_cast<float>(shape.key_dim)),
                               static_cast<int>(shape.key_dim),
                               static_cast<int>(smaller(part_columns, shape.value_dim - first))};
        const auto row_at = [&](int token) {
            return static_cast<std::int64_t>(token < walk.prefix_tokens ? walk.prefix + token
                                                                        : walk.own + (token - walk.prefix_tokens));
        };
        const int state_rows = thread < rows.columns ? rows.key_dim : 0;
        const std::int64_t state_head = walk.sequence * shape.value_heads + head;
        const std::int64_t place = state_head * shape.key_dim * shape.value_dim + first + (state_rows > 0 ? thread : 0);
        T* written = row_to_write<T>(output, 0) + head * shape.value_dim + first + thread;
        LaneState<Dim> state;
        if (states == nullptr)
            state.clear();
        else
            state.load(states + place, shape.value_dim, state_rows, staged);
        for (int begin = 0; begin < walk.tokens; begin += staged_tokens) {
            const int tokens = static_cast<int>(smaller(staged_tokens, walk.tokens - begin));
            __syncthreads();  // the last tokens' readers
            rows.stage(
                tokens, [&](int token) { return row_at(begin + token); }, staged);
            __syncthreads();
#pragma unroll 1
            for (int t = 0; t < tokens; ++t) {
                const float value = state.token(staged, t);
                if (begin + t >= walk.prefix_tokens && thread < rows.columns)
                    store(value, written + row_at(begin + t) * output.stride);
            }
        }
        if (states != nullptr) state.keep(states + place, shape.value_dim, state_rows, staged);
    }
}

/// launch(std::integral_constant<int, dim>) with the narrowest kernel's width that holds a key.
template <class Launch>
cudaError_t with_width(std::int64_t key_dim, const Launch& launch) {
    if (key_dim <= 16) return launch(std::integral_constant<int, 16>{});
    if (key_dim <= 32) return launch(std::integral_constant<int, 32>{});
    if (key_dim <= 64) return launch(std::integral_constant<int, 64>{});
    return launch(std::integral_constant<int, widest_delta_key>{});
}

}  // namespace

cudaError_t launch_delta_rule(const PlainTensor& mixed, Plain<const float> gates, const float* decay, const float* step,
                              const DeltaWalk* walks, std::int64_t count, const PlainDelta& shape, float* states,
                              const PlainTensor& output, cudaStream_t stream) {
    if (count == 0) return cudaSuccess;
    const std::int64_t items = count * shape.value_heads * ceil_div(shape.value_dim, part_columns);
    return with_type(mixed.type, [&](auto element) {
        return with_width(shape.key_dim, [&](auto width) {
            return launch({blocks_for(items, 1), delta_threads, 0, stream},
                          delta_rule<decltype(element), decltype(width)::value>, mixed, gates, decay, step, walks,
                          count, shape, states, output);
        });
    });
}

}  // namespace fairgptq::cuda
