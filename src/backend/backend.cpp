// Picks the device of a run.
#include "backend/backend.hpp"

#include "backend/cpu/backend.hpp"

#ifdef FAIRGPTQ_CUDA
#include <spdlog/spdlog.h>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "support/launcher.hpp"
#endif

namespace fairgptq {
namespace {

#ifdef FAIRGPTQ_CUDA
/// Ranks of one node share its GPUs out by their number on the node.
std::unique_ptr<Backend> make_cuda(int local_rank, DType model_type) {
    const int devices = cuda::device_count();
    return std::make_unique<CudaBackend>(devices > 0 ? launcher_local_rank().value_or(local_rank) % devices : 0,
                                         model_type);
}
#else
std::unique_ptr<Backend> make_cuda(int, DType) {
    throw InvalidInput("this build has no CUDA backend; --device must be cpu or auto");
}
#endif

}  // namespace

bool gpu_is_here() {
#ifdef FAIRGPTQ_CUDA
    return cuda::device_count() > 0;
#else
    return false;
#endif
}

std::unique_ptr<Backend> make_backend(const std::string& device, int local_rank, DType model_type) {
    if (device == "cuda" || (device == "auto" && gpu_is_here())) return make_cuda(local_rank, model_type);
#ifdef FAIRGPTQ_CUDA
    if (device == "auto" && cuda::driver_refuses())
        spdlog::warn("a GPU's driver is installed, and no GPU can be used ({}): computing on the CPU",
                     cuda::why_no_device());
#endif
    if (device == "auto" || device == "cpu") return std::make_unique<CpuBackend>();
    throw InvalidInput("--device is \"{}\" but must be auto, cpu or cuda", device);
}

}  // namespace fairgptq
