#include "model/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "support/error.hpp"
#include "support/half.hpp"

namespace fairgptq {
namespace {

/// How much of pair `i` of a head's elements keeps its frequency, from 1 (fast pairs) to 0 (slow ones): a straight line
/// between the places where a pair makes beta_fast and beta_slow turns within the original context.
double kept_of_yarn(std::size_t i, std::int64_t rotary_dim, const RopeSettings& rope) {
    const auto place_of_turns = [&](double turns) {
        return static_cast<double>(rotary_dim) *
               std::log(rope.original_max_position_embeddings / (turns * 2 * std::numbers::pi)) /
               (2 * std::log(rope.theta));
    };
    double first = place_of_turns(rope.beta_fast);
    double last = place_of_turns(rope.beta_slow);
    if (rope.truncate) {
        first = std::floor(first);
        last = std::ceil(last);
    }
    first = std::max(first, 0.0);
    last = std::min(last, static_cast<double>(rotary_dim - 1));
    if (first == last) last += 0.001;
    return 1 - std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
}

double scale(double frequency, std::size_t i, std::int64_t rotary_dim, const RopeSettings& rope) {
    if (rope.type == "default") return frequency;
    if (rope.type == "linear") return frequency / rope.factor;
    if (rope.type == "longrope") return frequency / rope.short_factor.at(i);
    double kept = 0;
    if (rope.type == "llama3") {
        // Turns that a pair makes within the original context: many are kept, few are stretched.
        const double turns = rope.original_max_position_embeddings * frequency / (2 * std::numbers::pi);
        kept = std::clamp((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
    } else if (rope.type == "yarn") {
        kept = kept_of_yarn(i, rotary_dim, rope);
    } else {
        throw Failure("the rope type '{}' has no frequencies", rope.type);
    }
    return kept * frequency + (1 - kept) * frequency / rope.factor;
}

}  // namespace

std::vector<float> rope_frequencies(const RopeSettings& rope, std::int64_t rotary_dim) {
    std::vector<float> frequencies(static_cast<std::size_t>(rotary_dim / 2));
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
        const double plain = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim));
        frequencies[i] = round_to(static_cast<float>(scale(plain, i, rotary_dim, rope)), rope.frequency_type);
    }
    return frequencies;
}

}  // namespace fairgptq
