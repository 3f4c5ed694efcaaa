#include "model/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "support/error.hpp"

namespace fairgptq {
namespace {

double scale(double frequency, const RopeSettings& rope) {
    if (rope.type == "default") return frequency;
    if (rope.type == "linear") return frequency / rope.factor;
    if (rope.type != "llama3") throw Failure("the rope type '{}' has no frequencies", rope.type);
    // Turns that a pair makes within the original context: many are kept, few are stretched.
    const double turns = rope.original_max_position_embeddings * frequency / (2 * std::numbers::pi);
    const double kept =
        std::clamp((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
    return kept * frequency + (1 - kept) * frequency / rope.factor;
}

float rounded(double frequency, DType type) {
    const auto value = static_cast<float>(frequency);
    switch (type) {
        case DType::float16:
            return to_float(to_half(value));
        case DType::bfloat16:
            return to_float(to_bfloat16(value));
        case DType::float32:
            break;
    }
    return value;
}

}  // namespace

std::vector<float> rope_frequencies(const RopeSettings& rope, std::int64_t head_dim) {
    std::vector<float> frequencies(static_cast<std::size_t>(head_dim / 2));
    for (std::size_t i = 0; i < frequencies.size(); ++i)
        frequencies[i] =
            rounded(scale(std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)), rope),
                    rope.frequency_type);
    return frequencies;
}

}  // namespace fairgptq
