// What a pass has to do of its targets' layers, and their way to the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "pipeline/quantize.hpp"
#include "run/finished_layers.hpp"
#include "run/layer_writer.hpp"

namespace fairgptq {

/// Says the same at every rank.
class LayersOnDisk {
  public:
    /// @param sequential whether quantized layers make a layer's inputs: then there is one target
    LayersOnDisk(std::span<const RunTarget> targets, bool sequential, Communicator& comm);

    bool is_done(std::size_t target, std::int64_t layer) const { return layers_[target].is_done(layer); }
    /// Whether every target has all layers from this one on.
    bool is_done_from(std::int64_t layer) const { return missing_from(layer) == 0; }
    /// How many layers some target lacks, from this one on.
    std::int64_t missing_from(std::int64_t layer) const;
    /// The targets that lack a layer.
    std::vector<std::size_t> without(std::int64_t layer) const;

    /// Waits for what this rank writes. @throws what writing it threw
    void finish_writing();
    /// Names in each record what its layer was made after. A collective, after finish_writing.
    /// @param open the targets that the records are of
    void name_origins(std::int64_t layer, std::span<const std::size_t> open, std::span<LayerRecord> records);
    /// Begins to write, each target's record at one rank. Files of later layers that were made after another layer than
    /// this one are removed before. A collective.
    /// @param open the targets that the records are of
    void write(std::int64_t layer, std::span<const std::size_t> open, std::vector<LayerRecord> records);

  private:
    std::span<const RunTarget> targets_;
    bool sequential_;
    Communicator& comm_;
    std::vector<FinishedLayers> layers_;  // of each target
    std::vector<LayerWriter> writers_;    // of each target
};

}  // namespace fairgptq
