#include "backend/attention.hpp"

#include <vector>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"
#include "backend/sequences.hpp"

namespace fairgptq {
namespace {

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

std::vector<cuda::PlainQuery> queries_of(std::span<const CachedSequence> sequences, std::int64_t query_rows,
                                         std::int64_t key_rows) {
    const auto inside = [](RowRange range, std::int64_t rows) {
        return range.begin >= 0 && range.begin <= range.end && range.end <= rows;
    };
    std::vector<cuda::PlainQuery> queries;
    for (const CachedSequence& sequence : sequences) {
        if (!inside(sequence.queries, query_rows) || !inside(sequence.prefix, key_rows) ||
            !inside(sequence.own, key_rows) || sequence.queries.size() > sequence.own.size())
            throw Failure(
                "attention: a sequence's rows leave its tensors, or it has more queries than keys of its own");
        const std::int64_t first = sequence.prefix.size() + sequence.own.size() - sequence.queries.size();
        for (std::int64_t i = 0; i < sequence.queries.size(); ++i)
            queries.push_back({sequence.queries.begin + i, first + i, sequence.prefix.begin, sequence.prefix.size(),
                               sequence.own.begin});
    }
    return queries;
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
    const std::vector<cuda::PlainQuery> queries = queries_of(sequences, query.rows, key.rows);
    const cuda::PlainQuery* device_queries = on_device(std::span<const cuda::PlainQuery>(queries), indices_);
    const cuda::PlainAttention plain_shape{shape.heads, shape.key_value_heads, shape.head_dim, shape.window,
                                           shape.scale};
    cuda::check(cuda::launch_attention(cuda::plain(query), cuda::plain(key), cuda::plain(value), device_queries,
                                       std::ssize(queries), plain_shape, cuda::plain(output), stream()),
                "attention");
}

}  // namespace fairgptq
