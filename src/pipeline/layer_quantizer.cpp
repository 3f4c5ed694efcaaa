#include "pipeline/layer_quantizer.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <unordered_map>

#include "comm/together.hpp"
#include "pipeline/solve_shares.hpp"
#include "run/quantized_model.hpp"
#include "support/exit_codes.hpp"
#include "support/problem.hpp"
#include "support/say.hpp"

namespace fairgptq {
namespace {

/// Says which layer and module a failure belongs to, whatever it was.
template <class Work>
void at(const std::string& where, const Work& work) {
    try {
        work();
    } catch (const SharedFailure& failure) {
        throw SharedFailure(fmt::format("{}: {}", where, failure.what()), failure.exit_code, failure.speaker);
    } catch (const std::exception&) {
        const Problem problem = current_problem();
        if (problem.exit_code == exit_invalid) throw InvalidInput("{}: {}", where, problem.message);
        throw Failure("{}: {}", where, problem.message);
    }
}

}  // namespace

LayerQuantizer::LayerQuantizer(const QuantizeSettings& settings, const ModuleGrids& grids, const Family& family,
                               const Checkpoint& checkpoint, const Chunks& chunks, std::span<const RunTarget> targets,
                               const LayersOnDisk& disk, const RunResources& resources, Progress& progress)
    : settings_(settings),
      family_(family),
      targets_(targets),
      backend_(resources.backend),
      comm_(resources.comm),
      collectives_(resources.collectives),
      alone_(make_single_rank()),
      progress_(progress),
      experts_at_once_(resources.residency.experts_at_once),
      decoder_(backend_, family, chunks.max_tokens, experts_at_once_),
      state_(backend_, family, chunks, deal_chunks(chunks, comm_.size())[static_cast<std::size_t>(comm_.rank())],
             resources.residency.tokens, experts_at_once_),
      statistics_(backend_, collectives_, comm_.rank(), widest_quantized(grids, family, settings.layers),
                  experts_at_once_ > 1 ? widest_quantized(grids, family, settings.layers, true) : 0, chunks),
      copies_(backend_),
      share_(share_of_reading(resources)),
      source_(comm_, checkpoint, targets, disk, share_.ranks > 1),
      replayed_(*targets.front().run),
      grids_(grids) {
    for (const RunTarget& target : targets)
        alphas_.emplace_back(target.alpha, family);
    embed(checkpoint);
}

LayerWeights LayerQuantizer::read_layer(LayerPrefetcher& weights, std::int64_t index) {
    LayerWeights layer;
    layer.hashes = source_.read(index, [&]() -> const TensorHashes& {
        layer = weights.next();
        progress_.enter(Phase::exchange);  // ranks compare what they have read
        return layer.hashes;
    });
    gather(layer.memory.front(), layer.parts);
    progress_.enter(Phase::read);
    return layer;
}

void LayerQuantizer::replay_layer(LayerWeights layer, bool next) {
    if (sequential()) {
        const LayerRecord record = replayed_.layer(layer.layer, next);
        dequantize_layer(backend_, record, layer);
    }
    progress_.enter(Phase::forward);
    state_.for_each({.reads_hidden = true, .writes_hidden = true},
                    [&](const Chunk&, ChunkState& state) { decoder_.run_layer(layer, state); });
    backend_.synchronize();  // before the layer's memory goes
}

std::vector<LayerRecord> LayerQuantizer::quantize_layer(LayerWeights layer, std::span<const std::size_t> open) {
    std::vector<LayerRecord> records;
    for (const std::size_t target : open)
        records.push_back({layer.layer, targets_[target].run->fingerprint(), {}, layer.hashes});
    if (layer.layer == 0)
        for (LayerRecord& record : records)
            record.source_tensors.insert(outer_hashes_.begin(), outer_hashes_.end());
    progress_.enter(Phase::forward);
    state_.for_each({.reads_hidden = true, .writes_inputs = input_cols(layer.layer, 0)},
                    [&](const Chunk&, ChunkState& state) { decoder_.begin_layer(layer, state); });
    const int stages = family_.stage_count(layer.layer);
    for (int stage = 0; stage < stages;) {
        const int dealt = dealt_experts(layer.layer, stage);
        if (dealt > 0) {
            quantize_dealt(layer, stage, dealt, open, records);
            stage += 2 * dealt;
        } else {
            quantize_stage(layer, stage, open, records);
            ++stage;
        }
        if (family_.has_experts(layer.layer) && stage == family_.attention_stages) count_routed(layer.layer);
        progress_.layer_done(static_cast<double>(stage) / stages);
    }
    for (LayerRecord& record : records)
        put_in_order(record);
    backend_.synchronize();  // before the layer's memory goes
    return records;
}

void LayerQuantizer::quantize_stage(const LayerWeights& layer, int stage, std::span<const std::size_t> open,
                                    std::vector<LayerRecord>& records) {
    const StageSpec& spec = spec_of(layer.layer, stage);
    const PhaseClock::Span span(progress_.clock(), names_of(spec));
    at(fmt::format("layer {}, inputs of {}", layer.layer, spec.linears.front().name), [&] {
        const std::array stages{stage};
        if (!is_quantized(layer.layer, spec)) return forward(stages, layer);
        accumulate(layer.layer, stage);
        // Original weights need not wait for the solution: the sums travel meanwhile.
        if (!sequential()) forward(stages, layer);
        statistics_.finish(spec.cols(), is_reached(spec), progress_.clock());
        solve(layer, spec, open, records);
        if (sequential()) forward(stages, layer, &records.front());
    });
}

int LayerQuantizer::dealt_experts(std::int64_t layer, int stage) const {
    const int at_once = static_cast<int>(experts_at_once_);
    if (at_once == 1 || !family_.has_experts(layer)) return 0;
    const StageSpec& spec = spec_of(layer, stage);
    const bool begins = spec.is_routed() && spec.expert % at_once == 0;
    return begins && spec.expert + at_once <= family_.config.experts ? at_once : 0;
}

void LayerQuantizer::quantize_dealt(const LayerWeights& layer, int first_stage, int experts,
                                    std::span<const std::size_t> open, std::vector<LayerRecord>& records) {
    for (const int half : {0, 1}) {
        std::vector<int> stages, solved;
        for (int expert = 0; expert < experts; ++expert) {
            stages.push_back(first_stage + 2 * expert + half);
            if (is_quantized(layer.layer, spec_of(layer.layer, stages.back()))) solved.push_back(stages.back());
        }
        const StageSpec& first = spec_of(layer.layer, stages.front());
        const PhaseClock::Span span(progress_.clock(), fmt::format("{}, …", names_of(first)));
        const std::string where =
            fmt::format("layer {}, experts {} to {}", layer.layer, first.expert, first.expert + experts - 1);
        for (std::size_t i = 0; i < solved.size(); ++i) {
            const StageSpec& spec = spec_of(layer.layer, solved[i]);
            at(fmt::format("layer {}, inputs of {}", layer.layer, spec.linears.front().name), [&] {
                const auto owner = static_cast<int>(i);
                accumulate(layer.layer, solved[i], owner);
                statistics_.finish(spec.cols(), is_reached(spec), progress_.clock());
            });
        }
        at(where, [&] {
            if (!sequential()) forward(stages, layer);
            if (!solved.empty()) solve_dealt(layer, solved, open, records);
            if (sequential()) forward(stages, layer, solved.empty() ? nullptr : &records.front());
        });
    }
}

void LayerQuantizer::put_in_order(LayerRecord& record) const {
    std::unordered_map<std::string, std::size_t> places;
    for (const StageSpec& stage : family_.stages_of(record.layer))
        for (const LinearSpec& linear : stage.linears)
            places.emplace(linear.name, places.size());
    std::ranges::sort(record.modules, {}, [&](const ModuleSolution& module) { return places.at(module.name); });
}

ReadShare LayerQuantizer::share_of_reading(const RunResources& resources) {
    if (resources.backend.host_accessible() || !resources.collectives.direct()) return {};
    return {resources.comm.rank(), resources.comm.size()};
}

void LayerQuantizer::gather(const Buffer& memory, std::span<const std::size_t> parts) {
    if (share_.ranks == 1) return;
    progress_.enter(Phase::exchange);
    const auto rank = static_cast<std::size_t>(share_.rank);
    // The largest layer's memory; this one may be smaller.
    const std::span<std::byte> all(memory.as<std::byte>(), std::accumulate(parts.begin(), parts.end(), std::size_t{0}));
    const auto before = parts.first(rank);
    const auto mine = all.subspan(std::accumulate(before.begin(), before.end(), std::size_t{0}), parts[rank]);
    Exchange exchange(collectives_);
    exchange.all_gather(mine, all, parts);
    exchange.finish();
}

void LayerQuantizer::embed(const Checkpoint& checkpoint) {
    progress_.enter(Phase::read);
    OuterWeights outer;
    outer_hashes_ = source_.read(-1, [&]() -> const TensorHashes& {
        outer = read_outer(backend_, family_, checkpoint, share_);
        return outer.hashes;
    });
    gather(outer.memory.front(), outer.parts);
    progress_.enter(Phase::forward);
    state_.for_each({.writes_hidden = true},
                    [&](const Chunk& chunk, ChunkState& state) { decoder_.embed(outer, chunk.tokens, state); });
    backend_.synchronize();  // before the embedding's memory goes
}

bool LayerQuantizer::is_quantized(std::int64_t layer, const StageSpec& spec) const {
    return std::ranges::any_of(spec.linears,
                               [&](const LinearSpec& linear) { return grids_(layer, linear.name).has_value(); });
}

std::vector<PairColumn> LayerQuantizer::pair_columns(const StageSpec& spec, const Chunk& chunk,
                                                     const ChunkState& state) {
    if (!spec.is_routed()) return chunk.pair_columns;
    return pair_columns_among(chunk.pair_columns, routed(spec, state).rows);
}

void LayerQuantizer::count_routed(std::int64_t layer) {
    reached_.assign(static_cast<std::size_t>(family_.config.experts), 0.0);
    state_.for_each(
        {},
        [&](const Chunk&, ChunkState& state) {
            for (std::size_t expert = 0; expert < reached_.size(); ++expert)
                reached_[expert] += static_cast<double>(state.routing->experts[expert].rows.size());
        },
        [](const Chunk& chunk) { return chunk.in_hessian; });
    progress_.enter(Phase::exchange);
    comm_.all_reduce_sum(reached_);
    constexpr double few = 64;
    const auto seldom = std::ranges::count_if(reached_, [](double tokens) { return tokens < few; });
    const auto unreached = std::ranges::count(reached_, 0.0);
    if (seldom > 0)
        warn(
            "layer {}: {} of {} experts are reached by fewer than {} calibration tokens{}; a longer text reaches "
            "more",
            layer, seldom, reached_.size(), few,
            unreached == 0 ? "" : fmt::format(", {} of them by none, which are rounded to nearest", unreached));
}

void LayerQuantizer::accumulate(std::int64_t layer, int stage, std::optional<int> owner) {
    progress_.enter(Phase::covariance);
    const StageSpec& spec = spec_of(layer, stage);
    statistics_.begin(spec.cols(), owner);
    const StateUse use{.reads_inputs = input_cols(layer, stage)};
    const auto inputs = [&](const ChunkState& state) { return decoder_.stage_input(layer, stage, state); };
    state_.for_each(
        use, [&](const Chunk&, ChunkState& state) { statistics_.add_to_hessian(inputs(state)); },
        [](const Chunk& chunk) { return chunk.in_hessian; });
    statistics_.begin_hessian_sum(spec.cols(), progress_.clock());
    state_.for_each(
        use,
        [&](const Chunk& chunk, ChunkState& state) {
            const std::vector<PairColumn> columns = pair_columns(spec, chunk, state);
            if (!columns.empty()) statistics_.add_to_covariance(columns, inputs(state));
        },
        [](const Chunk& chunk) { return !chunk.pair_columns.empty(); });
    statistics_.begin_covariance_sum(spec.cols(), progress_.clock());
}

void LayerQuantizer::forward(std::span<const int> stages, const LayerWeights& layer, LayerRecord* solved) {
    progress_.enter(Phase::forward);
    const int end = stages.back();
    const bool last = end + 1 == family_.stage_count(layer.layer);
    const bool adds = family_.adds_to_hidden(layer.layer, end);
    const StateUse use{.reads_hidden = adds,
                       .writes_hidden = adds,
                       .reads_inputs = input_cols(layer.layer, stages.front()),
                       .writes_inputs = last ? 0 : input_cols(layer.layer, end + 1)};
    if (!family_.waits(end))
        state_.for_each(use, [&](const Chunk&, ChunkState& state) {
            for (const int stage : stages)
                decoder_.run_stage(stage, layer, state);
        });
    if (solved != nullptr) copies_.finish(solved->modules);
}

void LayerQuantizer::solve(const LayerWeights& layer, const StageSpec& spec, std::span<const std::size_t> open,
                           std::vector<LayerRecord>& records) {
    const SolveShares shares(open.size(), comm_);
    for (std::size_t i = 0; i < open.size(); ++i) {
        if (!shares.mine(i)) continue;
        const bool by_all = shares.by_all(i);
        const StageOptions options{.clock = &progress_.clock(),
                                   .collectives = by_all ? &collectives_ : nullptr,
                                   .scratch = statistics_.scratch(),
                                   .keep_grids = shares.writes(i, layer.layer),
                                   .records = &copies_};
        add_to_record(spec,
                      solve_stage(backend_, by_all ? comm_ : *alone_, problem(layer, spec, alphas_[open[i]]),
                                  settings_.solver, options),
                      records[i]);
        if (!sequential()) copies_.finish(records[i].modules);
    }
}

void LayerQuantizer::solve_dealt(const LayerWeights& layer, std::span<const int> stages,
                                 std::span<const std::size_t> open, std::vector<LayerRecord>& records) {
    const SolveShares shares(open.size(), comm_);
    for (std::size_t i = 0; i < open.size(); ++i) {
        std::vector<StageProblem> problems(static_cast<std::size_t>(comm_.size()));
        for (std::size_t rank = 0; rank < stages.size(); ++rank)
            problems[rank] = problem(layer, spec_of(layer.layer, stages[rank]), alphas_[open[i]]);
        std::vector<std::vector<ModuleSolution>> solutions =
            solve_dealt_stages(backend_, comm_, problems, settings_.solver,
                               {.clock = &progress_.clock(),
                                .collectives = &collectives_,
                                .scratch = statistics_.scratch(),
                                .keep_grids = shares.writes(i, layer.layer),
                                .records = &copies_});
        for (std::size_t rank = 0; rank < stages.size(); ++rank)
            add_to_record(spec_of(layer.layer, stages[rank]), std::move(solutions[rank]), records[i]);
        if (!sequential()) copies_.finish(records[i].modules);
    }
}

void LayerQuantizer::add_to_record(const StageSpec& spec, std::vector<ModuleSolution> solutions,
                                   LayerRecord& record) const {
    for (ModuleSolution& solution : solutions) {
        if (!is_reached(spec)) solution.reconstruction = 0;  // it was made by the identity
        record.modules.push_back(std::move(solution));
    }
}

StageProblem LayerQuantizer::problem(const LayerWeights& layer, const StageSpec& spec, const AlphaPolicy& alpha) const {
    StageProblem problem{statistics_.hessian(), statistics_.covariance(), {}};
    for (const LinearSpec& linear : spec.linears) {
        const std::optional<Grid> grid = grids_(layer.layer, linear.name);
        if (!grid) continue;
        const TensorView weights = layer.linears.at(linear.name).weight;
        problem.modules.push_back(
            {linear.name, weights, alpha(layer.layer, linear.name), sequential() ? weights : TensorView(), grid});
    }
    return problem;
}

std::string LayerQuantizer::names_of(const StageSpec& spec) {
    std::vector<std::string> names;
    for (const LinearSpec& linear : spec.linears)
        names.push_back(linear.name);
    return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace fairgptq
