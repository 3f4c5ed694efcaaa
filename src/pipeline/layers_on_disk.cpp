#include "pipeline/layers_on_disk.hpp"

#include <string>
#include <utility>

#include "pipeline/solve_shares.hpp"

namespace fairgptq {

LayersOnDisk::LayersOnDisk(std::span<const RunTarget> targets, bool sequential, Communicator& comm)
    : targets_(targets), sequential_(sequential), comm_(comm), writers_(targets.size()) {
    for (const RunTarget& target : targets)
        layers_.push_back(target.layers);
}

std::int64_t LayersOnDisk::missing_from(std::int64_t layer) const {
    std::int64_t missing = 0;
    for (; layer < layers_.front().layers(); ++layer)
        if (!without(layer).empty()) ++missing;
    return missing;
}

std::vector<std::size_t> LayersOnDisk::without(std::int64_t layer) const {
    std::vector<std::size_t> open;
    for (std::size_t target = 0; target < layers_.size(); ++target)
        if (!layers_[target].is_done(layer)) open.push_back(target);
    return open;
}

void LayersOnDisk::finish_writing() {
    for (LayerWriter& writer : writers_)
        writer.finish();
}

void LayersOnDisk::name_origins(std::int64_t layer, std::span<const std::size_t> open, std::span<LayerRecord> records) {
    for (std::size_t i = 0; i < open.size(); ++i) {
        FinishedLayers& layers = layers_[open[i]];
        if (layer > 0) {
            if (layers.hash(layer - 1).empty())  // it was solved in this pass, and is written by now
                layers.add(layer - 1, layers.made_after(layer - 1),
                           comm_.broadcast_string(writers_[open[i]].last_hash(),
                                                  SolveShares(open.size(), comm_).writer(i, layer - 1)));
            records[i].made_after = layers.hash(layer - 1);
        }
        if (!sequential_) records[i].hash = source_hash(records[i]);
    }
}

void LayersOnDisk::write(std::int64_t layer, std::span<const std::size_t> open, std::vector<LayerRecord> records) {
    const SolveShares shares(open.size(), comm_);
    for (std::size_t i = 0; i < open.size(); ++i) {
        FinishedLayers& layers = layers_[open[i]];
        const RunDirectory& run = *targets_[open[i]].run;
        const bool mine = shares.writes(i, layer);
        std::string& hash = records[i].hash;
        if (layers.goes_on_after(layer)) {  // do they go on from what it is now?
            if (hash.empty())
                hash = comm_.broadcast_string(mine ? layer_hash(records[i]) : "", shares.writer(i, layer));
            if (layers.is_there(layer + 1) && layers.made_after(layer + 1) != hash) {
                const std::int64_t before = layers.count();
                layers.forget_from(layer + 1);
                if (comm_.rank() == 0) run.warn_of_layers_from(layer + 1, true);
                if (mine) run.remove_layers_from(layer + 1);
                if (shares.logs(i))
                    run.log(
                        {{"event", "discarded"}, {"from", layer + 1}, {"discarded_layers", before - layers.count()}});
            }
        }
        layers.add(layer, records[i].made_after, hash);
        if (mine) writers_[open[i]].write(run.layer_path(layer), std::move(records[i]));
    }
}

}  // namespace fairgptq
