#include "backend/attention.hpp"

#include <algorithm>
#include <functional>
#include <vector>

#include "backend/cuda/attention_kernels.hpp"
#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {
namespace {

/// Tiles of at most `most` queries, those with most keys first, so that no block begins its long work last.
std::vector<cuda::QueryTile> tiles_of(std::span<const CachedSequence> sequences, std::int64_t most,
                                      std::int64_t query_rows, std::int64_t key_rows) {
    if (query_rows > cuda::most_rows || key_rows > cuda::most_rows)
        throw Failure("attention: more than {} rows of queries or keys", cuda::most_rows);
    const auto narrow = [](std::int64_t row) { return static_cast<std::int32_t>(row); };
    std::vector<cuda::QueryTile> tiles;
    for (const CachedSequence& sequence : sequences) {
        const std::int64_t keys = sequence.prefix.size() + sequence.own.size();
        if (keys > cuda::most_rows) throw Failure("attention: a sequence has more than {} tokens", cuda::most_rows);
        for (std::int64_t i = 0; i < sequence.queries.size(); i += most)
            tiles.push_back({narrow(sequence.queries.begin + i), narrow(sequence.prefix.begin),
                             narrow(sequence.own.begin), narrow(std::min(most, sequence.queries.size() - i)),
                             narrow(keys - sequence.queries.size() + i), narrow(sequence.prefix.size())});
    }
    std::ranges::stable_sort(tiles, std::greater{}, &cuda::QueryTile::position);
    return tiles;
}

}  // namespace

void CudaBackend::cached_attention(TensorView query, TensorView key, TensorView value,
                                   std::span<const CachedSequence> sequences, const AttentionShape& shape,
                                   TensorView output) {
    check_attention(query, key, value, sequences, shape, output);
    constexpr std::int64_t largest_head = 1024;  // what a block has on-chip memory for
    if (shape.head_dim > largest_head)
        throw Failure("attention: heads of {} elements are wider than {}", shape.head_dim, largest_head);
    for (const TensorView& tensor : {key, value, output})
        cuda::require_one_type("attention", query, tensor);
    const cuda::PlainAttention plain_shape{
        shape.heads, shape.key_value_heads, shape.head_dim,    std::min(shape.window, cuda::most_rows), shape.scale,
        shape.cap,   shape.value_size(),    shape.value_step()};
    const cuda::PlainTensor q = cuda::plain(query);
    const cuda::PlainTensor k = cuda::plain(key);
    const cuda::PlainTensor v = cuda::plain(value);
    const cuda::PlainTensor out = cuda::plain(output);
    const int most = cuda::queries_of_tile(q, k, v, plain_shape, out);
    const std::vector<cuda::QueryTile> tiles = tiles_of(sequences, std::max(most, 1), query.rows, key.rows);
    const cuda::QueryTile* on_gpu = on_device(std::span<const cuda::QueryTile>(tiles), indices_);
    cuda::check((most > 0 ? cuda::launch_tiled_attention : cuda::launch_plain_attention)(
                    q, k, v, on_gpu, std::ssize(tiles), plain_shape, out, stream()),
                "attention");
}

}  // namespace fairgptq
