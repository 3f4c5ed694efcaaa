#include "backend/delta_rule.hpp"

#include <algorithm>
#include <functional>
#include <vector>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/delta_rule_kernels.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {
namespace {

/// Of sequences that have tokens; those with most first, so that no block begins its long work last.
std::vector<cuda::DeltaWalk> walks_of(std::span<const DeltaSequence> sequences, std::int64_t rows) {
    if (rows > cuda::most_rows) throw Failure("delta_rule: more than {} rows", cuda::most_rows);
    const auto narrow = [](std::int64_t row) { return static_cast<std::int32_t>(row); };
    std::vector<cuda::DeltaWalk> walks;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
        const DeltaSequence& sequence = sequences[i];
        const std::int64_t tokens = sequence.prefix.size() + sequence.own.size();
        if (tokens > cuda::most_rows) throw Failure("delta_rule: a sequence has more than {} tokens", cuda::most_rows);
        if (tokens > 0)
            walks.push_back({static_cast<std::int64_t>(i), narrow(sequence.prefix.begin), narrow(sequence.own.begin),
                             narrow(sequence.prefix.size()), narrow(tokens)});
    }
    std::ranges::stable_sort(walks, std::greater{}, &cuda::DeltaWalk::tokens);
    return walks;
}

}  // namespace

void CudaBackend::delta_rule(TensorView mixed, MatrixView<const float> gates, const float* decay, const float* step,
                             std::span<const DeltaSequence> sequences, const DeltaShape& shape, float* states,
                             TensorView output) {
    check_delta_rule(mixed, gates, sequences, shape, output);
    static_assert(DeltaShape::widest_key == cuda::widest_delta_key);
    cuda::require_one_type("delta_rule", mixed, output);
    const std::vector<cuda::DeltaWalk> walks = walks_of(sequences, mixed.rows);
    memory_.use();
    const cuda::DeltaWalk* on_gpu = on_device(std::span<const cuda::DeltaWalk>(walks), indices_);
    const cuda::PlainDelta plain_shape{shape.key_heads, shape.value_heads, shape.key_dim, shape.value_dim,
                                       DeltaShape::epsilon};
    cuda::check(
        cuda::launch_delta_rule(cuda::plain(mixed), {gates.data, gates.rows, gates.cols, gates.stride}, decay, step,
                                on_gpu, std::ssize(walks), plain_shape, states, cuda::plain(output), stream()),
        "delta_rule");
}

}  // namespace fairgptq
