// Ranks that work on one matrix together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "support/views.hpp"

namespace fairgptq {

/// The ranks that hold the same matrix and ask for the same operation on it at the same time: each computes a part of
/// it, and gets the others' parts. Which part is computed where changes no byte of it. By itself, one rank alone.
class Peers {
  public:
    /// A block of the matrix, and the rank that has computed it.
    struct Part {
        int owner;
        MatrixView<float> block;
    };

    virtual ~Peers() = default;
    virtual int rank() const { return 0; }
    virtual int size() const { return 1; }
    /// Brings each part from its owner to all ranks. The list is the same at every rank, each with views of its own
    /// matrix.
    virtual void share(std::span<const Part> parts) { (void)parts; }
    /// Whether all ranks say so, at every rank.
    virtual bool agree(bool mine) { return mine; }
};

/// Who computes which piece of work: the costliest first, each by the rank that has least to do so far.
/// @returns the rank of each piece, the same wherever it is asked
std::vector<int> deal(std::span<const std::int64_t> costs, int ranks);

}  // namespace fairgptq
