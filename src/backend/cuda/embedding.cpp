#include "backend/embedding.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {

void CudaBackend::embed(TensorView table, std::span<const std::int32_t> ids, TensorView output, bool accumulate) {
    const std::int64_t tokens = std::ssize(ids);
    if (output.rows != tokens || output.cols != table.cols)
        throw Failure("embed: {} rows of a [{}, {}] table do not fit [{}, {}]", tokens, table.rows, table.cols,
                      output.rows, output.cols);
    cuda::require_one_type("embed", table, output);
    for (const std::int32_t id : ids)
        if (id < 0 || id >= table.rows)
            throw InvalidInput("token or position {} is not in an embedding of {} entries", id, table.rows);
    const std::int32_t* device_ids = on_device(ids, indices_);
    cuda::check(cuda::launch_embed(cuda::plain(table), device_ids, cuda::plain(output), accumulate, stream()), "embed");
}

}  // namespace fairgptq
