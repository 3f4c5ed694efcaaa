#include "backend/convolution.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/convolution_kernels.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {

void CudaBackend::convolve(TensorView inputs, const float* weights, std::int64_t width,
                           std::span<const std::int32_t> previous, bool silu, TensorView output) {
    check_convolution(inputs, width, previous, output);
    cuda::require_one_type("convolve", inputs, output);
    memory_.use();
    const std::int32_t* device_previous = on_device(previous, indices_);
    cuda::check(cuda::launch_convolution(cuda::plain(inputs), weights, width, device_previous, silu,
                                         cuda::plain(output), stream()),
                "convolve");
}

}  // namespace fairgptq
