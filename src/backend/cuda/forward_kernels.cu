// Everything here moves more bytes than it computes: it should go at the memory's speed. So rows are read once, 16
// bytes a thread where they begin at a multiple of that, and stay in registers from a sum over them to its use
// (rows.cuh).
#include "backend/cuda/forward_kernels.hpp"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/rows.cuh"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {
namespace {

constexpr float infinity = __builtin_huge_valf();
constexpr int norm_block = 256;

/// A row has a warp or a block, and each thread the same chunks in every pass: output may be inputs.
/// @tparam Held chunks of a row that a thread keeps, at least as many as it has; 0: it reads them again
template <class T, bool Whole, int Threads, int Held>
__global__ void norm(PlainTensor inputs, const float* weight, const float* bias, float epsilon, PlainTensor output) {
    __shared__ float shared[norm_block / 32];
    constexpr int elements = chunk_elements<T>;
    constexpr int rows_at_once = norm_block / Threads;
    const std::int64_t cols = inputs.cols;
    const auto features = static_cast<float>(cols);
    const std::int64_t first = static_cast<std::int64_t>(threadIdx.x % Threads) * elements;
    const auto count_at = [&](std::int64_t col) { return count_in_chunk<Whole, T>(col, cols); };
    for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * rows_at_once + threadIdx.x / Threads;
         row < inputs.rows; row += static_cast<std::int64_t>(gridDim.x) * rows_at_once) {
        const T* from = row_of<T>(inputs, row);
        T* to = row_to_write<T>(output, row);
        Chunk held[Held > 0 ? Held : 1];
#pragma unroll
        for (int k = 0; k < Held; ++k) {
            const std::int64_t col = first + k * (Threads * elements);
            if (col < cols) held[k] = load_chunk<Whole>(from + col, count_at(col));
        }
        const auto for_each_chunk = [&](const auto& visit) {
            if constexpr (Held > 0) {
#pragma unroll
                for (int k = 0; k < Held; ++k) {
                    const std::int64_t col = first + k * (Threads * elements);
                    if (col < cols) visit(held[k], col, count_at(col));
                }
            } else {
                for (std::int64_t col = first; col < cols; col += Threads * elements)
                    visit(load_chunk<Whole>(from + col, count_at(col)), col, count_at(col));
            }
        };
        float mean = 0;
        if (bias != nullptr) {
            float sum = 0;
            for_each_chunk([&](const Chunk& chunk, std::int64_t, int) {
#pragma unroll
                for (int i = 0; i < elements; ++i)
                    sum += element<T>(chunk, i);  // 0 beyond the row's end
            });
            mean = sum_over_row<Threads>(sum, shared) / features;
        }
        float squares = 0;
        for_each_chunk([&](const Chunk& chunk, std::int64_t, int count) {
#pragma unroll
            for (int i = 0; i < elements; ++i) {
                const float value = element<T>(chunk, i) - mean;
                if (i < count) squares = fmaf(value, value, squares);
            }
        });
        const float factor = 1.0F / sqrtf(sum_over_row<Threads>(squares, shared) / features + epsilon);
        for_each_chunk([&](const Chunk& chunk, std::int64_t col, int count) {
            const Floats<Whole, T> weights(weight + col, count);
            Chunk result;
            if (bias == nullptr) {
#pragma unroll
                for (int i = 0; i < elements; ++i)
                    set_element<T>(element<T>(chunk, i) * factor * weights[i], i, result);
            } else {
                const Floats<Whole, T> biases(bias + col, count);
#pragma unroll
                for (int i = 0; i < elements; ++i)
                    set_element<T>(fmaf((element<T>(chunk, i) - mean) * factor, weights[i], biases[i]), i, result);
            }
            store_chunk<Whole>(result, to + col, count);
        });
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
        case PlainActivation::sigmoid:
            return 1.0F / (1.0F + expf(-x));
        case PlainActivation::identity:
            return x;
    }
    return x;
}

template <class T, PlainActivation function>
struct ActivationWork {
    PlainTensor gate, up, output;

    template <bool Whole>
    __device__ void at(std::int64_t row, std::int64_t col, int count) const {
        const Chunk gates = load_chunk<Whole>(row_of<T>(gate, row) + col, count);
        Chunk factors;
        if (up.data != nullptr) factors = load_chunk<Whole>(row_of<T>(up, row) + col, count);
        Chunk result;
#pragma unroll
        for (int i = 0; i < chunk_elements<T>; ++i) {
            const float value = activate(function, element<T>(gates, i));
            set_element<T>(up.data == nullptr ? value : value * element<T>(factors, i), i, result);
        }
        store_chunk<Whole>(result, row_to_write<T>(output, row) + col, count);
    }
};

