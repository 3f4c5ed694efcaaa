#include "solver/matrix_case.hpp"

#include <algorithm>
#include <cmath>

#include "support/error.hpp"
#include "support/hdf5.hpp"

namespace fairgptq {
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) {
    std::string text;
    for (const std::int64_t extent : shape)
        text += (text.empty() ? "" : " x ") + std::to_string(extent);
    return text;
}

void expect_shape(const h5::Group& root, const std::string& name, const std::vector<std::int64_t>& expected) {
    const std::vector<std::int64_t> shape = root.shape(name);
    if (shape != expected)
        throw InvalidInput("{}:/{} is {}; with this W it must be {}", root.where(), name, shape_text(shape),
                           shape_text(expected));
}

void check_finite(const std::vector<float>& values, const std::string& what) {
    const auto bad = std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
    if (bad != values.end())
        throw InvalidInput("{} holds {} at element {}; all its numbers must be finite", what, *bad,
                           bad - values.begin());
}

void check_second_moments(const std::vector<float>& matrix, std::int64_t n, const std::string& what) {
    check_finite(matrix, what);
    float largest = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        if (matrix[i * n + i] < 0) throw InvalidInput("{} has a negative diagonal element in row {}", what, i);
        largest = std::max(largest, matrix[i * n + i]);
    }
    // Its two triangles may have been summed in another order: n additions in float32, far below this.
    constexpr float tolerance = 1e-3F;
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < i; ++j)
            if (!(std::fabs(matrix[i * n + j] - matrix[j * n + i]) <= tolerance * largest))
                throw InvalidInput("{} is not symmetric: elements ({}, {}) and ({}, {}) differ", what, i, j, j, i);
}

/// (2/rows) · XᵀX of rows × cols inputs, in the file's float32 whatever the device's activations are.
std::vector<float> second_moments(Backend& backend, const std::vector<float>& inputs, std::int64_t cols) {
    const std::int64_t rows = static_cast<std::int64_t>(inputs.size()) / cols;
    const Buffer device = backend.allocate(inputs.size() * sizeof(float));
    const Buffer scratch = backend.allocate(static_cast<std::size_t>(cols * cols) * sizeof(float));
    const Buffer sum = backend.allocate(static_cast<std::size_t>(PackedLower<double>::elements(cols)) * sizeof(double));
    const TensorView view = device.tensor(DType::float32, rows, cols);
    backend.upload(view, inputs.data(), DType::float32);
    backend.zero(sum.data(), sum.bytes());
    backend.accumulate_gram(view, scratch.matrix<float>(cols, cols), {sum.as<double>(), cols});
    backend.finish_gram({sum.as<double>(), cols}, 2.0 / static_cast<double>(rows), scratch.matrix<float>(cols, cols));
    std::vector<float> result(static_cast<std::size_t>(cols * cols));
    backend.copy_to_host(result.data(), scratch.data(), scratch.bytes());
    return result;
}

/// H of all tokens, C of the differences of the pairs' tokens at equal positions.
void moments_of_pairs(const h5::Group& root, Backend& backend, MatrixCase& matrix_case) {
    const std::vector<float> inputs = root.read<float>("X", 4);
    const std::vector<std::int64_t> shape = root.shape("X");
    if (shape[1] != 2 || shape[3] != matrix_case.cols || inputs.empty())
        throw InvalidInput("{}:/X is {}; with this W it must be pairs x 2 x tokens x {}, none of them 0", root.where(),
                           shape_text(shape), matrix_case.cols);
    check_finite(inputs, root.where() + ":/X");
    const std::int64_t sentence = shape[2] * shape[3];
    std::vector<float> differences(static_cast<std::size_t>(shape[0] * sentence));
    for (std::int64_t pair = 0; pair < shape[0]; ++pair) {
        const float* first = inputs.data() + pair * 2 * sentence;
        for (std::int64_t i = 0; i < sentence; ++i)
            differences[pair * sentence + i] = first[i] - first[sentence + i];
    }
    matrix_case.hessian = second_moments(backend, inputs, matrix_case.cols);
    matrix_case.covariance = second_moments(backend, differences, matrix_case.cols);
}

}  // namespace

