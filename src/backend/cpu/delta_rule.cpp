// A value head's columns do not depend on each other, so a thread takes some of them through a whole sequence, with
// their part of the state in its first cache.
#include "backend/delta_rule.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "backend/cpu/backend.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t panel = 32;  // columns of a value head that are gone through together

using Panel = std::array<float, panel>;

struct DeltaTensors {
    MatrixView<const float> mixed, gates;
    const float *decay, *step;
    MatrixView<float> output;
};

/// 1 over the length of a query or key.
float inverse_length(const float* values, std::int64_t count) {
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (std::int64_t i = 0; i < count; ++i)
        squares += values[i] * values[i];
    return 1.0F / std::sqrt(squares + DeltaShape::epsilon);
}

/// Columns `first` to `first + count` of one value head, through a sequence.
class Walk {
  public:
    Walk(const DeltaTensors& tensors, const DeltaShape& shape, std::int64_t head, std::int64_t first, float* state)
        : tensors_(tensors),
          shape_(shape),
          head_(head),
          first_(first),
          count_(std::min(panel, shape.value_dim - first)),
          state_(state),
          query_(head / (shape.value_heads / shape.key_heads) * shape.key_dim),
          decay_(-std::exp(tensors.decay[head])) {
        for (std::int64_t i = 0; i < shape_.key_dim; ++i) {
            s_[static_cast<std::size_t>(i)] = {};
            if (state_ != nullptr)
                std::copy_n(state_ + i * shape_.value_dim + first_, count_, s_[static_cast<std::size_t>(i)].begin());
        }
    }

    void see(RowRange rows, bool asked) {
        for (std::int64_t row = rows.begin; row < rows.end; ++row)
            token(row, asked);
    }

    void keep_state() const {
        if (state_ == nullptr) return;
        for (std::int64_t i = 0; i < shape_.key_dim; ++i)
            std::copy_n(s_[static_cast<std::size_t>(i)].begin(), count_, state_ + i * shape_.value_dim + first_);
    }

  private:
    void token(std::int64_t row, bool asked) {
        const float* gates = tensors_.gates.row(row);
        const float* query = tensors_.mixed.row(row) + query_;
        const float* key = query + shape_.key_cols();
        const float* value = tensors_.mixed.row(row) + 2 * shape_.key_cols() + head_ * shape_.value_dim + first_;
        const float a = gates[shape_.value_heads + head_] + tensors_.step[head_];
        // log(1 + e^a) for whatever a.
        const float faded = std::exp(decay_ * (std::max(a, 0.0F) + std::log1p(std::exp(-std::fabs(a)))));
        const float beta = 1.0F / (1.0F + std::exp(-gates[head_]));
        const float of_key = inverse_length(key, shape_.key_dim);
        const float of_query = inverse_length(query, shape_.key_dim) / std::sqrt(static_cast<float>(shape_.key_dim));

        Panel remembered{}, gathered{}, difference{};
        for (std::int64_t i = 0; i < shape_.key_dim; ++i) {
            const Panel& s = s_[static_cast<std::size_t>(i)];
            const float k = key[i] * of_key;
#pragma omp simd
            for (std::int64_t j = 0; j < panel; ++j)
                remembered[j] += k * s[j];
        }
        for (std::int64_t j = 0; j < count_; ++j)
            difference[j] = beta * (value[j] - faded * remembered[j]);
        for (std::int64_t i = 0; i < shape_.key_dim; ++i) {
            Panel& s = s_[static_cast<std::size_t>(i)];
            const float k = key[i] * of_key;
            const float q = query[i] * of_query;
#pragma omp simd
            for (std::int64_t j = 0; j < panel; ++j) {
                s[j] = faded * s[j] + k * difference[j];
                gathered[j] += q * s[j];
            }
        }
        if (asked) std::copy_n(gathered.begin(), count_, tensors_.output.row(row) + head_ * shape_.value_dim + first_);
    }

    const DeltaTensors& tensors_;
    const DeltaShape& shape_;
    std::int64_t head_, first_, count_;
    float* state_;  // of the head, or null
    std::int64_t query_;
    float decay_;
    std::array<Panel, DeltaShape::widest_key> s_;
};

}  // namespace

void CpuBackend::delta_rule(TensorView mixed, MatrixView<const float> gates, const float* decay, const float* step,
                            std::span<const DeltaSequence> sequences, const DeltaShape& shape, float* states,
                            TensorView output) {
    check_delta_rule(mixed, gates, sequences, shape, output);
    const DeltaTensors tensors{mixed.float32(), gates, decay, step, output.float32()};
    const std::int64_t panels = (shape.value_dim + panel - 1) / panel;
    const std::int64_t tasks = std::ssize(sequences) * shape.value_heads * panels;
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t task = 0; task < tasks; ++task) {
        const std::int64_t sequence = task / (shape.value_heads * panels);
        const std::int64_t head = task / panels % shape.value_heads;
        float* state = states == nullptr
                           ? nullptr
                           : states + sequence * shape.state_elements() + head * shape.key_dim * shape.value_dim;
        Walk walk(tensors, shape, head, task % panels * panel, state);
        walk.see(sequences[static_cast<std::size_t>(sequence)].prefix, false);
        walk.see(sequences[static_cast<std::size_t>(sequence)].own, true);
        walk.keep_state();
    }
}

}  // namespace fairgptq
