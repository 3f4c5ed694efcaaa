// Picks the device of a run.
#include "backend/backend.hpp"

#include "backend/cpu/backend.hpp"

#ifdef FAIRGPTQ_CUDA
#include <cstdlib>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#endif

namespace fairgptq {
namespace {

#ifdef FAIRGPTQ_CUDA
bool gpu_is_here() {
    return cuda::device_count() > 0;
}

/// Ranks of one node share its GPUs out by their number on the node, which every launcher tells in its own way.
int local_rank() {
    for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "MPI_LOCALRANKID"})
        if (const char* value = std::getenv(name)) return std::atoi(value);
    return 0;
}

std::unique_ptr<Backend> make_cuda(DType model_type) {
    const int devices = cuda::device_count();
    return std::make_unique<CudaBackend>(devices > 0 ? local_rank() % devices : 0, model_type);
}
#else
bool gpu_is_here() {
    return false;
}
std::unique_ptr<Backend> make_cuda(DType) {
    throw InvalidInput("this build has no CUDA backend; --device must be cpu or auto");
}
#endif

}  // namespace

std::unique_ptr<Backend> make_backend(const std::string& device, DType model_type) {
    if (device == "cuda" || (device == "auto" && gpu_is_here())) return make_cuda(model_type);
    if (device == "auto" || device == "cpu") return std::make_unique<CpuBackend>();
    throw InvalidInput("--device is \"{}\" but must be auto, cpu or cuda", device);
}

}  // namespace fairgptq
