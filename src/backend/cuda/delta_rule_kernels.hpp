// Linear attention by the gated delta rule. On `stream`; returns CUDA's status of the launch.
#pragma once

#include "backend/cuda/forward_kernels.hpp"

namespace fairgptq::cuda {

constexpr std::int64_t widest_delta_key = 128;

struct PlainDelta {
    std::int64_t key_heads, value_heads, key_dim, value_dim;
    float epsilon;
};

/// A sequence's tokens: those of a prefix, in rows from `prefix` on, whose outputs are not written, and its own ones in
/// rows from `own` on.
struct DeltaWalk {
    std::int64_t sequence;
    std::int32_t prefix, own;
    std::int32_t prefix_tokens, tokens;  // the latter of both
};

/// As DeltaRuleOperations, with keys of at most widest_delta_key elements. A token is computed in one way wherever in a
/// sequence it is. @param walks on the device
cudaError_t launch_delta_rule(const PlainTensor& mixed, Plain<const float> gates, const float* decay, const float* step,
                              const DeltaWalk* walks, std::int64_t count, const PlainDelta& shape, float* states,
                              const PlainTensor& output, cudaStream_t stream);

}  // namespace fairgptq::cuda