template <class T>
struct ScaleWork {
    PlainTensor inputs;
    float factor;
    PlainTensor output;
    bool accumulate;

    template <bool Whole>
    __device__ void at(std::int64_t row, std::int64_t col, int count) const {
        Chunk values = load_chunk<Whole>(row_of<T>(inputs, row) + col, count);
        T* to = row_to_write<T>(output, row) + col;
        Chunk before;
        if (accumulate) before = load_chunk<Whole>(to, count);
#pragma unroll
        for (int i = 0; i < chunk_elements<T>; ++i) {
            const float value = element<T>(values, i);
            set_element<T>(accumulate ? fmaf(factor, value, element<T>(before, i)) : factor * value, i, values);
        }
        store_chunk<Whole>(values, to, count);
    }
};

template <class T>
struct SoftCapWork {
    PlainTensor values;
    float cap;

    template <bool Whole>
    __device__ void at(std::int64_t row, std::int64_t col, int count) const {
        T* place = row_to_write<T>(values, row) + col;
        Chunk chunk = load_chunk<Whole>(place, count);
#pragma unroll
        for (int i = 0; i < chunk_elements<T>; ++i)
            set_element<T>(cap * tanhf(element<T>(chunk, i) / cap), i, chunk);
        store_chunk<Whole>(chunk, place, count);
    }
};

template <class T>
struct EmbedWork {
    PlainTensor table;
    const std::int32_t* ids;
    PlainTensor output;
    bool accumulate;

    template <bool Whole>
    __device__ void at(std::int64_t row, std::int64_t col, int count) const {
        Chunk entry = load_chunk<Whole>(row_of<T>(table, ids[row]) + col, count);
        T* to = row_to_write<T>(output, row) + col;
        if (accumulate) {
            const Chunk before = load_chunk<Whole>(to, count);
#pragma unroll
            for (int i = 0; i < chunk_elements<T>; ++i)
                set_element<T>(element<T>(before, i) + element<T>(entry, i), i, entry);
        }
        store_chunk<Whole>(entry, to, count);
    }
};

template <class T>
struct ScatterWork {
    PlainTensor inputs;
    const std::int32_t* ids;
    const float* factors;
    PlainTensor output;

    template <bool Whole>
    __device__ void at(std::int64_t row, std::int64_t col, int count) const {
        Chunk values = load_chunk<Whole>(row_of<T>(inputs, row) + col, count);
        T* to = row_to_write<T>(output, ids[row]) + col;
        const Chunk before = load_chunk<Whole>(to, count);
        const float factor = factors[row];
#pragma unroll
        for (int i = 0; i < chunk_elements<T>; ++i)
            set_element<T>(fmaf(factor, element<T>(values, i), element<T>(before, i)), i, values);
        store_chunk<Whole>(values, to, count);
    }
};

struct Largest {
    float value;
    std::int32_t place;

    __device__ void take(float other, std::int32_t at) {
        if (other > value || (other == value && at < place)) {
            value = other;
            place = at;
        }
    }
};

/// A block has a row, and goes over it twice: the second time it comes from the cache. A chunk is summed in float32,
/// all chunks in float64, so a large vocabulary costs no precision.
template <class T, bool Whole>
__global__ void log_probabilities_kernel(PlainTensor logits, const std::int32_t* targets, float* log_probabilities,
                                         std::int32_t* best) {
    __shared__ Largest shared[reducing_threads];
    __shared__ double shared_sums[reducing_threads];
    constexpr int elements = chunk_elements<T>;
    const std::int64_t cols = logits.cols;
    for (std::int64_t row = blockIdx.x; row < logits.rows; row += gridDim.x) {
        const T* values = row_of<T>(logits, row);
        Largest largest{-infinity, static_cast<std::int32_t>(cols)};
        for (std::int64_t col = threadIdx.x * elements; col < cols; col += reducing_threads * elements) {
            const int count = count_in_chunk<Whole, T>(col, cols);
            const Chunk chunk = load_chunk<Whole>(values + col, count);
#pragma unroll
            for (int i = 0; i < elements; ++i)
                if (i < count) largest.take(element<T>(chunk, i), static_cast<std::int32_t>(col) + i);
        }
        largest = reduce_block(largest, shared, [](Largest a, Largest b) {
            a.take(b.value, b.place);
            return a;
        });
        double sum = 0;
        for (std::int64_t col = threadIdx.x * elements; col < cols; col += reducing_threads * elements) {
            const int count = count_in_chunk<Whole, T>(col, cols);
            const Chunk chunk = load_chunk<Whole>(values + col, count);
            float part = 0;
#pragma unroll
            for (int i = 0; i < elements; ++i)
                if (i < count) part += expf(element<T>(chunk, i) - largest.value);
            sum += static_cast<double>(part);
        }
        sum = sum_block(sum, shared_sums);
        if (threadIdx.x == 0) {
            if (best != nullptr) best[row] = largest.place;
            log_probabilities[row] = static_cast<float>(static_cast<double>(to_float(values[targets[row]])) -
                                                        (static_cast<double>(largest.value) + log(sum)));
        }
    }
}

