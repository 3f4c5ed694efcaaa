#include "backend/scatter.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {

void CudaBackend::scatter_rows(TensorView inputs, std::span<const std::int32_t> ids, std::span<const float> factors,
                               TensorView output) {
    if (std::ssize(ids) != inputs.rows || factors.size() != ids.size() || output.cols != inputs.cols)
        throw Failure("scatter_rows: {} ids and {} factors of [{}, {}] do not fit [{}, {}]", ids.size(), factors.size(),
                      inputs.rows, inputs.cols, output.rows, output.cols);
    cuda::require_one_type("scatter_rows", inputs, output);
    for (const std::int32_t id : ids)
        if (id < 0 || id >= output.rows) throw Failure("scatter_rows: {} is not one of {} rows", id, output.rows);
    memory_.use();
    const std::int32_t* device_ids = on_device(ids, indices_);
    const float* device_factors = on_device(factors, first_);
    cuda::check(
        cuda::launch_scatter_rows(cuda::plain(inputs), device_ids, device_factors, cuda::plain(output), stream()),
        "scatter_rows");
}

}  // namespace fairgptq
