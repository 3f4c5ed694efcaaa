#include "pipeline/memory_plan.hpp"

#include <algorithm>
#include <numeric>

#include "pipeline/calibration_state.hpp"
#include "solver/solve.hpp"

namespace fairgptq {
namespace {

std::size_t product(std::int64_t a, std::int64_t b) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
}

std::size_t sum(const std::vector<MemoryPlan::Item>& items) {
    return std::accumulate(items.begin(), items.end(), std::size_t{0},
                           [](std::size_t total, const MemoryPlan::Item& item) { return total + item.bytes; });
}

}  // namespace

MemoryPlan plan_memory(const Family& family, const Chunks& chunks, std::int64_t file_tokens,
                       const QuantizeSettings& settings, int ranks, DType activation_type) {
    std::int64_t tokens = 0;
    for (const auto& mine : deal_chunks(chunks, ranks)) {
        std::int64_t of_rank = 0;
        for (const std::size_t chunk : mine)
            of_rank += chunks.all[chunk].tokens.tokens();
        tokens = std::max(tokens, of_rank);
    }
    std::size_t layer = 0, codes = 0, solver = 0;
    for (const StageSpec& stage : family.stages) {
        std::int64_t rows = 0;
        for (const LinearSpec& linear : stage.linears) {
            rows += linear.rows;
            layer += product(linear.rows, linear.cols) * size_of(activation_type);
            const std::int64_t group = resolve_group_size(settings.solver.grid.group_size, linear.cols, linear.name);
            codes +=
                product(linear.rows, linear.cols) + product(linear.rows, linear.cols / group) * (sizeof(float) + 1);
        }
        solver = std::max(solver, solver_bytes(rows, stage.cols(), ranks, settings.solver));
    }
    const std::size_t embedding =
        product(family.config.vocab_size, family.config.hidden_size) * size_of(activation_type);
    const std::size_t head = family.config.tied_embeddings ? 0 : embedding;
    const bool pairs = chunks.pair_columns > 0;

    MemoryPlan plan;
    plan.device = {
        {"hidden states", CalibrationState::hidden_bytes(family, tokens, activation_type)},
        {"stage inputs", CalibrationState::inputs_bytes(family, tokens, activation_type)},
        {"sums of H and C", StageStatistics::sum_bytes(family, pairs)},
        {"H and C", StageStatistics::matrix_bytes(family, pairs)},
        {"pair differences", StageStatistics::difference_bytes(family, chunks.max_pair_columns)},
        {"forward scratch", Decoder::scratch_bytes(family, chunks.max_tokens, activation_type)},
        {"layer weights, two layers", 2 * layer},
        {"solver", solver},
    };
    // Embedding and head are there only before the first layer, beside the hidden states that they fill: nothing else
    // has been touched by then.
    plan.device_peak = std::max(sum(plan.device), plan.device.front().bytes + embedding + head);
    plan.host = {
        {"token ids", static_cast<std::size_t>(file_tokens) * 2 * sizeof(std::int32_t)},
        {"codes and scales, two layers", 2 * codes},
        {"program and libraries", std::size_t{75} << 20U},
    };
    plan.host_peak = sum(plan.host);
    return plan;
}

}  // namespace fairgptq
