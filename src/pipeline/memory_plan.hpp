// What a rank's memory holds during a run, buffer by buffer: the same sizes that the run allocates. Where a device's
// memory does not hold everything, the plan says what waits in the host's instead, and the run does as the plan says.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/shared_limits.hpp"
#include "pipeline/chunks.hpp"
#include "pipeline/quantize.hpp"
#include "pipeline/residency.hpp"

namespace fairgptq {

/// What a plan is for.
struct PlanDevice {
    DType activation_type = DType::float32;
    bool gpu = false;                  // memory of its own, beside the host's
    std::optional<std::size_t> limit;  // bytes of it, the driver's and the libraries' share included
};

struct MemoryPlan {
    struct Item {
        std::string name;
        std::size_t bytes;
    };
    std::vector<Item> device;  // of the backend; on the CPU it is host memory too
    std::vector<Item> host;
    std::size_t device_peak = 0;
    std::size_t start_device = 0;  // before the first layer, when the embedding is there
    std::size_t host_peak = 0;
    std::size_t host_kept = 0;    // of the host's memory, but for pages of files, which Linux drops when it must
    std::size_t shared_peak = 0;  // of both where they are the same memory: their peaks come at different times
    Residency residency;
    std::int64_t tokens = 0, spilled_tokens = 0;  // of the rank; how many of them are in host memory
    bool fits = true;                             // false: not even with all that can wait in host memory there
    std::size_t needed(bool gpu) const { return gpu ? device_peak : shared_peak; }
};

/// The plan of the rank that needs most. Weights wait in host memory before hidden states do.
/// @param runs made in one pass
MemoryPlan plan_memory(const Family& family, const Chunks& chunks, std::int64_t file_tokens,
                       const QuantizeSettings& settings, const ModuleGrids& grids, int ranks, const PlanDevice& device,
                       std::size_t runs = 1);

/// The sentence that refuses a run whose ranks need more of the host's memory than the machine has or a cgroup allows
/// them: the kernel would end it in the middle (or swap without end). Nothing if it fits.
std::optional<std::string> missing_host_memory(const MemoryPlan& plan, std::span<const SharedLimit> limits);

/// What a GPU's driver and libraries take before anything is allocated. An estimate: it has not been measured.
constexpr std::size_t gpu_context_bytes = std::size_t{768} << 20U;
/// NCCL's own buffers and kernels, for ranks beyond one. An estimate as well.
constexpr std::size_t nccl_bytes = std::size_t{512} << 20U;

}  // namespace fairgptq
