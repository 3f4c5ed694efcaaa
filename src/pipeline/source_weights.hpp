// The weights that a run is made of: read when they are needed, compared with what earlier layers were made of.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "comm/communicator.hpp"
#include "model/safetensors.hpp"
#include "pipeline/layers_on_disk.hpp"
#include "pipeline/quantize.hpp"
#include "support/checksum.hpp"

namespace fairgptq {

/// Rank 0's hashes at every rank (a collective).
TensorHashes broadcast_hashes(const TensorHashes& hashes, Communicator& comm);

/// Nothing is read for the comparison alone: hashes come with the weights. A tensor that no finished layer was made of
/// may have changed; the run is what the model as it is now gives, since all that came before it is the same, and what
/// comes after it is done again.
class SourceWeights {
  public:
    /// @param shared whether each rank reads some of the tensors, instead of all of them
    SourceWeights(Communicator& comm, const Checkpoint& checkpoint, std::span<const RunTarget> targets,
                  const LayersOnDisk& disk, bool shared)
        : comm_(comm), checkpoint_(checkpoint), targets_(targets), disk_(disk), shared_(shared) {}

    /// A collective: reads at every rank, and compares with the targets' finished layers and, what all read, between
    /// ranks.
    /// @param layer whose weights these are; −1: those outside all layers
    /// @param read reads, and gives the hashes; it must not call collectives
    /// @returns the hashes of all tensors
    /// @throws SharedFailure, with the sentence of what `read` threw, or naming layer, tensor and file that differ
    TensorHashes read(std::int64_t layer, const std::function<const TensorHashes&()>& read) const;

  private:
    Communicator& comm_;
    const Checkpoint& checkpoint_;
    std::span<const RunTarget> targets_;
    const LayersOnDisk& disk_;
    bool shared_;
};

}  // namespace fairgptq
