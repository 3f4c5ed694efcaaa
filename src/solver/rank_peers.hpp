// A factorization's ranks: parts of its matrix travel between their devices. Where they would have to travel through
// the host of a GPU, which takes longer than to compute them, each rank computes all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>

#include "backend/backend.hpp"
#include "backend/peers.hpp"
#include "comm/communicator.hpp"
#include "comm/device_collectives.hpp"

namespace fairgptq {

class RankPeers final : public Peers {
  public:
    /// Device memory that parts of all ranks go through, at once.
    static constexpr std::size_t staging_bytes = std::size_t{128} << 20U;
    /// All device memory that it allocates for a matrix of `cols` columns among so many ranks, at most.
    static std::size_t bytes(std::int64_t cols, std::int64_t ranks);

    /// @param travels is told when parts begin to travel, and when they have come
    RankPeers(Backend& backend, Communicator& comm, DeviceCollectives& collectives,
              std::function<void(bool)> travels = {}, std::size_t staging = staging_bytes)
        : backend_(backend), comm_(comm), collectives_(collectives), travels_(std::move(travels)), staging_(staging) {}

    int rank() const override { return collectives_.direct() ? comm_.rank() : 0; }
    int size() const override { return collectives_.direct() ? comm_.size() : 1; }
    /// As many exchanges as the memory asks for.
    void share(std::span<const Part> parts) override;
    bool agree(bool mine) override { return comm_.all_reduce_max(mine ? 0 : 1) == 0; }

  private:
    Backend& backend_;
    Communicator& comm_;
    DeviceCollectives& collectives_;
    std::function<void(bool)> travels_;
    std::size_t staging_;
    Buffer mine_, all_;
};

}  // namespace fairgptq
