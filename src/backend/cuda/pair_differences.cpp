#include "backend/pair_differences.hpp"

#include <cstddef>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/matrix_kernels.hpp"

namespace fairgptq {

// The host's columns go to the device as they are.
static_assert(sizeof(PairColumn) == sizeof(cuda::PairTokens) &&
              offsetof(PairColumn, count0) == offsetof(cuda::PairTokens, count0) &&
              offsetof(PairColumn, first1) == offsetof(cuda::PairTokens, first1) &&
              offsetof(PairColumn, count1) == offsetof(cuda::PairTokens, count1));

void CudaBackend::pair_differences(TensorView inputs, std::span<const PairColumn> columns,
                                   MatrixView<float> differences) {
    const std::int64_t pairs = std::ssize(columns);
    if (differences.rows != pairs || differences.cols != inputs.cols)
        throw Failure("pair_differences: {} columns of {} features do not fit [{}, {}]", pairs, inputs.cols,
                      differences.rows, differences.cols);
    const auto check_tokens = [&](std::int32_t first, std::int32_t count) {
        if (first < 0 || count < 1 || first > inputs.rows - count)
            throw Failure("pair_differences: tokens {} and on, {} in number, are not in a chunk of {} tokens", first,
                          count, inputs.rows);
    };
    for (const PairColumn& column : columns) {
        check_tokens(column.first0, column.count0);
        check_tokens(column.first1, column.count1);
    }
    const auto* pairs_on_device = reinterpret_cast<const cuda::PairTokens*>(on_device(columns, indices_));
    cuda::check(cuda::launch_pair_differences(inputs.data, inputs.type, inputs.stride, pairs_on_device,
                                              cuda::plain(differences), stream()),
                "pair_differences");
}

}  // namespace fairgptq
