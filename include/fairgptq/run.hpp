// Read what `fairgptq quantize` wrote, from another program.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace fairgptq {

/// A quantized linear. The value at (row, col) is scales[row, g] · (codes[row, col] − zeros[row, g]), g =
/// group_index[col].
struct QuantizedLinear {
    std::string name;  // below the layer's prefix: "self_attn.q_proj"
    std::int64_t rows = 0, cols = 0, groups = 0, group_size = 0;
    int bits = 0;
    bool symmetric = true;
    std::vector<std::uint8_t> codes;        // [rows, cols], row after row, one a byte
    std::vector<float> scales;              // [rows, groups]
    std::vector<std::uint8_t> zeros;        // [rows, groups]
    std::vector<std::int32_t> group_index;  // [cols]
    double alpha = 0;                       // weight of the bias term
    double reconstruction = 0;              // tr((W−Q)H(W−Q)ᵀ)
    double bias_before = 0;                 // tr(WCWᵀ)
    double bias_after = 0;                  // tr(QCQᵀ)

    /// All values [rows, cols], row after row.
    std::vector<float> dequantize() const;
};

/// A run directory. Functions throw std::runtime_error with a sentence that names the file and what is wrong with it.
class Run {
  public:
    explicit Run(const std::string& directory);
    ~Run();
    Run(Run&&) noexcept;
    Run& operator=(Run&&) noexcept;

    std::int64_t layers() const;           // that the run quantizes: the first ones of the model
    std::int64_t finished_layers() const;  // of them, those before the first that is missing
    std::string model_directory() const;   // of the original model
    std::string settings() const;          // JSON text
    /// The quantized linears of a finished layer, in the order of computation.
    std::vector<QuantizedLinear> layer(std::int64_t index) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace fairgptq
