// Read it from the top: quantize_model is the run, one line for each step (docs/method.md).
#include "pipeline/quantize.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <unordered_map>

#include "comm/together.hpp"
#include "model/weights.hpp"
#include "pipeline/calibration_state.hpp"
#include "pipeline/layers_on_disk.hpp"
#include "pipeline/solve_shares.hpp"
#include "pipeline/source_weights.hpp"
#include "run/quantized_model.hpp"
#include "run/record_reader.hpp"
#include "run/stop_signal.hpp"
#include "solver/record_copies.hpp"
#include "solver/solve.hpp"
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
    } catch (const InvalidInput& error) {
        throw InvalidInput("{}: {}", where, error.what());
    } catch (const std::exception& error) {
        throw Failure("{}: {}", where, error.what());
    }
}

class QuantizeRun {
  public:
    QuantizeRun(const QuantizeSettings& settings, const ModuleGrids& grids, const Family& family,
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

    /// The next layer's weights. A collective.
    LayerWeights read_layer(LayerPrefetcher& weights, std::int64_t index) {
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
    /// What this rank reads of the weights.
    ReadShare share() const { return share_; }

    /// @param next whether the layer after it will be replayed, too
    void replay_layer(LayerWeights layer, bool next) {
        if (sequential()) {
            const LayerRecord record = replayed_.layer(layer.layer, next);
            dequantize_layer(backend_, record, layer);
        }
        progress_.enter(Phase::forward);
        state_.for_each({.reads_hidden = true, .writes_hidden = true},
                        [&](const Chunk&, ChunkState& state) { decoder_.run_layer(layer, state); });
        backend_.synchronize();  // before the layer's memory goes
    }

    /// @param open the targets that lack this layer
    /// @returns their records; without modules where another rank has them, without codes where another rank writes
    /// them
    std::vector<LayerRecord> quantize_layer(LayerWeights layer, std::span<const std::size_t> open) {
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

  private:
    /// One stage, for which all ranks work together.
    void quantize_stage(const LayerWeights& layer, int stage, std::span<const std::size_t> open,
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

    /// How many experts are dealt whole from this stage on; 0: the stage is for all ranks.
    int dealt_experts(std::int64_t layer, int stage) const {
        const int at_once = static_cast<int>(experts_at_once_);
        if (at_once == 1 || !family_.has_experts(layer)) return 0;
        const StageSpec& spec = spec_of(layer, stage);
        const bool begins = spec.is_routed() && spec.expert % at_once == 0;
        return begins && spec.expert + at_once <= family_.config.experts ? at_once : 0;
    }

    /// As many experts as ranks: first the first stage of each, then the second. Every rank adds to the sums of all,
    /// and solves one.
    void quantize_dealt(const LayerWeights& layer, int first_stage, int experts, std::span<const std::size_t> open,
                        std::vector<LayerRecord>& records) {
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

    /// Modules in the family's order, whoever solved them when.
    void put_in_order(LayerRecord& record) const {
        std::unordered_map<std::string, std::size_t> places;
        for (const StageSpec& stage : family_.stages_of(record.layer))
            for (const LinearSpec& linear : stage.linears)
                places.emplace(linear.name, places.size());
        std::ranges::sort(record.modules, {}, [&](const ModuleSolution& module) { return places.at(module.name); });
    }

    bool sequential() const { return settings_.inputs == InputsFrom::sequential; }

    /// Where GPUs send to each other, each tensor is read once from the file system, which many nodes would wait for.
    /// Through a host's memory it would take longer than to read it.
    static ReadShare share_of_reading(const RunResources& resources) {
        if (resources.backend.host_accessible() || !resources.collectives.direct()) return {};
        return {resources.comm.rank(), resources.comm.size()};
    }

    /// Brings what the others have read.
    /// @param parts bytes of each rank
    void gather(const Buffer& memory, std::span<const std::size_t> parts) {
        if (share_.ranks == 1) return;
        progress_.enter(Phase::exchange);
        const auto rank = static_cast<std::size_t>(share_.rank);
        // The largest layer's memory; this one may be smaller.
        const std::span<std::byte> all(memory.as<std::byte>(),
                                       std::accumulate(parts.begin(), parts.end(), std::size_t{0}));
        const auto before = parts.first(rank);
        const auto mine = all.subspan(std::accumulate(before.begin(), before.end(), std::size_t{0}), parts[rank]);
        Exchange exchange(collectives_);
        exchange.all_gather(mine, all, parts);
        exchange.finish();
    }

    void embed(const Checkpoint& checkpoint) {
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

    const StageSpec& spec_of(std::int64_t layer, int stage) const {
        return family_.stages_of(layer)[static_cast<std::size_t>(stage)];
    }
    std::int64_t input_cols(std::int64_t layer, int stage) const {
        return Decoder::input_cols(family_, layer, stage, experts_at_once_);
    }

    bool is_reached(const StageSpec& spec) const {
        return !spec.is_routed() || reached_[static_cast<std::size_t>(spec.expert)] > 0;
    }

    bool is_quantized(std::int64_t layer, const StageSpec& spec) const {
        return std::ranges::any_of(spec.linears,
                                   [&](const LinearSpec& linear) { return grids_(layer, linear.name).has_value(); });
    }

    /// A chunk's columns of D at a stage.
    static std::vector<PairColumn> pair_columns(const StageSpec& spec, const Chunk& chunk, const ChunkState& state) {
        if (!spec.is_routed()) return chunk.pair_columns;
        return pair_columns_among(chunk.pair_columns, routed(spec, state).rows);
    }
    static const Routing::Expert& routed(const StageSpec& spec, const ChunkState& state) {
        return state.routing->experts[static_cast<std::size_t>(spec.expert)];
    }

    /// Counts the tokens of H that reach each expert, over all ranks.
    void count_routed(std::int64_t layer) {
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

    /// @param owner the rank that gets the sums, if not all do
    void accumulate(std::int64_t layer, int stage, std::optional<int> owner = {}) {
        progress_.enter(Phase::covariance);
        const StageSpec& spec = spec_of(layer, stage);
        statistics_.clear(spec.cols(), owner);
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

    /// Each stage but the last makes the next one's inputs.
    /// @param stages one, or one of each of several experts
    /// @param solved its codes come to the host while the device computes
    void forward(std::span<const int> stages, const LayerWeights& layer, LayerRecord* solved = nullptr) {
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

    /// Solves the stage for every open target, and with sequential inputs puts the solution in the weights' place.
    void solve(const LayerWeights& layer, const StageSpec& spec, std::span<const std::size_t> open,
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

    /// The same of several stages, each of which one rank solves.
    void solve_dealt(const LayerWeights& layer, std::span<const int> stages, std::span<const std::size_t> open,
                     std::vector<LayerRecord>& records) {
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

    void add_to_record(const StageSpec& spec, std::vector<ModuleSolution> solutions, LayerRecord& record) const {
        for (ModuleSolution& solution : solutions) {
            if (solution.damp_used > settings_.solver.damp) warn_of_damping(record.layer, solution);
            if (!is_reached(spec)) solution.reconstruction = 0;  // it was made by the identity
            record.modules.push_back(std::move(solution));
        }
    }

    StageProblem problem(const LayerWeights& layer, const StageSpec& spec, const AlphaPolicy& alpha) const {
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

    static std::string names_of(const StageSpec& spec) {
        std::vector<std::string> names;
        for (const LinearSpec& linear : spec.linears)
            names.push_back(linear.name);
        return fmt::format("{}", fmt::join(names, ", "));
    }

    void warn_of_damping(std::int64_t layer, const ModuleSolution& solution) const {
        warn("layer {}, {}: its Hessian did not factor; damped by {:g} instead of {:g} times its mean diagonal", layer,
             solution.name, solution.damp_used, settings_.solver.damp);
    }

    const QuantizeSettings& settings_;
    const Family& family_;
    std::span<const RunTarget> targets_;
    Backend& backend_;
    Communicator& comm_;
    DeviceCollectives& collectives_;
    std::unique_ptr<Communicator> alone_;
    Progress& progress_;
    std::vector<AlphaPolicy> alphas_;
    std::int64_t experts_at_once_;
    Decoder decoder_;
    CalibrationState state_;
    std::vector<double> reached_;  // tokens of H that reach each of this layer's experts
    StageStatistics statistics_;
    RecordCopies copies_;
    ReadShare share_;
    SourceWeights source_;
    RecordReader replayed_;  // nothing is being written while it reads
    ModuleGrids grids_;
    TensorHashes outer_hashes_;
};

}  // namespace

Outcome quantize_model(const QuantizeSettings& settings, const ModuleGrids& grids, const Family& family,
                       const Checkpoint& checkpoint, const Chunks& chunks, std::span<const RunTarget> targets,
                       std::int64_t stop_after_layers, const RunResources& resources, Progress& progress) {
    if (targets.size() > 1 && settings.inputs == InputsFrom::sequential)
        throw Failure("several runs in one pass need statistics of the original model");
    LayersOnDisk disk(targets, settings.inputs == InputsFrom::sequential, resources.comm);
    QuantizeRun quantize(settings, grids, family, checkpoint, chunks, targets, disk, resources, progress);
    LayerPrefetcher weights(resources.backend, family, checkpoint, 0, settings.layers, resources.residency.weights,
                            quantize.share());
    Communicator& comm = resources.comm;
    const auto finish_writing = [&] {
        progress.enter(Phase::write);
        disk.finish_writing();
    };
    std::int64_t solved = 0;
    for (std::int64_t index = 0; !disk.is_done_from(index); ++index) {
        const std::vector<std::size_t> open = disk.without(index);
        progress.enter(Phase::read);
        const PhaseClock::Span span(progress.clock(), fmt::format("layer {}", index));
        progress.begin_layer(index, open.empty(), disk.missing_from(index));
        LayerWeights layer = quantize.read_layer(weights, index);
        std::vector<LayerRecord> records;
        if (open.empty()) {
            finish_writing();  // HDF5 serves one at a time
            progress.enter(Phase::read);
            quantize.replay_layer(std::move(layer), disk.is_done(0, index + 1));
        } else {
            records = quantize.quantize_layer(std::move(layer), open);
            finish_writing();
            progress.enter(Phase::exchange);
            disk.name_origins(index, open, records);
            ++solved;
        }
        progress.enter(Phase::exchange);
        const bool enough = stop_after_layers >= 0 && solved >= stop_after_layers;
        const bool stop = comm.all_reduce_max(enough || stop_requested() ? 1 : 0) != 0;
        progress.clock().charge();
        const std::vector<RankTimes> times = gather_times(comm, progress.layer_times());
        progress.enter(Phase::write);
        progress.end_layer(records);
        if (open.empty() && comm.rank() == 0)
            for (const RunTarget& target : targets)
                target.run->log(progress.layer_event(nullptr, times));
        const SolveShares shares(open.size(), comm);
        for (std::size_t i = 0; i < open.size(); ++i)
            if (shares.logs(i)) targets[open[i]].run->log(progress.layer_event(&records[i], times));
        disk.write(index, open, std::move(records));
        if (stop && !disk.is_done_from(index + 1)) {
            finish_writing();
            return Outcome::stopped;
        }
    }
    finish_writing();
    return Outcome::done;
}

}  // namespace fairgptq
