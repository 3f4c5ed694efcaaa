#pragma once

#include <cstdint>
#include <span>

#include "support/views.hpp"

namespace fairgptq {

class ConvolutionOperations {
  public:
    virtual ~ConvolutionOperations() = default;

    /// A causal convolution of each channel by itself: output[t, c] = f(Σ_k weights[c, width − 1 − k] · inputs[row k
    /// steps before t, c]), rows that there are none of being 0, and f SiLU or nothing. Sums in float32, rounded once.
    /// @param inputs   [rows, channels]
    /// @param weights  on the device, [channels, width]
    /// @param previous host, [rows]: the row one step before each, or −1; never a later row
    /// @param output   [rows, channels], written; must not overlap inputs
    /// @throws Failure if sizes do not go together, or a row is not there
    virtual void convolve(TensorView inputs, const float* weights, std::int64_t width,
                          std::span<const std::int32_t> previous, bool silu, TensorView output) = 0;

  protected:
    static void check_convolution(const TensorView& inputs, std::int64_t width, std::span<const std::int32_t> previous,
                                  const TensorView& output) {
        if (width < 1 || std::ssize(previous) != inputs.rows || output.rows != inputs.rows ||
            output.cols != inputs.cols)
            throw Failure("convolve: [{}, {}], {} rows before them, a width of {} and [{}, {}] do not go together",
                          inputs.rows, inputs.cols, previous.size(), width, output.rows, output.cols);
        for (std::int64_t row = 0; row < inputs.rows; ++row)
            if (const std::int32_t before = previous[static_cast<std::size_t>(row)]; before < -1 || before >= row)
                throw Failure("convolve: row {} cannot be before row {}", before, row);
    }
};

}  // namespace fairgptq
