// The GPU's kernels on the host, for machines without one: phases run as loops over threads in a chosen order, matrix
// products as plain loops. Their indexing, their edges and (but for TF32 and the like) their arithmetic are the GPU's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "backend/columns.hpp"
#include "backend/cuda/column_walk.hpp"
#include "backend/cuda/strips.hpp"
#include "backend/cuda/triangle_elements.hpp"

namespace fairgptq::testing {

template <class T>
cuda::Plain<T> plain(MatrixView<T> view) {
    return {view.data, view.rows, view.cols, view.stride};
}
template <class T>
cuda::Plain<const T> plain_const(MatrixView<T> view) {
    return {view.data, view.rows, view.cols, view.stride};
}

/// Runs a phase for every thread of a block. A phase that reads what another thread of it writes gives another result
/// in another order.
class HostThreads {
  public:
    enum class Order { forward, backward, shuffled };
    explicit HostThreads(Order order) : threads_(cuda::BlockShape::threads) {
        std::iota(threads_.begin(), threads_.end(), 0);
        if (order == Order::backward) std::reverse(threads_.begin(), threads_.end());
        if (order == Order::shuffled) std::shuffle(threads_.begin(), threads_.end(), std::mt19937(1));
    }
    template <class Phase>
    void operator()(const Phase& phase) const {
        for (const int thread : threads_)
            phase(thread);
    }

  private:
    std::vector<int> threads_;
};

/// On-chip memory as a block finds it: full of NaN.
template <class Memory>
std::unique_ptr<Memory> poisoned() {
    auto memory = std::make_unique<Memory>();
    std::memset(static_cast<void*>(memory.get()), 0xff, sizeof(Memory));
    return memory;
}

/// cuBLAS as plain loops, sums in order of the inner index.
struct HostProducts {
    static void multiply(cuda::Transpose transpose_a, cuda::Transpose transpose_b, float alpha,
                         MatrixView<const float> a, MatrixView<const float> b, float beta, MatrixView<float> c) {
        const bool turn_a = transpose_a == cuda::Transpose::yes;
        const bool turn_b = transpose_b == cuda::Transpose::yes;
        const std::int64_t inner = turn_a ? a.rows : a.cols;
        if ((turn_a ? a.cols : a.rows) != c.rows || (turn_b ? b.rows : b.cols) != c.cols ||
            (turn_b ? b.cols : b.rows) != inner)
            throw Failure("a product's sizes disagree");
        for (std::int64_t i = 0; i < c.rows; ++i)
            for (std::int64_t j = 0; j < c.cols; ++j) {
                float sum = beta == 0 ? 0 : beta * c(i, j);
                for (std::int64_t k = 0; k < inner; ++k)
                    sum = std::fma(alpha * (turn_a ? a(k, i) : a(i, k)), turn_b ? b(j, k) : b(k, j), sum);
                c(i, j) = sum;
            }
    }
    static void fixed_order(cuda::Transpose transpose_b, float alpha, MatrixView<const float> a,
                            MatrixView<const float> b, float beta, MatrixView<float> c) {
        multiply(cuda::Transpose::no, transpose_b, alpha, a, b, beta, c);
    }
    static void multiply_any(cuda::Transpose transpose_a, cuda::Transpose transpose_b, const TensorView& a,
                             const TensorView& b, float beta, const TensorView& c) {
        multiply(transpose_a, transpose_b, 1, a.float32(), b.float32(), beta, c.float32());
    }
    static void multiply_batch(float alpha, MatrixView<const float> a, std::int64_t stride_a, MatrixView<const float> b,
                               std::int64_t stride_b, MatrixView<float> c, std::int64_t stride_c, std::int64_t count) {
        for (std::int64_t one = 0; one < count; ++one) {
            multiply(cuda::Transpose::no, cuda::Transpose::no, alpha, a, b, 0, c);
            a.data += stride_a;
            b.data += stride_b;
            c.data += stride_c;
        }
    }
};

struct HostScratch {
    std::vector<float> memory;
    template <class T>
    MatrixView<T> matrix(std::int64_t rows, std::int64_t cols) {
        memory.assign(static_cast<std::size_t>(rows * cols), std::nanf(""));
        return {memory.data(), rows, cols};
    }
};

inline cuda::GridRule rule_of(const Grid& grid) {
    return {static_cast<float>((1 << grid.bits) - 1), grid.symmetric, grid.scale_search == ScaleSearch::mse,
            grid.scale_type == ScaleType::float16};
}

/// The launches of cuda/columns.cpp, as loops over blocks.
struct HostLaunches {
    const ColumnProblem& problem;
    HostThreads threads;
    std::vector<float> errors;
    std::int64_t panel;
    cuda::InsideScales inside;

