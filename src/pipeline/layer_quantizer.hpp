// One layer at a time: its inputs from the calibration data, its statistics, its solution (docs/method.md).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/device_collectives.hpp"
#include "model/weights.hpp"
#include "pipeline/calibration_state.hpp"
#include "pipeline/layers_on_disk.hpp"
#include "pipeline/quantize.hpp"
#include "pipeline/source_weights.hpp"
#include "pipeline/stage_statistics.hpp"
#include "run/record_reader.hpp"
#include "solver/record_copies.hpp"
#include "solver/solve.hpp"

namespace fairgptq {

/// Takes the calibration data through a model's layers, in their order: through each layer that is quantized with its
/// solution in the weights' place (with sequential inputs), or with the original weights.
class LayerQuantizer {
  public:
    LayerQuantizer(const QuantizeSettings& settings, const ModuleGrids& grids, const Family& family,
                   const Checkpoint& checkpoint, const Chunks& chunks, std::span<const RunTarget> targets,
                   const LayersOnDisk& disk, const RunResources& resources, Progress& progress);

    /// The next layer's weights. A collective.
    LayerWeights read_layer(LayerPrefetcher& weights, std::int64_t index);
    /// What this rank reads of the weights.
    ReadShare share() const { return share_; }

    /// @param next whether the layer after it will be replayed, too
    void replay_layer(LayerWeights layer, bool next);

    /// @param open the targets that lack this layer
    /// @returns their records; without modules where another rank has them, without codes where another rank writes
    /// them
    std::vector<LayerRecord> quantize_layer(LayerWeights layer, std::span<const std::size_t> open);

  private:
    /// One stage, for which all ranks work together.
    void quantize_stage(const LayerWeights& layer, int stage, std::span<const std::size_t> open,
                        std::vector<LayerRecord>& records);

    /// How many experts are dealt whole from this stage on; 0: the stage is for all ranks.
    int dealt_experts(std::int64_t layer, int stage) const;

    /// As many experts as ranks: first the first stage of each, then the second. Every rank adds to the sums of all,
    /// and solves one.
    void quantize_dealt(const LayerWeights& layer, int first_stage, int experts, std::span<const std::size_t> open,
                        std::vector<LayerRecord>& records);

    /// Modules in the family's order, whoever solved them when.
    void put_in_order(LayerRecord& record) const;

    bool sequential() const { return settings_.inputs == InputsFrom::sequential; }

    /// Where GPUs send to each other, each tensor is read once from the file system, which many nodes would wait for.
    /// Through a host's memory it would take longer than to read it.
    static ReadShare share_of_reading(const RunResources& resources);

    /// Brings what the others have read.
    /// @param parts bytes of each rank
    void gather(const Buffer& memory, std::span<const std::size_t> parts);

    void embed(const Checkpoint& checkpoint);

    const StageSpec& spec_of(std::int64_t layer, int stage) const {
        return family_.stages_of(layer)[static_cast<std::size_t>(stage)];
    }
    std::int64_t input_cols(std::int64_t layer, int stage) const {
        return Decoder::input_cols(family_, layer, stage, experts_at_once_);
    }

    bool is_reached(const StageSpec& spec) const {
        return !spec.is_routed() || reached_[static_cast<std::size_t>(spec.expert)] > 0;
    }

    bool is_quantized(std::int64_t layer, const StageSpec& spec) const;

    /// A chunk's columns of D at a stage.
    static std::vector<PairColumn> pair_columns(const StageSpec& spec, const Chunk& chunk, const ChunkState& state);
    static const Routing::Expert& routed(const StageSpec& spec, const ChunkState& state) {
        return state.routing->experts[static_cast<std::size_t>(spec.expert)];
    }

    /// Counts the tokens of H that reach each expert, over all ranks.
    void count_routed(std::int64_t layer);

    /// @param owner the rank that gets the sums, if not all do
    void accumulate(std::int64_t layer, int stage, std::optional<int> owner = {});

    /// Each stage but the last makes the next one's inputs.
    /// @param stages one, or one of each of several experts
    /// @param solved its codes come to the host while the device computes
    void forward(std::span<const int> stages, const LayerWeights& layer, LayerRecord* solved = nullptr);

    /// Solves the stage for every open target, and with sequential inputs puts the solution in the weights' place.
    void solve(const LayerWeights& layer, const StageSpec& spec, std::span<const std::size_t> open,
               std::vector<LayerRecord>& records);

    /// The same of several stages, each of which one rank solves.
    void solve_dealt(const LayerWeights& layer, std::span<const int> stages, std::span<const std::size_t> open,
                     std::vector<LayerRecord>& records);

    void add_to_record(const StageSpec& spec, std::vector<ModuleSolution> solutions, LayerRecord& record) const;

    StageProblem problem(const LayerWeights& layer, const StageSpec& spec, const AlphaPolicy& alpha) const;

    static std::string names_of(const StageSpec& spec);

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

}  // namespace fairgptq