MatrixCase read_case(const std::filesystem::path& file, Backend& backend) {
    const h5::File opened = h5::File::open(file);
    const h5::Group& root = opened.root();
    MatrixCase matrix_case;
    matrix_case.weights = root.read<float>("W", 2);
    matrix_case.rows = root.shape("W")[0];
    matrix_case.cols = root.shape("W")[1];
    if (matrix_case.weights.empty()) throw InvalidInput("{}:/W is empty", root.where());
    if (root.has("X")) {
        if (root.has("H") || root.has("C"))
            throw InvalidInput("{} has X and also H or C; it must have either X, or H and C", root.where());
        moments_of_pairs(root, backend, matrix_case);
    } else {
        if (!root.has("H")) throw InvalidInput("{} has neither H (and C) nor X beside its W", root.where());
        expect_shape(root, "H", {matrix_case.cols, matrix_case.cols});
        matrix_case.hessian = root.read<float>("H", 2);
        if (root.has("C")) {
            expect_shape(root, "C", {matrix_case.cols, matrix_case.cols});
            matrix_case.covariance = root.read<float>("C", 2);
        }
    }
    check_case(matrix_case, root.where() + ":/");
    return matrix_case;
}

void check_case(const MatrixCase& matrix_case, const std::string& where) {
    const auto count = [](std::int64_t rows, std::int64_t cols) {
        return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
    };
    if (matrix_case.rows < 1 || matrix_case.cols < 1 ||
        matrix_case.weights.size() != count(matrix_case.rows, matrix_case.cols))
        throw InvalidInput("{}W has {} values, which are not {} rows of {}", where, matrix_case.weights.size(),
                           matrix_case.rows, matrix_case.cols);
    const std::size_t square = count(matrix_case.cols, matrix_case.cols);
    if (matrix_case.hessian.size() != square)
        throw InvalidInput("{}H has {} values; {} columns of W need {}", where, matrix_case.hessian.size(),
                           matrix_case.cols, square);
    if (!matrix_case.covariance.empty() && matrix_case.covariance.size() != square)
        throw InvalidInput("{}C has {} values; {} columns of W need {}", where, matrix_case.covariance.size(),
                           matrix_case.cols, square);
    check_finite(matrix_case.weights, where + "W");
    check_second_moments(matrix_case.hessian, matrix_case.cols, where + "H");
    if (!matrix_case.covariance.empty()) check_second_moments(matrix_case.covariance, matrix_case.cols, where + "C");
}

ModuleSolution solve_case(Backend& backend, const MatrixCase& matrix_case, const std::string& name, double alpha,
                          const SolverSettings& settings) {
    const std::int64_t n = matrix_case.cols;
    const auto on_device = [&](const std::vector<float>& values) {
        Buffer buffer = backend.allocate(values.size() * sizeof(float));
        backend.copy_to_device(buffer.data(), values.data(), buffer.bytes());
        return buffer;
    };
    const Buffer weights = on_device(matrix_case.weights);
    const Buffer hessian = on_device(matrix_case.hessian);
    const Buffer covariance = on_device(matrix_case.covariance);
    StageProblem problem;
    problem.hessian = hessian.matrix<const float>(n, n);
    if (!matrix_case.covariance.empty()) problem.covariance = covariance.matrix<const float>(n, n);
    problem.modules.push_back({name, weights.tensor(DType::float32, matrix_case.rows, n), alpha});
    StageOptions options;
    options.keep_target = true;
    return std::move(solve_stage(backend, *make_single_rank(), problem, settings, options).front());
}

void write_result(const std::filesystem::path& file, const ModuleSolution& solution) {
    const std::vector<std::int64_t> matrix{solution.rows, solution.cols};
    const std::vector<std::int64_t> groups{solution.rows, solution.groups};
    h5::File result = h5::File::create(file);
    const h5::Group& root = result.root();
    root.write("Q", dequantized(solution), matrix);
    root.write("codes", solution.codes, matrix);
    if (solution.scales_float32) {
        root.write("scales", solution.scales, groups);
    } else {
        root.write_half("scales", solution.scales, groups);
    }
    root.write("zeros", solution.zeros, groups);
    root.write("group_index", solution.group_index, {solution.cols});
    root.write("target", solution.target, matrix);
    root.write("column_sensitivity", solution.column_sensitivity, {solution.cols});
    root.set("rows", solution.rows);
    root.set("cols", solution.cols);
    root.set("bits", solution.bits);
    root.set("group_size", solution.group_size);
    root.set("sym", solution.symmetric);
    for (const auto& [name, member] : module_figures)
        root.set(name, solution.*member);
    result.seal();
}

}  // namespace fairgptq
