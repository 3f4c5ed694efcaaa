// The one way to start a kernel: as a call of CUDA's runtime that says whether it was accepted. Nothing else in a .cu
// file needs nvcc's grammar, so the tests compile the same sources for an emulation of CUDA on the host.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace fairgptq::cuda {

struct Launch {
    dim3 grid, block;
    std::size_t on_chip = 0;  // bytes of dynamic shared memory (on_chip.cuh)
    cudaStream_t stream = nullptr;
};

template <class... Parameters, class... Arguments>
cudaError_t launch(const Launch& how, void (*kernel)(Parameters...), Arguments&&... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = how.grid;
    config.blockDim = how.block;
    config.dynamicSmemBytes = how.on_chip;
    config.stream = how.stream;
    return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace fairgptq::cuda
