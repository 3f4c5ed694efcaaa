#include "backend/attention.hpp"

#include <algorithm>
#include <functional>
#include <vector>

#include "backend/cuda/attention_kernels.hpp"
#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"
#include "backend/sequences.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t most_rows = std::int64_t{1} << 30;  // rows and positions are 32-bit numbers on the GPU

void check_shapes(const TensorView& query, const TensorView& key, const TensorView& value, const AttentionShape& shape,
                  const TensorView& output) {
    if (shape.head_dim < 1 || shape.key_value_heads < 1 || shape.heads < 1 ||
        shape.heads % shape.key_value_heads != 0 || shape.window < 0)
        throw Failure(
            "attention: {} heads, {} key-value heads, {} elements a head and a window of {} do not go together",
            shape.heads, shape.key_value_heads, shape.head_dim, shape.window);
    constexpr std::int64_t largest_head = 1024;  // what a block has on-chip memory for
    if (shape.head_dim > largest_head)
        throw Failure("attention: heads of {} elements are wider than {}", shape.head_dim, largest_head);
    const auto check = [&](const char* name, const TensorView& tensor, std::int64_t rows, std::int64_t heads) {
        if (tensor.rows != rows || tensor.cols != heads * shape.head_dim)
            throw Failure("attention: {} is [{}, {}] but should be [{}, {}]", name, tensor.rows, tensor.cols, rows,
                          heads * shape.head_dim);
        cuda::require_one_type("attention", query, tensor);
    };
    check("query", query, query.rows, shape.heads);
    check("key", key, key.rows, shape.key_value_heads);
    check("value", value, key.rows, shape.key_value_heads);
    check("output", output, query.rows, shape.heads);
}

/// Tiles of at most `most` queries, those with most keys first, so that no block begins its long work last.
std::vector<cuda::QueryTile> tiles_of(std::span<const CachedSequence> sequences, std::int64_t most,
                                      std::int64_t query_rows, std::int64_t key_rows) {
    const auto inside = [](RowRange range, std::int64_t rows) {
        return range.begin >= 0 && range.begin <= range.end && range.end <= rows;
    };
    if (query_rows > most_rows || key_rows > most_rows)
        throw Failure("attention: more than {} rows of queries or keys", most_rows);
    const auto narrow = [](std::int64_t row) { return static_cast<std::int32_t>(row); };
    std::vector<cuda::QueryTile> tiles;
    for (const CachedSequence& sequence : sequences) {
        if (!inside(sequence.queries, query_rows) || !inside(sequence.prefix, key_rows) ||
            !inside(sequence.own, key_rows) || sequence.queries.size() > sequence.own.size())
            throw Failure(
                "attention: a sequence's rows leave its tensors, or it has more queries than keys of its own");
        const std::int64_t keys = sequence.prefix.size() + sequence.own.size();
        if (keys > most_rows) throw Failure("attention: a sequence has more than {} tokens", most_rows);
        for (std::int64_t i = 0; i < sequence.queries.size(); i += most)
            tiles.push_back({narrow(sequence.queries.begin + i), narrow(sequence.prefix.begin),
                             narrow(sequence.own.begin), narrow(std::min(most, sequence.queries.size() - i)),
                             narrow(keys - sequence.queries.size() + i), narrow(sequence.prefix.size())});
    }
    std::ranges::stable_sort(tiles, std::greater{}, &cuda::QueryTile::position);
    return tiles;
}

}  // namespace

void CudaBackend::attention(TensorView query, TensorView key, TensorView value, std::span<const std::int64_t> offsets,
                            const AttentionShape& shape, TensorView output) {
    check_offsets("attention", offsets, query.rows);
    if (key.rows != query.rows) throw Failure("attention: {} rows of keys for {} queries", key.rows, query.rows);
    std::vector<CachedSequence> sequences;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
        const RowRange rows{offsets[s], offsets[s + 1]};
        sequences.push_back({rows, {}, rows});
    }
    cached_attention(query, key, value, sequences, shape, output);
}

void CudaBackend::cached_attention(TensorView query, TensorView key, TensorView value,
                                   std::span<const CachedSequence> sequences, const AttentionShape& shape,
                                   TensorView output) {
    check_shapes(query, key, value, shape, output);
    const cuda::PlainAttention plain_shape{shape.heads, shape.key_value_heads, shape.head_dim,
                                           std::min(shape.window, most_rows), shape.scale};
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
