// Elementwise; SiLU and tanh-GELU go through fast_exp, since x·sigmoid(y) covers both.
#include "backend/activation.hpp"

#include <cmath>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/fast_exp.hpp"

namespace fairgptq {

namespace {

void check_same(const TensorView& a, const TensorView& b) {
    if (a.rows != b.rows || a.cols != b.cols)
        throw Failure("activation: [{}, {}] and [{}, {}] should be the same size", a.rows, a.cols, b.rows, b.cols);
}

/// output = f(gate) · up, or f(gate) where `up` is null
template <class Function>
void map(MatrixView<const float> gate, const MatrixView<const float>* up, MatrixView<float> output, Function f) {
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < gate.rows; ++row) {
        const float* from = gate.row(row);
        float* to = output.row(row);
        if (up == nullptr) {
#pragma omp simd
            for (std::int64_t col = 0; col < gate.cols; ++col)
                to[col] = f(from[col]);
        } else {
            const float* factor = up->row(row);
#pragma omp simd
            for (std::int64_t col = 0; col < gate.cols; ++col)
                to[col] = f(from[col]) * factor[col];
        }
    }
}

void apply(Activation activation, MatrixView<const float> gate, const MatrixView<const float>* up,
           MatrixView<float> output) {
    switch (activation) {
        case Activation::silu:
            return map(gate, up, output, [](float x) { return x / (1.0F + fast_exp(-x)); });
        case Activation::relu:
            return map(gate, up, output, [](float x) { return x < 0.0F ? 0.0F : x; });
        case Activation::gelu:
            return map(gate, up, output, [](float x) { return 0.5F * x * std::erfc(x * -0.707106781F); });
        case Activation::gelu_tanh:
            // 0.5·x·(1 + tanh(u)) = x / (1 + exp(−2u)), u = sqrt(2/π)·(x + 0.044715·x³)
            return map(gate, up, output,
                       [](float x) { return x / (1.0F + fast_exp(-1.595769122F * (x + 0.044715F * x * x * x))); });
        case Activation::sigmoid:
            return map(gate, up, output, [](float x) { return 1.0F / (1.0F + fast_exp(-x)); });
        case Activation::identity:
            return map(gate, up, output, [](float x) { return x; });
    }
}

}  // namespace

void CpuBackend::gated_activation(Activation activation, TensorView gate, TensorView up, TensorView output) {
    check_same(gate, up);
    check_same(gate, output);
    const MatrixView<const float> factors = up.float32();
    apply(activation, gate.float32(), &factors, output.float32());
}

void CpuBackend::activation(Activation activation, TensorView inputs, TensorView output) {
    check_same(inputs, output);
    apply(activation, inputs.float32(), nullptr, output.float32());
}

}  // namespace fairgptq
