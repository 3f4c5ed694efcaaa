// Read it from the top: quantize_model is the run, layer after layer (docs/method.md).
#include "pipeline/quantize.hpp"

#include <set>

#include "pipeline/layer_quantizer.hpp"
#include "pipeline/layers_on_disk.hpp"
#include "pipeline/solve_shares.hpp"
#include "run/stop_signal.hpp"
#include "support/say.hpp"
#include "support/split.hpp"

namespace fairgptq {
namespace {

/// A collective. Rank 0 names the modules whose Hessian wanted more damping, whichever rank solved them.
void warn_of_damping(std::span<const LayerRecord> records, const SolveShares& shares, double damp, Communicator& comm) {
    std::string mine;
    for (std::size_t i = 0; i < records.size(); ++i)
        for (const ModuleSolution& module : records[i].modules)
            if (shares.logs(i) && module.damp_used > damp)
                mine += fmt::format(
                    "layer {}, {}: its Hessian did not factor; damped by {:g} instead of {:g} times its "
                    "mean diagonal\n",
                    records[i].layer, module.name, module.damp_used, damp);
    std::set<std::string> said;  // several runs' may be the same
    for (const std::string& lines : comm.gather_strings(mine))
        for (const std::string& line : split(lines, '\n'))
            if (!line.empty() && said.insert(line).second) warn("{}", line);
}

}  // namespace

Outcome quantize_model(const QuantizeSettings& settings, const ModuleGrids& grids, const Family& family,
                       const Checkpoint& checkpoint, const Chunks& chunks, std::span<const RunTarget> targets,
                       std::int64_t stop_after_layers, const RunResources& resources, Progress& progress) {
    if (targets.size() > 1 && settings.inputs == InputsFrom::sequential)
        throw Failure("several runs in one pass need statistics of the original model");
    LayersOnDisk disk(targets, settings.inputs == InputsFrom::sequential, resources.comm);
    LayerQuantizer quantizer(settings, grids, family, checkpoint, chunks, targets, disk, resources, progress);
    LayerPrefetcher weights(resources.backend, family, checkpoint, 0, settings.layers, resources.residency.weights,
                            quantizer.share());
    Communicator& comm = resources.comm;
    const auto finish_writing = [&] {
        progress.enter(Phase::write);
        disk.finish_writing();
    };
    std::int64_t solved = 0;
    for (std::int64_t index = 0; !disk.is_done_from(index); ++index) {
        const std::vector<std::size_t> open = disk.without(index);
        const SolveShares shares(open.size(), comm);
        progress.enter(Phase::read);
        const PhaseClock::Span span(progress.clock(), fmt::format("layer {}", index));
        progress.begin_layer(index, open.empty(), disk.missing_from(index));
        LayerWeights layer = quantizer.read_layer(weights, index);
        std::vector<LayerRecord> records;
        if (open.empty()) {
            finish_writing();  // HDF5 serves one at a time
            progress.enter(Phase::read);
            quantizer.replay_layer(std::move(layer), disk.is_done(0, index + 1));
        } else {
            records = quantizer.quantize_layer(std::move(layer), open);
            finish_writing();
            progress.enter(Phase::exchange);
            disk.name_origins(index, open, records);
            warn_of_damping(records, shares, settings.solver.damp, comm);
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
