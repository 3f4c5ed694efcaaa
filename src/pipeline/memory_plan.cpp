#include "pipeline/memory_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "backend/cpu/scratch.hpp"
#include "backend/cuda/scratch.hpp"
#include "pipeline/calibration_state.hpp"
#include "pipeline/solve_shares.hpp"
#include "pipeline/stage_statistics.hpp"
#include "solver/rank_peers.hpp"
#include "solver/solve.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t real = sizeof(float);
// Page-locked pieces that weights go through, and as much on the device (cuda/transfers.hpp).
constexpr std::size_t upload_bytes = std::size_t{128} << 20U;

std::size_t product(std::int64_t a, std::int64_t b) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
}

std::size_t sum(const std::vector<MemoryPlan::Item>& items) {
    return std::accumulate(items.begin(), items.end(), std::size_t{0},
                           [](std::size_t total, const MemoryPlan::Item& item) { return total + item.bytes; });
}

/// Sizes that do not depend on what waits where.
struct Sizes {
    std::size_t layer = 0, codes = 0, solver = 0, largest = 0, gathered = 0, parts = 0, scratch = 0;
    std::int64_t widest = 0, widest_dealt = 0;
};

Sizes sizes_of(const Family& family, const QuantizeSettings& settings, const ModuleGrids& module_grids, int ranks,
               const PlanDevice& device, std::size_t runs, bool pairs) {
    Sizes sizes;
    // Runs that are dealt whole are solved by one rank each, the rest by all, and each rank has all of those.
    const SolveShares shares(runs, ranks, 0);
    std::size_t dealt = 0, records = 0;
    for (std::size_t run = 0; run < runs; ++run) {
        dealt += shares.by_all(run) ? 0 : 1;
        records += shares.mine(run) ? 1 : 0;
    }
    const bool experts_dealt = experts_at_once(family, ranks, runs) > 1;
    std::int64_t biased_rows = 0;
    // H of float32 inputs is made as C is.
    const bool covariance = pairs || device.activation_type == DType::float32;
    sizes.layer = layer_bytes(family, device.activation_type);
    sizes.widest = widest_quantized(module_grids, family, settings.layers);
    if (experts_dealt) sizes.widest_dealt = widest_quantized(module_grids, family, settings.layers, true);
    const auto add_stage = [&](std::int64_t layer, const StageSpec& stage, std::size_t& codes) {
        std::int64_t rows = 0;  // that are solved
        std::size_t grids = 0;
        std::vector<std::int64_t> groups;
        for (const LinearSpec& linear : stage.linears) {
            sizes.largest = std::max(sizes.largest, product(linear.rows, linear.cols));
            if (linear.bias) biased_rows = std::max(biased_rows, linear.rows);
            const std::optional<Grid> grid = module_grids(layer, linear.name);
            if (!grid) continue;
            rows += linear.rows;
            groups.push_back(resolve_group_size(grid->group_size, linear.cols, linear.name));
            grids += grid_bytes(linear.rows, linear.cols, groups.back());
        }
        if (rows == 0) return;
        codes += records * grids;
        // A dealt expert is one rank's; all ranks' come together, beside one's own.
        const bool whole = experts_dealt && stage.is_routed();
        const bool together = dealt < runs && (!whole || family.config.experts % ranks != 0);
        const int solvers = dealt > 0 || whole ? 1 : ranks;
        sizes.gathered = std::max(sizes.gathered, whole ? grids * static_cast<std::size_t>(ranks + 1) : grids);
        if (together && (!device.gpu || stage.cols() >= cuda::shared_least))
            sizes.parts = std::max(sizes.parts, RankPeers::bytes(stage.cols(), ranks));
        // A CPU's operations give their scratch back; a GPU's keep the most that they needed.
        const std::int64_t mine = rows_of_rank(rows, solvers);
        const std::size_t given_back = device.gpu ? 0 : cpu::solver_scratch(mine, stage.cols());
        for (const std::int64_t group : groups) {  // as if all rows had it
            sizes.solver = std::max(sizes.solver, solver_bytes(rows, stage.cols(), solvers, group, true) + given_back);
            if (device.gpu)
                sizes.scratch = std::max(sizes.scratch, cuda::solver_scratch(mine, stage.cols(), group, covariance));
        }
    };
    for (std::int64_t layer = 0; layer < settings.layers; ++layer) {
        std::size_t codes = 0;
        for (const StageSpec& stage : family.stages_of(layer))
            add_stage(layer, stage, codes);
        sizes.codes = std::max(sizes.codes, codes);
    }
    // A product that gets a bias is made float32 first, some rows at a time.
    constexpr std::int64_t bias_slab_rows = 2048;
    sizes.scratch = std::max(sizes.scratch, product(bias_slab_rows, biased_rows * real) + cuda::products_bytes);
    return sizes;
}