template <class T>
struct AddBiasWork {
    Plain<const float> sums;
    const float* bias;
    PlainTensor output;
    bool accumulate;

    template <bool Whole>
    __device__ void at(std::int64_t row, std::int64_t col, int count) const {
        const Floats<Whole, T> values(sums.row(row) + col, count);
        T* place = row_to_write<T>(output, row) + col;
        Chunk before;
        if (accumulate) before = load_chunk<Whole>(place, count);
        Chunk result;
        if (bias == nullptr) {
#pragma unroll
            for (int i = 0; i < chunk_elements<T>; ++i)
                set_element<T>(accumulate ? values[i] + element<T>(before, i) : values[i], i, result);
        } else {
            const Floats<Whole, T> biases(bias + col, count);
#pragma unroll
            for (int i = 0; i < chunk_elements<T>; ++i) {
                const float value = values[i] + biases[i];
                set_element<T>(accumulate ? value + element<T>(before, i) : value, i, result);
            }
        }
        store_chunk<Whole>(result, place, count);
    }
};

bool empty(const PlainTensor& tensor) {
    return tensor.rows == 0 || tensor.cols == 0;
}

/// Rows of tensors that have no gaps are one long row.
bool without_gaps(const PlainTensor& tensor) {
    return tensor.data == nullptr || tensor.stride == tensor.cols;
}

}  // namespace

cudaError_t launch_norm(const PlainTensor& inputs, const float* weight, const float* bias, float epsilon,
                        const PlainTensor& output, cudaStream_t stream) {
    if (empty(inputs)) return cudaSuccess;
    const bool whole = in_whole_chunks(inputs) && in_whole_chunks(output) && at_16_bytes(weight) && at_16_bytes(bias);
    return with_type(inputs.type, [&](auto element) {
        using T = decltype(element);
        const auto start = [&](auto* kernel, int row_threads) {
            return launch({blocks_for(inputs.rows, norm_block / row_threads), norm_block, 0, stream}, kernel, inputs,
                          weight, bias, epsilon, output);
        };
        // Which threads share a row depends on its length alone, and so does the order of its sums.
        const std::int64_t chunks = ceil_div(inputs.cols, chunk_elements<T>);
        if (chunks <= 4 * 32) {
            if (!whole) return start(norm<T, false, 32, 0>, 32);
            return chunks <= 32 ? start(norm<T, true, 32, 1>, 32) : start(norm<T, true, 32, 4>, 32);
        }
        if (!whole) return start(norm<T, false, norm_block, 0>, norm_block);
        if (chunks <= 2 * norm_block) return start(norm<T, true, norm_block, 2>, norm_block);
        if (chunks <= 4 * norm_block) return start(norm<T, true, norm_block, 4>, norm_block);
        if (chunks <= 8 * norm_block) return start(norm<T, true, norm_block, 8>, norm_block);
        return start(norm<T, true, norm_block, 0>, norm_block);
    });
}

