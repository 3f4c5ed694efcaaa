// A gather of table rows.
#include "backend/embedding.hpp"

#include <algorithm>

#include "backend/cpu/backend.hpp"

namespace fairgptq {

void CpuBackend::embed(TensorView table, std::span<const std::int32_t> ids, TensorView output, bool accumulate) {
    const auto tokens = static_cast<std::int64_t>(ids.size());
    if (output.rows != tokens || output.cols != table.cols)
        throw Failure("embed: {} rows of a [{}, {}] table do not fit [{}, {}]", tokens, table.rows, table.cols,
                      output.rows, output.cols);
    for (const std::int32_t id : ids)
        if (id < 0 || id >= table.rows)
            throw InvalidInput("token or position {} is not in an embedding of {} entries", id, table.rows);
    const MatrixView<const float> entries = table.float32();
    const MatrixView<float> y = output.float32();
#pragma omp parallel for schedule(static)
    for (std::int64_t token = 0; token < tokens; ++token) {
        const float* from = entries.row(ids[static_cast<std::size_t>(token)]);
        float* to = y.row(token);
        if (accumulate) {
#pragma omp simd
            for (std::int64_t col = 0; col < y.cols; ++col)
                to[col] += from[col];
        } else {
            std::copy_n(from, y.cols, to);
        }
    }
}

}  // namespace fairgptq
