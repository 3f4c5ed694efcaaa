#include "backend/cuda/backend.hpp"

#include <array>

#include "backend/cuda/check.hpp"
#include "backend/cuda/columns_kernels.hpp"
#include "backend/cuda/solver.hpp"

namespace fairgptq {
namespace {

int existing(int device) {
    const int count = cuda::device_count();
    if (count == 0)
        throw InvalidInput("--device is cuda, but there is no GPU here that CUDA can use ({}); use --device cpu",
                           cuda::why_no_device());
    if (device < 0 || device >= count)
        throw InvalidInput("GPU {} was asked for, but this process sees {}", device, count);
    return device;
}

}  // namespace

CudaBackend::CudaBackend(int device, DType activation_type, const Sizes& sizes)
    : memory_(existing(device)),
      activation_type_(activation_type),
      factor_panel_(sizes.factor_panel),
      shared_least_(sizes.shared_least),
      inverse_(sizes.inverse),
      products_(memory_, sizes.split),
      solver_(std::make_unique<Solver>(memory_)) {
    cuda::check(cuda::prepare_column_kernel(), "cudaFuncSetAttribute (column kernel's on-chip memory)");
}

CudaBackend::~CudaBackend() = default;

std::string CudaBackend::name() const {
    cudaDeviceProp properties{};
    cuda::check(cudaGetDeviceProperties(&properties, memory_.device()), "cudaGetDeviceProperties");
    return std::string("cuda: ") + properties.name;
}

std::string CudaBackend::physical_device() const {
    std::array<char, 32> bus_id{};
    cuda::check(cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), memory_.device()),
                "cudaDeviceGetPCIBusId");
    return bus_id.data();
}

}  // namespace fairgptq
