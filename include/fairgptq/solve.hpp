// Quantizes one matrix with Fair-GPTQ (arXiv 2509.15206) or GPTQ (arXiv 2210.17323) on this process's CPU.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace fairgptq {

/// The words and presets are those of `fairgptq solve`.
struct QuantizationOptions {
    double alpha = 0.1;                 // weight of the bias term; 0 is GPTQ
    std::string solver = "joint";       // joint, reference, reference-first-order
    int bits = 4;                       // 2, 3, 4, 8
    std::int64_t group_size = 128;      // 32, 64, 128, 256, −1 for the whole row; divides cols
    bool symmetric = true;              //
    std::string order = "none";         // none, activation, group
    bool static_groups = false;         // fix all scales before the first column
    double damp = 0.01;                 // share of the Hessian's mean diagonal added to it
    std::string scale_search = "none";  // none, mse
    std::string scale_type = "f16";     // f16, f32: what scales are rounded to before use
};

/// A value is scales[row, g] · (codes[row, column] − zeros[row, g]), g = group_index[column].
struct QuantizedMatrix {
    std::int64_t rows = 0, cols = 0, groups = 0;
    std::vector<std::uint8_t> codes;        // [rows, cols], one a byte
    std::vector<float> scales;              // [rows, groups]
    std::vector<std::uint8_t> zeros;        // [rows, groups]
    std::vector<std::int32_t> group_index;  // [cols]
    std::vector<float> values;              // [rows, cols], dequantized
    double damp_used = 0;                   // more than asked for where the Hessian did not factor
    double reconstruction = 0;              // tr((W−Q)H(W−Q)ᵀ)
    double bias_before = 0;                 // tr(WCWᵀ)
    double bias_after = 0;                  // tr(QCQᵀ)
};

/// All matrices are row-major.
/// @param weights    W [rows, cols]
/// @param hessian    H [cols, cols] = (2/N)·XᵀX of the layer's N calibration inputs
/// @param covariance C [cols, cols] = (2/P)·DᵀD of the P differences of paired inputs; may be empty if alpha is 0
/// @throws std::runtime_error, with a sentence, if sizes disagree, a number is not finite, an option has no such value,
/// or H cannot be factored
QuantizedMatrix quantize_matrix(std::span<const float> weights, std::int64_t rows, std::int64_t cols,
                                std::span<const float> hessian, std::span<const float> covariance,
                                const QuantizationOptions& options = {});

}  // namespace fairgptq
