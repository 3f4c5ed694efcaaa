// Simple and right; issue by issue they can be made fast behind the same launches. Sums over a row are taken by a
// block in an order that depends on the row's length alone.
#include "backend/cuda/forward_kernels.hpp"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {
namespace {

constexpr int threads = 256;
constexpr float infinity = __builtin_huge_valf();

template <class T>
__device__ const T* row_of(const PlainTensor& tensor, std::int64_t row) {
    return static_cast<const T*>(tensor.data) + row * tensor.stride;
}
template <class T>
__device__ T* row_to_write(const PlainTensor& tensor, std::int64_t row) {
    return static_cast<T*>(tensor.data) + row * tensor.stride;
}

/// A block has a row, and each of its threads the same columns in every pass: output may be inputs.
template <class T>
__global__ void norm(PlainTensor inputs, const float* weight, const float* bias, float epsilon, PlainTensor output) {
    __shared__ float shared[reducing_threads];
    const auto features = static_cast<float>(inputs.cols);
    for (std::int64_t row = blockIdx.x; row < inputs.rows; row += gridDim.x) {
        const T* from = row_of<T>(inputs, row);
        T* to = row_to_write<T>(output, row);
        float mean = 0;
        if (bias != nullptr) {
            float sum = 0;
            for (std::int64_t col = threadIdx.x; col < inputs.cols; col += blockDim.x)
                sum += to_float(from[col]);
            mean = sum_block(sum, shared) / features;
        }
        float squares = 0;
        for (std::int64_t col = threadIdx.x; col < inputs.cols; col += blockDim.x) {
            const float value = to_float(from[col]) - mean;
            squares += value * value;
        }
        const float factor = 1.0F / sqrtf(sum_block(squares, shared) / features + epsilon);
        for (std::int64_t col = threadIdx.x; col < inputs.cols; col += blockDim.x) {
            const float value = (to_float(from[col]) - mean) * factor * weight[col];
            store(bias != nullptr ? value + bias[col] : value, to + col);
        }
    }
}

/// A thread has one angle of one token, and turns that pair of elements of every head by it.
template <class T>
__global__ void rotary(PlainTensor heads, std::int64_t head_dim, const std::int64_t* positions,
                       const float* frequencies, float attention_factor) {
    const std::int64_t half = head_dim / 2;
    for (std::int64_t at = global_thread(); at < heads.rows * half; at += all_threads()) {
        const std::int64_t token = at / half;
        const std::int64_t i = at % half;
        double sine = 0;
        double cosine = 0;
        sincos(static_cast<double>(positions[token]) * static_cast<double>(frequencies[i]), &sine, &cosine);
        const float c = static_cast<float>(cosine) * attention_factor;
        const float s = static_cast<float>(sine) * attention_factor;
        T* row = row_to_write<T>(heads, token);
        for (std::int64_t head = 0; head < heads.cols; head += head_dim) {
            const float a = to_float(row[head + i]);
            const float b = to_float(row[head + half + i]);
            store(a * c - b * s, row + head + i);
            store(b * c + a * s, row + head + half + i);
        }
    }
}

__device__ float activate(PlainActivation activation, float x) {
    switch (activation) {
        case PlainActivation::silu:
            return x / (1.0F + expf(-x));
        case PlainActivation::relu:
            return x < 0.0F ? 0.0F : x;
        case PlainActivation::gelu:
            return 0.5F * x * erfcf(x * -0.707106781F);
        case PlainActivation::gelu_tanh:
            // 0.5·x·(1 + tanh(u)) = x / (1 + exp(−2u)), u = sqrt(2/π)·(x + 0.044715·x³)
            return x / (1.0F + expf(-1.595769122F * (x + 0.044715F * x * x * x)));
    }
    return x;
}

template <class T>
__global__ void activation_kernel(PlainActivation activation, PlainTensor gate, PlainTensor up, PlainTensor output) {
    for (std::int64_t row = blockIdx.y; row < gate.rows; row += gridDim.y)
        for (std::int64_t col = global_thread(); col < gate.cols; col += all_threads()) {
            const float value = activate(activation, to_float(row_of<T>(gate, row)[col]));
            store(up.data == nullptr ? value : value * to_float(row_of<T>(up, row)[col]),
                  row_to_write<T>(output, row) + col);
        }
}

template <class T>
__global__ void embed(PlainTensor table, const std::int32_t* ids, PlainTensor output, bool accumulate) {
    for (std::int64_t row = blockIdx.y; row < output.rows; row += gridDim.y) {
        const T* from = row_of<T>(table, ids[row]);
        T* to = row_to_write<T>(output, row);
        for (std::int64_t col = global_thread(); col < output.cols; col += all_threads()) {
            if (accumulate)
                store(to_float(to[col]) + to_float(from[col]), to + col);
            else
                to[col] = from[col];
        }
    }
}

/// A block has a row; float64 sums, so a large vocabulary costs no precision.
template <class T>
__global__ void log_probabilities_kernel(PlainTensor logits, const std::int32_t* targets, float* log_probabilities,
                                         std::int32_t* best) {
    __shared__ float shared[reducing_threads];
    __shared__ std::int32_t shared_places[reducing_threads];
    __shared__ double shared_sums[reducing_threads];
    for (std::int64_t row = blockIdx.x; row < logits.rows; row += gridDim.x) {
        const T* values = row_of<T>(logits, row);
        float largest = -infinity;
        for (std::int64_t col = threadIdx.x; col < logits.cols; col += blockDim.x)
            largest = fmaxf(largest, to_float(values[col]));
        largest = reduce_block(largest, shared, [](float a, float b) { return fmaxf(a, b); });
        if (best != nullptr) {
            auto place = static_cast<std::int32_t>(logits.cols);
            for (std::int64_t col = threadIdx.x; col < logits.cols && col < place; col += blockDim.x)
                if (to_float(values[col]) == largest) place = static_cast<std::int32_t>(col);
            place = reduce_block(place, shared_places, [](std::int32_t a, std::int32_t b) { return a < b ? a : b; });
            if (threadIdx.x == 0) best[row] = place;
        }
        double sum = 0;
        for (std::int64_t col = threadIdx.x; col < logits.cols; col += blockDim.x)
            sum += static_cast<double>(expf(to_float(values[col]) - largest));
        sum = sum_block(sum, shared_sums);
        if (threadIdx.x == 0)
            log_probabilities[row] = static_cast<float>(static_cast<double>(to_float(values[targets[row]])) -
                                                        (static_cast<double>(largest) + log(sum)));
    }
}

template <class T>
__global__ void add_bias(Plain<const float> sums, const float* bias, PlainTensor output, bool accumulate) {
    for (std::int64_t row = blockIdx.y; row < sums.rows; row += gridDim.y)
        for (std::int64_t col = global_thread(); col < sums.cols; col += all_threads()) {
            T* place = row_to_write<T>(output, row) + col;
            float value = sums.row(row)[col];
            if (bias != nullptr) value += bias[col];
            if (accumulate) value += to_float(*place);
            store(value, place);
        }
}

bool empty(const PlainTensor& tensor) {
    return tensor.rows == 0 || tensor.cols == 0;
}
dim3 grid_over(std::int64_t rows, std::int64_t cols) {
    return {blocks_for(cols, threads), blocks_for(rows, 1)};
}

}  // namespace

