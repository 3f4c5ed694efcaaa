// Attention on the GPU: on tensor cores for 16-bit types, plain for the rest. On `stream`; both return CUDA's status of
// the launch.
#pragma once

#include "backend/cuda/forward_kernels.hpp"

namespace fairgptq::cuda {

struct PlainAttention {
    std::int64_t heads, key_value_heads, head_dim, window;
    float scale;
    float cap;                           // of scores; 0: none
    std::int64_t value_dim, value_step;  // elements of a head's values, and from one head's to the next one's
};

/// Neighbouring queries of one sequence. The first is at `position` of its keys, of which `prefix_keys` are in rows
/// from prefix on, the others in rows from `own` on.
struct QueryTile {
    std::int32_t row, prefix, own;
    std::int32_t queries, position, prefix_keys;
};

/// Whether the tensor cores' kernel does it: 16-bit elements, heads of at most 256 of them, a multiple of 8, and rows
/// and heads that begin at multiples of 16 bytes. @returns the most queries of a tile, or 0
int queries_of_tile(const PlainTensor& query, const PlainTensor& key, const PlainTensor& value,
                    const PlainAttention& shape, const PlainTensor& output);

/// softmax(scale · q kᵀ) v as AttentionOperations, capped where there is a cap, by blocks of keys with a running
/// softmax (arXiv 2307.08691, algorithm 1): scores, their exponentials and all sums in float32, the exponentials
/// rounded to the tensors' type as factors of the values. A query's result depends on its position and keys alone, not
/// on its tile.
/// @param tiles on the device, of at most queries_of_tile queries each
cudaError_t launch_tiled_attention(const PlainTensor& query, const PlainTensor& key, const PlainTensor& value,
                                   const QueryTile* tiles, std::int64_t count, const PlainAttention& shape,
                                   const PlainTensor& output, cudaStream_t stream);

/// The same for every type and shape, in float32 throughout. @param tiles on the device, of one query each
cudaError_t launch_plain_attention(const PlainTensor& query, const PlainTensor& key, const PlainTensor& value,
                                   const QueryTile* tiles, std::int64_t count, const PlainAttention& shape,
                                   const PlainTensor& output, cudaStream_t stream);

}  // namespace fairgptq::cuda