class Planner {
  public:
    Planner(const Family& family, const Chunks& chunks, std::int64_t file_tokens, const QuantizeSettings& settings,
            const ModuleGrids& grids, int ranks, const PlanDevice& device, std::size_t runs)
        : family_(family),
          chunks_(chunks),
          settings_(settings),
          ranks_(ranks),
          experts_at_once_(experts_at_once(family, ranks, runs)),
          device_(device),
          sizes_(sizes_of(family, settings, grids, ranks, device, runs, chunks.pair_columns > 0)),
          ids_(static_cast<std::size_t>(file_tokens) * 2 * sizeof(std::int32_t)) {
        for (const auto& mine : deal_chunks(chunks, ranks)) {
            std::int64_t of_rank = 0;
            for (const std::size_t chunk : mine)
                of_rank += chunks.all[chunk].tokens.tokens();
            tokens_ = std::max(tokens_, of_rank);
        }
    }

    std::size_t state_bytes(std::int64_t tokens) const {
        return CalibrationState::hidden_bytes(family_, tokens, device_.activation_type) +
               CalibrationState::inputs_bytes(family_, tokens, device_.activation_type, experts_at_once_);
    }

    MemoryPlan plan(const Residency& residency) const {
        MemoryPlan plan;
        plan.residency = residency;
        plan.tokens = tokens_;
        const std::int64_t resident = std::min(tokens_, residency.tokens);
        plan.spilled_tokens = tokens_ - resident;
        fill_device(plan, resident);
        fill_host(plan);
        return plan;
    }

  private:
    std::int64_t layers_at_once(const Residency& residency) const {
        return std::min<std::int64_t>(residency.weights == ReadAhead::to_device ? 2 : 1, settings_.layers);
    }

    void fill_device(MemoryPlan& plan, std::int64_t resident) const {
        const DType type = device_.activation_type;
        const bool pairs = chunks_.pair_columns > 0;
        const std::int64_t layers = layers_at_once(plan.residency);
        plan.device = {
            {"hidden states", CalibrationState::hidden_bytes(family_, resident, type)},
            {"stage inputs", CalibrationState::inputs_bytes(family_, resident, type, experts_at_once_)},
            {"sums of H and C", StageStatistics::sum_bytes(sizes_.widest, sizes_.widest_dealt, pairs)},
            {"H and C", StageStatistics::matrix_bytes(sizes_.widest, pairs)},
            {"pair differences", StageStatistics::difference_bytes(sizes_.widest, chunks_.max_pair_columns)},
            {"forward scratch", Decoder::scratch_bytes(family_, chunks_.max_tokens, type)},
        };
        if (plan.spilled_tokens > 0)
            plan.device.push_back({"chunks on their way", state_bytes(CalibrationState::slots * chunks_.max_tokens)});
        if (device_.gpu) {
            plan.device.push_back({"driver and libraries", gpu_context_bytes});
            plan.device.push_back({"weights on their way", upload_bytes});
            if (ranks_ > 1) plan.device.push_back({"exchange between GPUs", nccl_bytes});
        }
        if (ranks_ > 1) plan.device.push_back({"codes and scales of all ranks", sizes_.gathered});
        // Embedding and head are there only before the first layer. On a CPU nothing else but the hidden states has
        // been touched by then; a GPU has allocated it.
        const std::size_t embedding = outer_bytes(family_, type);
        const std::size_t start = (device_.gpu ? sum(plan.device) : plan.device.front().bytes) + embedding;
        plan.device.push_back({layers > 1 ? "layer weights, this and the next" : "layer weights",
                               static_cast<std::size_t>(layers) * sizes_.layer});
        plan.device.push_back({"solver", sizes_.solver});
        if (sizes_.parts > 0) plan.device.push_back({"parts of factors of all ranks", sizes_.parts});
        if (device_.gpu) plan.device.push_back({"operations' scratch", sizes_.scratch});
        plan.start_device = start;
        plan.device_peak = std::max(start, sum(plan.device));
    }

