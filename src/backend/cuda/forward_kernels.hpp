// Kernels of a decoder block's forward pass beside its matrix products. All on `stream`; all return CUDA's status of
// the launch; any size, 0 included. Rows of a tensor are `stride` elements apart.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/portable.hpp"
#include "support/dtype.hpp"

namespace fairgptq::cuda {

/// Rows of a tensor whose type is known at run time.
struct PlainTensor {
    void* data = nullptr;
    DType type = DType::float32;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t stride = 0;
};

/// As NormOperations. @param bias null for RMSNorm, which does not take out the mean either
cudaError_t launch_norm(const PlainTensor& inputs, const float* weight, const float* bias, float epsilon,
                        const PlainTensor& output, cudaStream_t stream);

enum class PlainActivation : std::uint8_t { silu, relu, gelu, gelu_tanh, sigmoid, identity };
/// output = activation(gate) · up, or without up where up.data is null.
cudaError_t launch_activation(PlainActivation activation, const PlainTensor& gate, const PlainTensor& up,
                              const PlainTensor& output, cudaStream_t stream);

/// As ScaleOperations.
cudaError_t launch_scale(const PlainTensor& inputs, float factor, const PlainTensor& output, bool accumulate,
                         cudaStream_t stream);

/// As SoftCapOperations.
cudaError_t launch_soft_cap(const PlainTensor& values, float cap, cudaStream_t stream);

/// output[t] = table[ids[t]], or += . @param ids on the device
cudaError_t launch_embed(const PlainTensor& table, const std::int32_t* ids, const PlainTensor& output, bool accumulate,
                         cudaStream_t stream);

/// As ScatterOperations. @param ids and @param factors on the device
cudaError_t launch_scatter_rows(const PlainTensor& inputs, const std::int32_t* ids, const float* factors,
                                const PlainTensor& output, cudaStream_t stream);

/// As ScoreOperations; @param targets, log_probabilities, best on the device; best may be null
cudaError_t launch_log_probabilities(const PlainTensor& logits, const std::int32_t* targets, float* log_probabilities,
                                     std::int32_t* best, cudaStream_t stream);

/// output = sums + bias (+ output if accumulate), rounded once; bias may be null.
cudaError_t launch_add_bias(Plain<const float> sums, const float* bias, const PlainTensor& output, bool accumulate,
                            cudaStream_t stream);

}  // namespace fairgptq::cuda