    HostLaunches(const ColumnProblem& whole, HostThreads::Order order) : problem(whole), threads(order) {
        const bool finds = problem.scale_moment != ScaleMoment::given;
        const bool wide = finds && problem.grid.group_size > cuda::BlockShape::columns;
        inside = !finds || wide                                     ? cuda::InsideScales::none
                 : problem.scale_moment == ScaleMoment::block_start ? cuda::InsideScales::block_start
                                                                    : cuda::InsideScales::group_start;
        const std::int64_t wide_group = wide ? problem.grid.group_size : 0;
        panel = cuda::panel_columns(wide_group, problem.weights.cols);
        errors.assign(static_cast<std::size_t>(problem.weights.rows * panel), std::nanf(""));
        cuda::walk_columns(problem.weights.cols, wide_group, *this);
    }
    std::int64_t tiles() const { return cuda::ceil_div(problem.weights.rows, cuda::BlockShape::rows); }
    template <class T>
    static MatrixView<T> columns_of(MatrixView<T> matrix, cuda::Columns columns) {
        return matrix.block(0, columns.begin, matrix.rows, columns.count());
    }
    MatrixView<float> errors_of(cuda::Columns columns, std::int64_t panel_begin) {
        const MatrixView<float> all(errors.data(), problem.weights.rows, panel);
        return columns_of(all, {columns.begin - panel_begin, columns.end - panel_begin});
    }
    void find_scales(cuda::Columns group) const {
        for (std::int64_t tile = 0; tile < tiles(); ++tile)
            cuda::find_group_scales(threads, *poisoned<cuda::ScaleMemory>(),
                                    plain_const(columns_of(problem.weights, group)), rule_of(problem.grid), tile,
                                    problem.group_of_column[group.begin], plain(problem.scales), plain(problem.zeros));
    }
    void quantize(cuda::Columns columns, std::int64_t panel_begin) {
        cuda::ColumnBlock block;
        block.weights = plain(columns_of(problem.weights, columns));
        block.inverse = plain(problem.inverse.block(columns.begin, columns.begin, columns.count(), columns.count()));
        block.group_of_column = problem.group_of_column + columns.begin;
        block.codes = plain(columns_of(problem.codes, columns));
        block.scales = plain(problem.scales);
        block.zeros = plain(problem.zeros);
        block.errors = plain(errors_of(columns, panel_begin));
        block.rule = rule_of(problem.grid);
        block.inside = inside;
        block.group_size = inside == cuda::InsideScales::none ? 0 : static_cast<int>(problem.grid.group_size);
        for (std::int64_t tile = 0; tile < tiles(); ++tile)
            cuda::quantize_block(threads, *poisoned<cuda::BlockMemory>(), block, tile);
    }
    void spread(cuda::Columns from, cuda::Columns to, std::int64_t panel_begin) {
        HostProducts::fixed_order(cuda::Transpose::no, -1, errors_of(from, panel_begin),
                                  problem.inverse.block(from.begin, to.begin, from.count(), to.count()), 1,
                                  columns_of(problem.weights, to));
    }
};

}  // namespace fairgptq::testing