    void fill_host(MemoryPlan& plan) const {
        // One layer is computed while the last one is written. Tensors' pages of their files are in memory while they
        // are read, one at a time or several beside a GPU, and those of a layer that waits in host memory until it is
        // uploaded.
        const auto at_once = static_cast<std::size_t>(std::min<std::int64_t>(2, settings_.layers));
        const std::size_t program = std::size_t{45} << 20U;
        const std::size_t stored = size_of(family_.config.weight_type());
        const std::size_t embedding = product(family_.config.vocab_size, family_.config.hidden_size) * stored;
        const bool both = device_.gpu && family_.lm_head != family_.embedding;
        const std::size_t start_pages = embedding * (both ? 2 : 1);
        std::size_t layer_pages = sizes_.largest * stored;
        if (device_.gpu) layer_pages = std::min(sizes_.layer, layer_pages * tensors_at_once);
        if (device_.gpu && plan.residency.weights == ReadAhead::to_host) layer_pages = sizes_.layer;
        const std::size_t spilled = state_bytes(plan.spilled_tokens);
        const std::size_t on_their_way = device_.gpu ? upload_bytes : 0;
        // Codes on their way to the records; ranks that share a GPU gather them through as much again.
        const std::size_t copied = device_.gpu ? sizes_.gathered * (ranks_ > 1 ? 2 : 1) : 0;
        // An expert and its weight for each of a token's choices, and the shared one's; lists grow by doubling.
        const std::int64_t reached =
            family_.config.experts_per_token + (family_.config.shared_intermediate_size > 0 ? 1 : 0);
        const std::size_t routed = product(plan.tokens, 2 * 8 * reached);
        const std::size_t always = program + ids_ + routed + spilled + on_their_way + copied;
        plan.host = {
            {"token ids", ids_},
            {"codes and scales, this and the last", at_once * sizes_.codes},
            {"pages of the model's files", std::max(start_pages, layer_pages)},
            {"program and libraries", program},
        };
        if (routed > 0) plan.host.push_back({"experts of tokens", routed});
        if (spilled > 0) plan.host.push_back({"hidden states, page-locked", spilled});
        if (device_.gpu) {
            plan.host.push_back({"weights on their way", on_their_way});
            plan.host.push_back({"codes and scales on their way", copied});
        }
        const std::size_t start_host = always + start_pages;
        const std::size_t layers_host = always + at_once * sizes_.codes + layer_pages;
        plan.host_peak = std::max(start_host, layers_host);
        plan.shared_peak = std::max(plan.start_device + start_host, sum(plan.device) + layers_host);
        plan.host_kept = device_.gpu ? layers_host - layer_pages
                                     : std::max(plan.start_device + start_host - start_pages,
                                                sum(plan.device) + layers_host - layer_pages);
    }

    const Family& family_;
    const Chunks& chunks_;
    const QuantizeSettings& settings_;
    int ranks_;
    std::int64_t experts_at_once_;
    PlanDevice device_;
    Sizes sizes_;
    std::size_t ids_;
    std::int64_t tokens_ = 0;
};

}  // namespace

MemoryPlan plan_memory(const Family& family, const Chunks& chunks, std::int64_t file_tokens,
                       const QuantizeSettings& settings, const ModuleGrids& grids, int ranks, const PlanDevice& device,
                       std::size_t runs) {
    const Planner planner(family, chunks, file_tokens, settings, grids, ranks, device, runs);
    Residency residency;
    residency.experts_at_once = experts_at_once(family, ranks, runs);
    MemoryPlan plan = planner.plan(residency);
    const auto fits = [&] { return !device.limit || plan.needed(device.gpu) <= *device.limit; };
    // On a CPU what waits in host memory takes as much as what does not.
    if (fits() || !device.gpu) {
        plan.fits = fits();
        return plan;
    }
    residency.weights = ReadAhead::to_host;
    plan = planner.plan(residency);
    if (fits()) return plan;
    residency.tokens = 0;
    plan = planner.plan(residency);
    plan.fits = fits();
    if (!plan.fits) return plan;
    residency.tokens = static_cast<std::int64_t>((*device.limit - plan.device_peak) / planner.state_bytes(1));
    return planner.plan(residency);
}

std::optional<std::string> missing_host_memory(const MemoryPlan& plan, std::span<const SharedLimit> limits) {
    for (const SharedLimit& shared : limits)
        if (static_cast<double>(plan.host_kept) > shared.share())
            return fmt::format(
                "{} {} {:.2f} GiB of host memory, and {} {:.2f}; take more machines, fewer ranks on each, a smaller "
                "--chunk-tokens or fewer tokens (fairgptq plan shows what needs it)",
                shared.ranks == 1 ? "a rank" : fmt::format("{} ranks on one machine", shared.ranks),
                shared.ranks == 1 ? "needs" : "need", static_cast<double>(plan.host_kept) * shared.ranks / (1U << 30U),
                shared.limit.cgroup.empty()
                    ? "this machine has"
                    : fmt::format("the cgroup {} (a container's, or a Slurm job's: --mem) allows", shared.limit.cgroup),
                shared.limit.amount / (1U << 30U));
    return std::nullopt;
}

}  // namespace fairgptq
