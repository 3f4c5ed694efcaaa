// Picks the device of a run. A build with CUDA adds its backend here.
#include "backend/backend.hpp"

#include "backend/cpu/backend.hpp"

namespace fairgptq {

std::unique_ptr<Backend> make_backend(const std::string& device) {
    if (device == "auto" || device == "cpu") return std::make_unique<CpuBackend>();
    if (device == "cuda") throw InvalidInput("this build has no CUDA backend; --device must be cpu or auto");
    throw InvalidInput("--device is \"{}\" but must be auto, cpu or cuda", device);
}

}  // namespace fairgptq