cudaError_t launch_norm(const PlainTensor& inputs, const float* weight, const float* bias, float epsilon,
                        const PlainTensor& output, cudaStream_t stream) {
    if (empty(inputs)) return cudaSuccess;
    return with_type(inputs.type, [&](auto element) {
        return launch({blocks_for(inputs.rows, 1), reducing_threads, 0, stream}, norm<decltype(element)>, inputs,
                      weight, bias, epsilon, output);
    });
}

cudaError_t launch_rotary(const PlainTensor& heads, std::int64_t head_dim, const std::int64_t* positions,
                          const float* frequencies, float attention_factor, cudaStream_t stream) {
    if (empty(heads)) return cudaSuccess;
    return with_type(heads.type, [&](auto element) {
        return launch({blocks_for(heads.rows * (head_dim / 2), threads), threads, 0, stream}, rotary<decltype(element)>,
                      heads, head_dim, positions, frequencies, attention_factor);
    });
}

cudaError_t launch_activation(PlainActivation activation, const PlainTensor& gate, const PlainTensor& up,
                              const PlainTensor& output, cudaStream_t stream) {
    if (empty(gate)) return cudaSuccess;
    return with_type(gate.type, [&](auto element) {
        return launch({grid_over(gate.rows, gate.cols), threads, 0, stream}, activation_kernel<decltype(element)>,
                      activation, gate, up, output);
    });
}

cudaError_t launch_embed(const PlainTensor& table, const std::int32_t* ids, const PlainTensor& output, bool accumulate,
                         cudaStream_t stream) {
    if (empty(output)) return cudaSuccess;
    return with_type(output.type, [&](auto element) {
        return launch({grid_over(output.rows, output.cols), threads, 0, stream}, embed<decltype(element)>, table, ids,
                      output, accumulate);
    });
}

cudaError_t launch_log_probabilities(const PlainTensor& logits, const std::int32_t* targets, float* log_probabilities,
                                     std::int32_t* best, cudaStream_t stream) {
    if (logits.rows == 0) return cudaSuccess;
    return with_type(logits.type, [&](auto element) {
        return launch({blocks_for(logits.rows, 1), reducing_threads, 0, stream},
                      log_probabilities_kernel<decltype(element)>, logits, targets, log_probabilities, best);
    });
}

cudaError_t launch_add_bias(Plain<const float> sums, const float* bias, const PlainTensor& output, bool accumulate,
                            cudaStream_t stream) {
    if (sums.rows == 0 || sums.cols == 0) return cudaSuccess;
    return with_type(output.type, [&](auto element) {
        return launch({grid_over(sums.rows, sums.cols), threads, 0, stream}, add_bias<decltype(element)>, sums, bias,
                      output, accumulate);
    });
}

}  // namespace fairgptq::cuda
