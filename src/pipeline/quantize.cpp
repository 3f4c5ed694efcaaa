// Read it from the top: quantize_model is the run, one line for each step of method.md's "One pass, staged, ragged".
#include "pipeline/quantize.hpp"

#include <spdlog/spdlog.h>

#include "model/weights.hpp"
#include "pipeline/calibration_state.hpp"
#include "run/layer_writer.hpp"
#include "run/quantized_model.hpp"
#include "run/stop_signal.hpp"
#include "solver/solve.hpp"

namespace fairgptq {
namespace {

/// Says which layer and module a failure belongs to, whatever it was.
template <class Work>
void at(const std::string& where, const Work& work) {
    try {
        work();
    } catch (const InvalidInput& error) {
        throw InvalidInput("{}: {}", where, error.what());
    } catch (const std::exception& error) {
        throw Failure("{}: {}", where, error.what());
    }
}

class QuantizeRun {
  public:
    QuantizeRun(const QuantizeSettings& settings, const Family& family, const Checkpoint& checkpoint,
                const Chunks& chunks, const RunDirectory& run, Backend& backend, Communicator& comm, Progress& progress)
        : settings_(settings),
          family_(family),
          run_(run),
          backend_(backend),
          comm_(comm),
          progress_(progress),
          alpha_(settings.alpha, family),
          decoder_(backend, family, chunks.max_tokens),
          state_(backend, family, chunks, deal_chunks(chunks, comm.size())[static_cast<std::size_t>(comm.rank())]),
          statistics_(backend, family, chunks) {
        embed(checkpoint);
    }

    void replay_layer(LayerWeights layer) {
        const LayerRecord record = run_.layer(layer.layer);
        if (settings_.inputs == InputsFrom::sequential) dequantize_layer(backend_, record, layer);
        for (auto& item : state_.items()) {
            decoder_.begin_layer(layer, item.state);
            for (int stage = 0; stage < 4; ++stage)
                decoder_.run_stage(stage, layer, item.state);
        }
        progress_.spent(Phase::forward);
    }

    LayerRecord quantize_layer(LayerWeights layer) {
        LayerRecord record{layer.layer, run_.fingerprint(), {}};
        for (auto& item : state_.items())
            decoder_.begin_layer(layer, item.state);
        progress_.spent(Phase::forward);
        for (int stage = 0; stage < 4; ++stage) {
            const StageSpec& spec = family_.stages[static_cast<std::size_t>(stage)];
            at(fmt::format("layer {}, inputs of {}", layer.layer, spec.linears.front().name), [&] {
                accumulate(stage);
                std::vector<ModuleSolution> solutions = solve(layer, spec);
                if (settings_.inputs == InputsFrom::sequential)
                    for (const ModuleSolution& solution : solutions)
                        dequantize_module(backend_, solution, layer.linears.at(solution.name).weight);
                for (auto& item : state_.items())
                    decoder_.run_stage(stage, layer, item.state);
                progress_.spent(Phase::forward);
                for (ModuleSolution& solution : solutions)
                    record.modules.push_back(std::move(solution));
            });
            progress_.stage_done(stage);
        }
        return record;
    }

  private:
    void embed(const Checkpoint& checkpoint) {
        const OuterWeights outer = read_outer(backend_, family_, checkpoint);
        for (auto& item : state_.items())
            decoder_.embed(outer, item.chunk->tokens, item.state);
    }

    void accumulate(int stage) {
        for (auto& item : state_.items())
            statistics_.accumulate(*item.chunk, decoder_.stage_input(stage, item.state));
        progress_.spent(Phase::statistics);
        statistics_.reduce(comm_, family_.stages[static_cast<std::size_t>(stage)].cols());
        progress_.spent(Phase::reduce);
    }

    std::vector<ModuleSolution> solve(const LayerWeights& layer, const StageSpec& spec) {
        StageProblem problem{statistics_.hessian(), statistics_.covariance(), {}};
        for (const LinearSpec& linear : spec.linears)
            problem.modules.push_back(
                {linear.name, layer.linears.at(linear.name).weight, alpha_(layer.layer, linear.name)});
        auto solutions = solve_stage(backend_, comm_, problem, settings_.solver);
        for (const ModuleSolution& solution : solutions)
            if (solution.damp_used > settings_.solver.damp)
                spdlog::warn(
                    "layer {}, {}: its Hessian did not factor; damped by {:g} instead of {:g} times its mean diagonal",
                    layer.layer, solution.name, solution.damp_used, settings_.solver.damp);
        progress_.spent(Phase::solve);
        return solutions;
    }

    const QuantizeSettings& settings_;
    const Family& family_;
    const RunDirectory& run_;
    Backend& backend_;
    Communicator& comm_;
    Progress& progress_;
    AlphaPolicy alpha_;
    Decoder decoder_;
    CalibrationState state_;
    StageStatistics statistics_;
};

}  // namespace

Outcome quantize_model(const QuantizeSettings& settings, const Family& family, const Checkpoint& checkpoint,
                       const Chunks& chunks, const RunDirectory& run, std::int64_t finished,
                       std::int64_t stop_after_layers, Backend& backend, Communicator& comm, Progress& progress) {
    QuantizeRun quantize(settings, family, checkpoint, chunks, run, backend, comm, progress);
    LayerPrefetcher weights(backend, family, checkpoint, 0, settings.layers);
    LayerWriter writer;
    for (std::int64_t index = 0; index < settings.layers; ++index) {
        const bool replayed = index < finished;
        progress.begin_layer(index, replayed);
        LayerWeights layer = weights.next();
        progress.spent(Phase::read);
        if (replayed) {
            quantize.replay_layer(std::move(layer));
            const auto event = progress.end_layer(nullptr);
            if (comm.rank() == 0) run.log(event);
        } else {
            LayerRecord record = quantize.quantize_layer(std::move(layer));
            writer.finish();
            progress.spent(Phase::write);
            const auto event = progress.end_layer(&record);
            // Owners take turns, so that writing is spread over hosts.
            if (index % comm.size() == comm.rank())
                writer.write(run.layer_path(index), std::move(record), [&run, event] { run.log(event); });
        }
        const bool last = index + 1 == settings.layers;
        const bool enough = stop_after_layers >= 0 && index + 1 >= finished + stop_after_layers;
        if (!last && comm.all_reduce_max(enough || stop_requested() ? 1 : 0) != 0) {
            writer.finish();
            comm.barrier();
            return Outcome::stopped;
        }
    }
    writer.finish();
    comm.barrier();
    return Outcome::done;
}

}  // namespace fairgptq
