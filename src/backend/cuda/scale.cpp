#include "backend/scale.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {

void CudaBackend::scale(TensorView inputs, float factor, TensorView output, bool accumulate) {
    if (output.rows != inputs.rows || output.cols != inputs.cols)
        throw Failure("scale: [{}, {}] and [{}, {}] should be the same size", inputs.rows, inputs.cols, output.rows,
                      output.cols);
    cuda::require_one_type("scale", inputs, output);
    memory_.use();
    cuda::check(cuda::launch_scale(cuda::plain(inputs), factor, cuda::plain(output), accumulate, stream()), "scale");
}

}  // namespace fairgptq
