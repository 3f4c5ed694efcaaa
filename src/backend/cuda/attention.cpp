#include "backend/attention.hpp"

#include <vector>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/sequences.hpp"
#include "backend/cuda/tensors.hpp"

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
    const auto check = [&](const char* name, const TensorView& tensor, std::int64_t heads) {
        if (tensor.rows != query.rows || tensor.cols != heads * shape.head_dim)
            throw Failure("attention: {} is [{}, {}] but should be [{}, {}]", name, tensor.rows, tensor.cols,
                          query.rows, heads * shape.head_dim);
        cuda::require_one_type("attention", query, tensor);
    };
    check("query", query, shape.heads);
    check("key", key, shape.key_value_heads);
    check("value", value, shape.key_value_heads);
    check("output", output, shape.heads);
}

}  // namespace

void CudaBackend::attention(TensorView query, TensorView key, TensorView value, std::span<const std::int64_t> offsets,
                            const AttentionShape& shape, TensorView output) {
    check_shapes(query, key, value, shape, output);
    const std::vector<std::int32_t> first = cuda::first_tokens("attention", offsets, query.rows);
    const std::int32_t* device_first = on_device(std::span<const std::int32_t>(first), indices_);
    const cuda::PlainAttention plain_shape{shape.heads, shape.key_value_heads, shape.head_dim, shape.window,
                                           shape.scale};
    cuda::check(cuda::launch_attention(cuda::plain(query), cuda::plain(key), cuda::plain(value), device_first,
                                       plain_shape, cuda::plain(output), stream()),
                "attention");
}

}  // namespace fairgptq
