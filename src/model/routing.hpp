// Which experts of a mixture the tokens of a chunk reach.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "model/config.hpp"

namespace fairgptq {

/// Which rows of a chunk reach which expert, the shared one last, and with what weight.
struct Routing {
    struct Expert {
        std::vector<std::int32_t> rows;  // ascending
        std::vector<float> weights;      // of its output, one a row
    };
    std::vector<Expert> experts;
};

inline float sigmoid(float value) {
    return 1 / (1 + std::exp(-value));
}

/// Each row's experts: those with the largest scores, the first of equal ones, of the groups with the best where there
/// are groups; and what each one's output counts. Without the one that every token reaches.
/// @param logits [rows, experts], finite; @param bias [experts], added to scores where experts are chosen, or empty
std::vector<Routing::Expert> route_rows(std::span<const float> logits, std::span<const float> bias,
                                        const ModelConfig& config);

}  // namespace fairgptq
