// Ranks that work on one matrix together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "support/deal.hpp"
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

/// Who computes which piece: ranks share what is worth it, else each does all for itself.
class Shares {
  public:
    Shares(Peers& peers, bool worth_it, std::span<const std::int64_t> costs)
        : peers_(peers),
          shared_(worth_it && peers.size() > 1),
          owners_(shared_ ? deal(costs, peers.size()) : std::vector<int>(costs.size(), peers.rank())) {}

    bool mine(std::int64_t piece) const { return owners_[static_cast<std::size_t>(piece)] == peers_.rank(); }
    /// When this rank has computed what is its own: brings it the rest.
    /// @param block_of the place of a piece in the matrix
    template <class Function>
    void exchange(const Function& block_of) {
        if (!shared_) return;
        std::vector<Peers::Part> parts;
        for (std::size_t piece = 0; piece < owners_.size(); ++piece)
            parts.push_back({owners_[piece], block_of(static_cast<std::int64_t>(piece))});
        peers_.share(parts);
    }

  private:
    Peers& peers_;
    bool shared_;
    std::vector<int> owners_;
};

}  // namespace fairgptq
