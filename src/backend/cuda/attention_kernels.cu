#include <type_traits>

#include "backend/cuda/attention_kernels.hpp"
#include "backend/cuda/attention_tile.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/on_chip.cuh"

namespace fairgptq::cuda {
namespace {

constexpr int warp = 32;
constexpr float infinity = __builtin_huge_valf();

template <class T>
__device__ T* start_of(const PlainTensor& tensor, std::int64_t row, std::int64_t col) {
    return static_cast<T*>(tensor.data) + row * tensor.stride + col;
}

/// Blocks of one tile's heads follow each other, so that those of one key-value head find its keys in the cache.
template <class T, int dim, bool capped>
__global__ __launch_bounds__(AttentionTile<dim>::threads) void tiled_attention(
    const __grid_constant__ PlainTensor query, const __grid_constant__ PlainTensor key,
    const __grid_constant__ PlainTensor value, const QueryTile* tiles, const __grid_constant__ PlainAttention shape,
    const __grid_constant__ PlainTensor output) {
    const auto heads = static_cast<unsigned>(shape.heads);
    const unsigned head = blockIdx.x % heads;
    const unsigned key_head = head / (heads / static_cast<unsigned>(shape.key_value_heads));
    const HeadViews<T> views{start_of<const T>(query, 0, head * shape.head_dim),
                             start_of<const T>(key, 0, key_head * shape.head_dim),
                             start_of<const T>(value, 0, key_head * shape.value_step),
                             query.stride,
                             key.stride,
                             value.stride,
                             static_cast<int>(shape.head_dim),
                             static_cast<int>(shape.value_dim)};
    constexpr float log2_e = 1.4426950408889634F;
    ScoreCap cap{};
    if constexpr (capped) cap = {shape.cap / shape.scale, 2 * log2_e * shape.scale / shape.cap};
    attend<dim, capped>(
        dynamic_on_chip<T>(), views, tiles[blockIdx.x / heads], static_cast<int>(shape.window), shape.scale * log2_e,
        cap, [&](std::int64_t row) { return start_of<T>(output, row, blockIdx.x % heads * shape.value_dim); });
}

__device__ float largest_in_warp(float value) {
    for (int distance = warp / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffU, value, distance));
    return value;
}
__device__ float sum_in_warp(float value) {
    for (int distance = warp / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffU, value, distance);
    return value;
}

/// A warp has one query head of one token and takes 32 keys at a time, one a lane, with a running softmax
/// (arXiv 1805.02867); the values are summed an element a lane.
template <class T>
__global__ void plain_attention(PlainTensor query, PlainTensor key, PlainTensor value, const QueryTile* queries,
                                std::int64_t count, PlainAttention shape, PlainTensor output) {
    auto* on_chip = dynamic_on_chip<float>();
    const int lane = static_cast<int>(threadIdx.x) % warp;
    const int in_block = static_cast<int>(threadIdx.x) / warp;
    const std::int64_t dim = shape.head_dim;
    const std::int64_t value_dim = shape.value_dim;
    float* scaled_query = on_chip + in_block * (2 * dim + warp);
    float* sums = scaled_query + dim;
    float* shares = sums + dim;
    const std::int64_t warps = static_cast<std::int64_t>(blockDim.x) / warp;
    for (std::int64_t item = blockIdx.x * warps + in_block; item < count * shape.heads; item += gridDim.x * warps) {
        const QueryTile asked = queries[item / shape.heads];
        const std::int64_t head = item % shape.heads;
        const std::int64_t key_head = head / (shape.heads / shape.key_value_heads);
        const auto row_at = [&](std::int64_t position) {
            return position < asked.prefix_keys ? asked.prefix + position : asked.own + position - asked.prefix_keys;
        };
        for (std::int64_t i = lane; i < dim; i += warp) {
            scaled_query[i] = to_float(*start_of<const T>(query, asked.row, head * dim + i)) * shape.scale;
            sums[i] = 0;
        }
        __syncwarp();
        const std::int64_t last = asked.position;
        const std::int64_t first = shape.window > 0 && last >= shape.window ? last - shape.window + 1 : 0;
        float largest = -infinity;
        float weight = 0;
        for (std::int64_t begin = first; begin <= last; begin += warp) {
            float score = -infinity;
            if (begin + lane <= last) {
                const T* row = start_of<const T>(key, row_at(begin + lane), key_head * dim);
                score = 0;
                for (std::int64_t i = 0; i < dim; ++i)
                    score = fmaf(scaled_query[i], to_float(row[i]), score);
                if (shape.cap > 0) score = shape.cap * tanhf(score / shape.cap);
            }
            const float now_largest = fmaxf(largest, largest_in_warp(score));
            const float correction = expf(largest - now_largest);
            shares[lane] = begin + lane <= last ? expf(score - now_largest) : 0.0F;
            weight = weight * correction + sum_in_warp(shares[lane]);
            largest = now_largest;
            __syncwarp();
            const auto keys = static_cast<int>(smaller(warp, last + 1 - begin));
            for (std::int64_t i = lane; i < value_dim; i += warp) {
                float sum = sums[i] * correction;
                for (int k = 0; k < keys; ++k) {
                    const T* row = start_of<const T>(value, row_at(begin + k), key_head * shape.value_step);
                    sum = fmaf(shares[k], to_float(row[i]), sum);
                }
                sums[i] = sum;
            }
            __syncwarp();
        }
        for (std::int64_t i = lane; i < value_dim; i += warp)
            store(sums[i] / weight, start_of<T>(output, asked.row, head * value_dim + i));
        __syncwarp();
    }
}

/// launch(std::integral_constant<int, dim>) with the narrowest kernel's width that holds a head.
template <class Launch>
auto with_width(std::int64_t head_dim, const Launch& launch) {
    if (head_dim <= 64) return launch(std::integral_constant<int, 64>{});
    if (head_dim <= 96) return launch(std::integral_constant<int, 96>{});
    if (head_dim <= 128) return launch(std::integral_constant<int, 128>{});
    if (head_dim <= 192) return launch(std::integral_constant<int, 192>{});
    return launch(std::integral_constant<int, 256>{});
}
constexpr int widest = 256;

bool whole_pieces(const PlainTensor& tensor) {
    return reinterpret_cast<std::uintptr_t>(tensor.data) % 16 == 0 && tensor.stride % 8 == 0;
}

}  // namespace