cudaError_t launch_activation(PlainActivation activation, const PlainTensor& gate, const PlainTensor& up,
                              const PlainTensor& output, cudaStream_t stream) {
    if (empty(gate)) return cudaSuccess;
    const bool whole = in_whole_chunks(gate) && in_whole_chunks(up) && in_whole_chunks(output);
    const bool one_row = without_gaps(gate) && without_gaps(up) && without_gaps(output);
    const std::int64_t rows = one_row ? 1 : gate.rows;
    const std::int64_t cols = one_row ? gate.rows * gate.cols : gate.cols;
    return with_type(gate.type, [&](auto element) {
        using T = decltype(element);
        const auto start = [&](auto work) { return launch_over_chunks<T>(rows, cols, whole, work, stream); };
        switch (activation) {
            case PlainActivation::silu:
                return start(ActivationWork<T, PlainActivation::silu>{gate, up, output});
            case PlainActivation::relu:
                return start(ActivationWork<T, PlainActivation::relu>{gate, up, output});
            case PlainActivation::gelu:
                return start(ActivationWork<T, PlainActivation::gelu>{gate, up, output});
            case PlainActivation::gelu_tanh:
                return start(ActivationWork<T, PlainActivation::gelu_tanh>{gate, up, output});
            case PlainActivation::sigmoid:
                return start(ActivationWork<T, PlainActivation::sigmoid>{gate, up, output});
            case PlainActivation::identity:
                break;
        }
        return start(ActivationWork<T, PlainActivation::identity>{gate, up, output});
    });
}

cudaError_t launch_scale(const PlainTensor& inputs, float factor, const PlainTensor& output, bool accumulate,
                         cudaStream_t stream) {
    if (empty(output)) return cudaSuccess;
    const bool whole = in_whole_chunks(inputs) && in_whole_chunks(output);
    return with_type(output.type, [&](auto element) {
        using T = decltype(element);
        return launch_over_chunks<T>(output.rows, output.cols, whole, ScaleWork<T>{inputs, factor, output, accumulate},
                                     stream);
    });
}

cudaError_t launch_soft_cap(const PlainTensor& values, float cap, cudaStream_t stream) {
    if (empty(values)) return cudaSuccess;
    return with_type(values.type, [&](auto element) {
        using T = decltype(element);
        return launch_over_chunks<T>(values.rows, values.cols, in_whole_chunks(values), SoftCapWork<T>{values, cap},
                                     stream);
    });
}

cudaError_t launch_embed(const PlainTensor& table, const std::int32_t* ids, const PlainTensor& output, bool accumulate,
                         cudaStream_t stream) {
    if (empty(output)) return cudaSuccess;
    const bool whole = in_whole_chunks(table) && in_whole_chunks(output);
    return with_type(output.type, [&](auto element) {
        using T = decltype(element);
        return launch_over_chunks<T>(output.rows, output.cols, whole, EmbedWork<T>{table, ids, output, accumulate},
                                     stream);
    });
}

cudaError_t launch_scatter_rows(const PlainTensor& inputs, const std::int32_t* ids, const float* factors,
                                const PlainTensor& output, cudaStream_t stream) {
    if (empty(inputs)) return cudaSuccess;
    const bool whole = in_whole_chunks(inputs) && in_whole_chunks(output);
    return with_type(output.type, [&](auto element) {
        using T = decltype(element);
        return launch_over_chunks<T>(inputs.rows, inputs.cols, whole, ScatterWork<T>{inputs, ids, factors, output},
                                     stream);
    });
}

cudaError_t launch_log_probabilities(const PlainTensor& logits, const std::int32_t* targets, float* log_probabilities,
                                     std::int32_t* best, cudaStream_t stream) {
    if (logits.rows == 0) return cudaSuccess;
    return with_type(logits.type, [&](auto element) {
        using T = decltype(element);
        return with_known(in_whole_chunks(logits), [&](auto known) {
            return launch({blocks_for(logits.rows, 1), reducing_threads, 0, stream},
                          log_probabilities_kernel<T, decltype(known)::value>, logits, targets, log_probabilities,
                          best);
        });
    });
}

cudaError_t launch_add_bias(Plain<const float> sums, const float* bias, const PlainTensor& output, bool accumulate,
                            cudaStream_t stream) {
    if (sums.rows == 0 || sums.cols == 0) return cudaSuccess;
    const bool whole = in_whole_chunks(output) && at_16_bytes(bias) && at_16_bytes(sums.data) &&
                       (sums.rows <= 1 || sums.stride % 4 == 0);
    return with_type(output.type, [&](auto element) {
        using T = decltype(element);
        return launch_over_chunks<T>(sums.rows, sums.cols, whole, AddBiasWork<T>{sums, bias, output, accumulate},
                                     stream);
    });
}

}  // namespace fairgptq::cuda
