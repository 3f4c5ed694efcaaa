#include "backend/attention.hpp"

#include <vector>

#include "backend/sequences.hpp"

namespace fairgptq {

void AttentionOperations::attention(TensorView query, TensorView key, TensorView value,
                                    std::span<const std::int64_t> offsets, const AttentionShape& shape,
                                    TensorView output) {
    check_offsets("attention", offsets, query.rows);
    if (key.rows != query.rows) throw Failure("attention: {} rows of keys for {} queries", key.rows, query.rows);
    std::vector<CachedSequence> sequences;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
        const RowRange rows{offsets[s], offsets[s + 1]};
        sequences.push_back({rows, {}, rows});
    }
    cached_attention(query, key, value, sequences, shape, output);
}

void AttentionOperations::check_attention(const TensorView& query, const TensorView& key, const TensorView& value,
                                          std::span<const CachedSequence> sequences, const AttentionShape& shape,
                                          const TensorView& output) {
    if (shape.head_dim < 1 || shape.key_value_heads < 1 || shape.heads < 1 ||
        shape.heads % shape.key_value_heads != 0 || shape.window < 0 || !(shape.cap >= 0) || shape.value_dim < 0 ||
        shape.value_dim > shape.head_dim || shape.values_apart < 0 || shape.value_step() < shape.value_size())
        throw Failure(
            "attention: {} heads, {} key-value heads, {} elements a head, {} of its values, each {} further, a window "
            "of {} and a cap of {} do not go together",
            shape.heads, shape.key_value_heads, shape.head_dim, shape.value_dim, shape.values_apart, shape.window,
            shape.cap);
    const auto expect = [&](const char* name, const TensorView& tensor, std::int64_t rows, std::int64_t cols) {
        if (tensor.rows != rows || tensor.cols != cols)
            throw Failure("attention: {} is [{}, {}] but should be [{}, {}]", name, tensor.rows, tensor.cols, rows,
                          cols);
    };
    expect("query", query, query.rows, shape.heads * shape.head_dim);
    expect("key", key, key.rows, shape.key_value_heads * shape.head_dim);
    expect("value", value, key.rows, shape.value_cols());
    expect("output", output, query.rows, shape.heads * shape.value_size());
    const auto inside = [](RowRange range, std::int64_t rows) {
        return range.begin >= 0 && range.begin <= range.end && range.end <= rows;
    };
    for (const CachedSequence& sequence : sequences)
        if (!inside(sequence.queries, query.rows) || !inside(sequence.prefix, key.rows) ||
            !inside(sequence.own, key.rows) || sequence.queries.size() > sequence.own.size())
            throw Failure(
                "attention: a sequence's rows leave its tensors, or it has more queries than keys of its own");
}

}  // namespace fairgptq