int queries_of_tile(const PlainTensor& query, const PlainTensor& key, const PlainTensor& value,
                    const PlainAttention& shape, const PlainTensor& output) {
    // The largest score is looked for before scaling.
    const bool whole_heads = shape.head_dim % 8 == 0 && shape.value_dim % 8 == 0 && shape.value_step % 8 == 0;
    if (query.type == DType::float32 || !whole_heads || shape.head_dim > widest || !(shape.scale > 0)) return 0;
    for (const PlainTensor& tensor : {query, key, value, output})
        if (!whole_pieces(tensor)) return 0;
    return with_width(shape.head_dim, [](auto width) { return AttentionTile<decltype(width)::value>::queries; });
}

cudaError_t launch_tiled_attention(const PlainTensor& query, const PlainTensor& key, const PlainTensor& value,
                                   const QueryTile* tiles, std::int64_t count, const PlainAttention& shape,
                                   const PlainTensor& output, cudaStream_t stream) {
    if (count == 0) return cudaSuccess;
    const auto with_element = [&](auto element) {
        const auto with_cap = [&](auto width, auto capped) {
            constexpr int dim = decltype(width)::value;
            constexpr int bytes = AttentionTile<dim>::on_chip_bytes;
            const auto kernel = tiled_attention<decltype(element), dim, decltype(capped)::value>;
            // Each time, as it is each device's own; it costs a microsecond.
            const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
            if (status != cudaSuccess) return status;
            return launch({static_cast<unsigned>(count * shape.heads), AttentionTile<dim>::threads, bytes, stream},
                          kernel, query, key, value, tiles, shape, output);
        };
        // Few models cap their scores: two kernels are enough for them, which take as many queries as the narrower
        // ones.
        static_assert(AttentionTile<64>::queries == AttentionTile<128>::queries &&
                      AttentionTile<96>::queries == AttentionTile<128>::queries &&
                      AttentionTile<192>::queries == AttentionTile<widest>::queries);
        if (shape.cap > 0 && shape.head_dim <= 128)
            return with_cap(std::integral_constant<int, 128>{}, std::true_type{});
        if (shape.cap > 0) return with_cap(std::integral_constant<int, widest>{}, std::true_type{});
        return with_width(shape.head_dim, [&](auto width) { return with_cap(width, std::false_type{}); });
    };
    return query.type == DType::bfloat16 ? with_element(__nv_bfloat16{}) : with_element(__half{});
}

cudaError_t launch_plain_attention(const PlainTensor& query, const PlainTensor& key, const PlainTensor& value,
                                   const QueryTile* tiles, std::int64_t count, const PlainAttention& shape,
                                   const PlainTensor& output, cudaStream_t stream) {
    if (count == 0) return cudaSuccess;
    constexpr int warps = 4;
    const std::size_t on_chip = warps * (2 * static_cast<std::size_t>(shape.head_dim) + warp) * sizeof(float);
    return with_type(query.type, [&](auto element) {
        return launch({blocks_for(count * shape.heads, warps), warps * warp, on_chip, stream},
                      plain_attention<decltype(element)>, query, key, value, tiles, count, shape, output);
    });
}

}  // namespace fairgptq::cuda
