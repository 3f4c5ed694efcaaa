// Picks the device of a run.
#include "backend/backend.hpp"

#include "backend/cpu/backend.hpp"
#include "support/say.hpp"

#ifdef FAIRGPTQ_CUDA
#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "support/launcher.hpp"
#else
#include <filesystem>
#endif

namespace fairgptq {
namespace {

#ifdef FAIRGPTQ_CUDA
constexpr bool with_cuda = true;

/// Ranks of one node share its GPUs out by their number on the node.
std::unique_ptr<Backend> make_cuda(int local_rank, DType model_type) {
    const int devices = cuda::device_count();
    return std::make_unique<CudaBackend>(devices > 0 ? launcher_local_rank().value_or(local_rank) % devices : 0,
                                         model_type);
}

void say_what_auto_misses() {
    if (cuda::driver_refuses())
        warn("a GPU's driver is installed, and no GPU can be used ({}): computing on the CPU", cuda::why_no_device());
}
#else
constexpr bool with_cuda = false;

std::unique_ptr<Backend> make_cuda(int, DType) {
    throw InvalidInput("this build has no CUDA backend; --device must be cpu or auto");
}

void say_what_auto_misses() {
    if (std::filesystem::exists("/dev/nvidiactl"))  // there while NVIDIA's driver is loaded
        warn(
            "this machine has a GPU, and this build has no CUDA backend: computing on the CPU (cmake --preset cuda "
            "builds one)");
}
#endif

}  // namespace

bool built_with_cuda() {
    return with_cuda;
}

bool gpu_is_here() {
#ifdef FAIRGPTQ_CUDA
    return cuda::device_count() > 0;
#else
    return false;
#endif
}

std::unique_ptr<Backend> make_backend(const std::string& device, int local_rank, DType model_type) {
    if (device == "cuda" || (device == "auto" && gpu_is_here())) return make_cuda(local_rank, model_type);
    if (device == "auto") say_what_auto_misses();
    if (device == "auto" || device == "cpu") return std::make_unique<CpuBackend>();
    throw InvalidInput("--device is \"{}\" but must be auto, cpu or cuda", device);
}

}  // namespace fairgptq
