// Who solves, logs and writes what: runs that one pass makes, and experts of a layer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/communicator.hpp"
#include "model/family.hpp"

namespace fairgptq {

/// Which rank solves which of several targets. As many as deal out evenly are dealt whole, so that nothing
/// of a factorization has to travel; the rest are solved by all ranks, each its share of the rows. Either way gives the
/// same bytes.
class SolveShares {
  public:
    SolveShares(std::size_t targets, int ranks, int rank)
        : dealt_(targets / static_cast<std::size_t>(ranks) * static_cast<std::size_t>(ranks)),
          ranks_(ranks),
          rank_(rank) {}
    SolveShares(std::size_t targets, const Communicator& comm) : SolveShares(targets, comm.size(), comm.rank()) {}
    bool by_all(std::size_t target) const { return target >= dealt_; }
    bool mine(std::size_t target) const { return by_all(target) || owner(target) == rank_; }
    /// Keeps the target's log: one rank per log, as appends from several hosts are not safe on NFS.
    bool logs(std::size_t target) const { return (by_all(target) ? 0 : owner(target)) == rank_; }
    /// Owners of what all ranks have take turns, so that writing is spread over hosts.
    int writer(std::size_t target, std::int64_t layer) const {
        return by_all(target) ? static_cast<int>((layer + static_cast<std::int64_t>(target)) % ranks_) : owner(target);
    }
    bool writes(std::size_t target, std::int64_t layer) const { return writer(target, layer) == rank_; }

  private:
    int owner(std::size_t target) const { return static_cast<int>(target % static_cast<std::size_t>(ranks_)); }
    std::size_t dealt_;
    int ranks_, rank_;
};

/// How many of a layer's experts are dealt at once, one to each rank: as many as there are ranks, or 1, and then all
/// ranks solve each together. That is so where there are fewer experts, and where a pass makes so many runs that ranks
/// are dealt those. Experts that are left over after the last round are solved by all ranks, too.
inline std::int64_t experts_at_once(const Family& family, int ranks, std::size_t runs) {
    return family.config.experts >= ranks && runs < static_cast<std::size_t>(ranks) ? ranks : 1;
}

}  // namespace fairgptq
