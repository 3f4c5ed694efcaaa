// The largest logit is taken out before exp, so nothing overflows; sums of float32 blocks are added in float64, so a
// large vocabulary costs no precision.
#include "backend/score.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/fast_exp.hpp"

namespace fairgptq {

namespace {

constexpr std::int64_t block_entries = 512;

struct Summary {
    double log_sum_exp;
    std::int32_t best;
};

/// The block that holds the largest entry is remembered, so that only it is looked through for the entry's place.
Summary summarize(const float* logits, std::int64_t count) {
    float largest = -std::numeric_limits<float>::infinity();
    std::int64_t largest_block = 0;
    for (std::int64_t first = 0; first < count; first += block_entries) {
        const auto end = std::min(first + block_entries, count);
        float block = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : block)
        for (std::int64_t i = first; i < end; ++i)
            block = logits[i] > block ? logits[i] : block;
        if (block > largest) {
            largest = block;
            largest_block = first;
        }
    }
    const float* place =
        std::find(logits + largest_block, logits + std::min(largest_block + block_entries, count), largest);
    double sum = 0;
    for (std::int64_t first = 0; first < count; first += block_entries) {
        const auto end = std::min(first + block_entries, count);
        float block = 0;
#pragma omp simd reduction(+ : block)
        for (std::int64_t i = first; i < end; ++i)
            block += fast_exp(logits[i] - largest);
        sum += static_cast<double>(block);
    }
    return {static_cast<double>(largest) + std::log(sum), static_cast<std::int32_t>(place - logits)};
}

}  // namespace

void CpuBackend::token_log_probabilities(TensorView logits, std::span<const std::int32_t> targets,
                                         std::span<float> log_probabilities, std::span<std::int32_t> best) {
    if (static_cast<std::int64_t>(targets.size()) != logits.rows || log_probabilities.size() != targets.size() ||
        (!best.empty() && best.size() != targets.size()))
        throw Failure("token_log_probabilities: {} rows of logits, {} targets and {} results should be as many",
                      logits.rows, targets.size(), log_probabilities.size());
    for (const std::int32_t target : targets)
        if (target < 0 || target >= logits.cols)
            throw InvalidInput("token {} is not in a vocabulary of {}", target, logits.cols);
    const MatrixView<const float> x = logits.float32();
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < x.rows; ++row) {
        const auto index = static_cast<std::size_t>(row);
        const auto target = static_cast<double>(x(row, targets[index]));
        const Summary summary = summarize(x.row(row), x.cols);
        log_probabilities[index] = static_cast<float>(target - summary.log_sum_exp);
        if (!best.empty()) best[index] = summary.best;
    }
}

}  // namespace fairgptq
