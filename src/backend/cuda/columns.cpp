// The column loop: a kernel for each block of 128 columns (column_block.cuh), and products for what lies behind it. A
// block's errors go at once to the rest of its panel of 1024 columns, and a panel's to everything behind the panel, so
// that nearly all arithmetic is in products of inner size 1024, which read and write the weights eight times less.
#include "backend/columns.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/column_walk.hpp"
#include "backend/cuda/columns_kernels.hpp"

namespace fairgptq {
namespace {

using cuda::BlockShape;
using cuda::Columns;
using cuda::InsideScales;

cuda::GridRule rule_of(const Grid& grid) {
    return {static_cast<float>((1 << grid.bits) - 1), grid.symmetric, grid.scale_search == ScaleSearch::mse,
            grid.scale_type == ScaleType::float16};
}

/// The launches of one problem.
struct Launches {
    const ColumnProblem& problem;
    cuda::Products& products;
    MatrixView<float> errors;  // of one panel
    InsideScales inside;
    cudaStream_t stream;

    template <class T>
    static MatrixView<T> columns_of(MatrixView<T> matrix, Columns columns) {
        return matrix.block(0, columns.begin, matrix.rows, columns.count());
    }

    void find_scales(Columns group) const {
        cuda::check(cuda::launch_find_scales(cuda::plain_const(columns_of(problem.weights, group)), group.count(),
                                             rule_of(problem.grid), problem.group_of_column + group.begin,
                                             cuda::plain(problem.scales), cuda::plain(problem.zeros), stream),
                    "find_scales (of a group wider than a block)");
    }
    void quantize(Columns columns, std::int64_t panel_begin) const {
        cuda::ColumnBlock block;
        block.weights = cuda::plain(columns_of(problem.weights, columns));
        block.inverse =
            cuda::plain(problem.inverse.block(columns.begin, columns.begin, columns.count(), columns.count()));
        block.group_of_column = problem.group_of_column + columns.begin;
        block.codes = cuda::plain(columns_of(problem.codes, columns));
        block.scales = cuda::plain(problem.scales);
        block.zeros = cuda::plain(problem.zeros);
        block.errors = cuda::plain(columns_of(errors, {columns.begin - panel_begin, columns.end - panel_begin}));
        block.rule = rule_of(problem.grid);
        block.inside = inside;
        block.group_size = inside == InsideScales::none ? 0 : static_cast<int>(problem.grid.group_size);
        cuda::check(cuda::launch_column_block(block, stream), "column_block");
    }
    void spread(Columns from, Columns to, std::int64_t panel_begin) const {
        products.fixed_order(
            cuda::Transpose::no, -1, columns_of(errors, {from.begin - panel_begin, from.end - panel_begin}),
            problem.inverse.block(from.begin, to.begin, from.count(), to.count()), 1, columns_of(problem.weights, to));
    }
};

}  // namespace

void CudaBackend::quantize_columns(const ColumnProblem& problem) {
    const std::int64_t n = problem.weights.cols;
    const std::int64_t group_size = problem.grid.group_size;
    const bool finds = problem.scale_moment != ScaleMoment::given;
    if (problem.inverse.rows != n || problem.inverse.cols != n)
        throw Failure("quantize_columns: {} columns need an inverse of that size, not {} x {}", n, problem.inverse.rows,
                      problem.inverse.cols);
    if (finds && !cuda::groups_fit(group_size, n))
        throw Failure("quantize_columns: groups of {} columns do not fit {} columns in blocks of {}", group_size, n,
                      BlockShape::columns);
    if (problem.weights.empty()) return;
    memory_.use();
    const bool wide = finds && group_size > BlockShape::columns;
    const InsideScales inside = !finds || wide                                     ? InsideScales::none
                                : problem.scale_moment == ScaleMoment::block_start ? InsideScales::block_start
                                                                                   : InsideScales::group_start;
    const std::int64_t wide_group = wide ? group_size : 0;
    Launches launches{problem, products_,
                      first_.matrix<float>(problem.weights.rows, cuda::panel_columns(wide_group, n)), inside, stream()};
    cuda::walk_columns(n, wide_group, launches);
}

void CudaBackend::find_scales(MatrixView<const float> weights, const Grid& grid, MatrixView<float> scales,
                              MatrixView<std::uint8_t> zeros) {
    const std::int64_t size = grid.group_size;
    if (size < 1 || scales.cols * size != weights.cols)
        throw Failure("find_scales: {} groups of {} columns are not {} columns", scales.cols, size, weights.cols);
    memory_.use();
    cuda::check(cuda::launch_find_scales(cuda::plain(weights), size, rule_of(grid), nullptr, cuda::plain(scales),
                                         cuda::plain(zeros), stream()),
                "find_scales");
}

}  // namespace fairgptq
