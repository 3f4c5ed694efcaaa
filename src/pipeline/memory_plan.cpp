#include "pipeline/memory_plan.hpp"

#include <algorithm>
#include <numeric>

#include "pipeline/calibration_state.hpp"
#include "pipeline/solve_shares.hpp"
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
                       const QuantizeSettings& settings, int ranks, DType activation_type, std::size_t runs) {
    std::int64_t tokens = 0;
    for (const auto& mine : deal_chunks(chunks, ranks)) {
        std::int64_t of_rank = 0;
        for (const std::size_t chunk : mine)
            of_rank += chunks.all[chunk].tokens.tokens();
        tokens = std::max(tokens, of_rank);
    }
    // Runs that are dealt whole are solved by one rank each, the rest by all, and each rank has all of those.
    const SolveShares shares(runs, ranks, 0);
    std::size_t dealt = 0, records = 0;
    for (std::size_t run = 0; run < runs; ++run) {
        dealt += shares.by_all(run) ? 0 : 1;
        records += shares.mine(run) ? 1 : 0;
    }
    const int solvers = dealt > 0 ? 1 : ranks;
    std::size_t layer = 0, codes = 0, solver = 0, largest = 0;
    for (const StageSpec& stage : family.stages) {
        std::int64_t rows = 0;
        for (const LinearSpec& linear : stage.linears) {
            rows += linear.rows;
            layer += product(linear.rows, linear.cols) * size_of(activation_type);
            largest = std::max(largest, product(linear.rows, linear.cols));
            const std::int64_t group = resolve_group_size(settings.solver.grid.group_size, linear.cols, linear.name);
            codes += records * (product(linear.rows, linear.cols) +
                                product(linear.rows, linear.cols / group) * (sizeof(float) + 1));
        }
        solver = std::max(solver, solver_bytes(rows, stage.cols(), solvers, settings.solver));
    }
    const std::size_t embedding =
        product(family.config.vocab_size, family.config.hidden_size) * size_of(activation_type);
    const std::size_t head = family.config.tied_embeddings ? 0 : embedding;
    const bool pairs = chunks.pair_columns > 0;
    // One layer is computed while the next one is read and the last one is written.
    const auto at_once = static_cast<std::size_t>(std::min<std::int64_t>(2, settings.layers));

    // Embedding and head are there only before the first layer, beside the hidden states that they fill: nothing else
    // has been touched by then. A tensor's pages of its file are in memory while it is read.
    MemoryPlan plan;
    plan.device = {
        {"hidden states", CalibrationState::hidden_bytes(family, tokens, activation_type)},
        {"stage inputs", CalibrationState::inputs_bytes(family, tokens, activation_type)},
        {"sums of H and C", StageStatistics::sum_bytes(family, pairs)},
        {"H and C", StageStatistics::matrix_bytes(family, pairs)},
        {"pair differences", StageStatistics::difference_bytes(family, chunks.max_pair_columns)},
        {"forward scratch", Decoder::scratch_bytes(family, chunks.max_tokens, activation_type)},
        {"layer weights, this and the next", at_once * layer},
        {"solver", solver},
    };
    const std::size_t start_device = plan.device.front().bytes + embedding + head;
    const std::size_t layers_device = sum(plan.device);
    const std::size_t program = std::size_t{45} << 20U;
    const std::size_t ids = static_cast<std::size_t>(file_tokens) * 2 * sizeof(std::int32_t);
    const std::size_t stored = size_of(family.config.weight_type());
    const std::size_t start_pages = product(family.config.vocab_size, family.config.hidden_size) * stored;
    const std::size_t start_host = program + ids + start_pages;
    const std::size_t layers_host = program + ids + at_once * codes + largest * stored;
    plan.host = {
        {"token ids", ids},
        {"codes and scales, this and the last", at_once * codes},
        {"pages of the model's files", std::max(start_pages, largest * stored)},
        {"program and libraries", program},
    };
    plan.device_peak = std::max(start_device, layers_device);
    plan.host_peak = std::max(start_host, layers_host);
    plan.shared_peak = std::max(start_device + start_host, layers_device + layers_host);
    return plan;
}

}  // namespace fairgptq
