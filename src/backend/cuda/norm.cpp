#include "backend/norm.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {
namespace {

void check_tensors(const char* operation, const TensorView& inputs, const TensorView& output) {
    if (output.rows != inputs.rows || output.cols != inputs.cols)
        throw Failure("{}: output [{}, {}] does not match inputs [{}, {}]", operation, output.rows, output.cols,
                      inputs.rows, inputs.cols);
    cuda::require_one_type(operation, inputs, output);
}

}  // namespace

void CudaBackend::rms_norm(TensorView inputs, const float* weight, float epsilon, TensorView output) {
    check_tensors("rms_norm", inputs, output);
    memory_.use();
    cuda::check(cuda::launch_norm(cuda::plain(inputs), weight, nullptr, epsilon, cuda::plain(output), stream()),
                "rms_norm");
}

void CudaBackend::layer_norm(TensorView inputs, const float* weight, const float* bias, float epsilon,
                             TensorView output) {
    check_tensors("layer_norm", inputs, output);
    if (bias == nullptr) throw Failure("layer_norm: a bias was expected");
    memory_.use();
    cuda::check(cuda::launch_norm(cuda::plain(inputs), weight, bias, epsilon, cuda::plain(output), stream()),
                "layer_norm");
}

}  // namespace fairgptq
