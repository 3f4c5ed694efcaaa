// Whether ranks exchange their devices' memory by NCCL or through the host: what --comm asks for, as far as the build
// and the ranks' devices go.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "comm/communicator.hpp"
#include "comm/device_collectives.hpp"

namespace fairgptq {

enum class CommChoice : std::uint8_t { automatic, mpi, nccl };

/// Where a rank computes.
struct RankDevice {
    std::string host;     // for messages
    std::string machine;  // the same for ranks on one machine, whatever each calls it
    std::string gpu;      // Backend::physical_device(); empty for the CPU
};

/// A collective: every rank's device, in rank order, at every rank.
std::vector<RankDevice> gather_devices(const Backend& backend, Communicator& comm);

/// How many ranks, this one included, compute on the device of `rank`: a GPU, or a machine's CPU.
int ranks_on_device(const std::vector<RankDevice>& devices, int rank);

struct ExchangeChoice {
    bool nccl = false;
    std::string notice;  // what the user should know, or empty
};

/// NCCL needs a GPU of its own for every rank.
/// @param with_nccl whether the build has NCCL
/// @throws InvalidInput if NCCL was asked for and cannot be, naming the ranks, the host and the GPU; if some ranks have
/// a GPU and others none
ExchangeChoice choose_exchange(CommChoice asked, bool with_nccl, const std::vector<RankDevice>& devices);

/// @throws InvalidInput for what is wrong with `asked` whatever the ranks' devices are: NCCL in a build without it
void check_comm_choice(CommChoice asked, bool with_nccl);

}  // namespace fairgptq
