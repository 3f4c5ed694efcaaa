// The same cases run on every backend that this build and this machine have. Host data is first rounded to the
// backend's element type, so that the reference and the backend start from the same numbers.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.hpp"

namespace fairgptq::testing {

/// Half the distance from 1 to the next number: the relative error of one rounding.
constexpr double unit_roundoff(DType type) {
    if (type == DType::float16) return 0x1p-11;
    if (type == DType::bfloat16) return 0x1p-8;
    return 0x1p-24;
}
constexpr double float32_roundoff = unit_roundoff(DType::float32);

inline std::vector<std::string> available_backends() {
    std::vector<std::string> names{"cpu"};
    try {
        make_backend("cuda");
        names.emplace_back("cuda");
    } catch (const InvalidInput&) {  // DeviceTest.CudaIsHere shows it as a skipped case
    }
    return names;
}

/// The same, and what a GPU computes models of other types with.
inline std::vector<std::string> available_backends_and_types() {
    std::vector<std::string> names = available_backends();
    if (names.size() > 1) names.insert(names.end(), {"cuda_float16", "cuda_float32"});
    return names;
}
inline std::unique_ptr<Backend> make_named(const std::string& name) {
    if (name == "cuda_float16") return make_backend("cuda", 0, DType::float16);
    if (name == "cuda_float32") return make_backend("cuda", 0, DType::float32);
    return make_backend(name);
}

/// A matrix on the host.
struct HostMatrix {
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::vector<float> values;

    HostMatrix() = default;
    HostMatrix(std::int64_t row_count, std::int64_t col_count, float value = 0)
        : rows(row_count), cols(col_count), values(static_cast<std::size_t>(row_count * col_count), value) {}
    float& operator()(std::int64_t row, std::int64_t col) { return values[static_cast<std::size_t>(row * cols + col)]; }
    float operator()(std::int64_t row, std::int64_t col) const {
        return values[static_cast<std::size_t>(row * cols + col)];
    }
    MatrixView<const float> view() const { return {values.data(), rows, cols}; }
};

/// Normally distributed.
inline HostMatrix random_matrix(std::int64_t rows, std::int64_t cols, unsigned seed, float deviation = 1) {
    HostMatrix matrix(rows, cols);
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0, deviation);
    std::generate(matrix.values.begin(), matrix.values.end(), [&] { return normal(generator); });
    return matrix;
}

/// Whole numbers from −3 to 3: sums of their products are exact in every type, in any order.
inline HostMatrix integer_matrix(std::int64_t rows, std::int64_t cols, unsigned seed) {
    HostMatrix matrix(rows, cols);
    std::mt19937 generator(seed);
    std::generate(matrix.values.begin(), matrix.values.end(),
                  [&] { return static_cast<float>(static_cast<int>(generator() % 7) - 3); });
    return matrix;
}

inline HostMatrix magnitudes(HostMatrix matrix) {
    for (float& value : matrix.values)
        value = std::fabs(value);
    return matrix;
}

/// A matrix on the device, with rows further apart than they are long if `gap` is not 0.
struct DeviceMatrix {
    Buffer buffer;
    TensorView view;
};

class BackendTest : public ::testing::TestWithParam<std::string> {
  protected:
    BackendTest() : backend(make_named(GetParam())), type(backend->activation_type()) {}

    std::unique_ptr<Backend> backend;
    DType type;  // of activations

    HostMatrix rounded(HostMatrix matrix) const {
        for (float& value : matrix.values) {
            if (type == DType::float16) value = to_float(to_half(value));
            if (type == DType::bfloat16) value = to_float(to_bfloat16(value));
        }
        return matrix;
    }

    DeviceMatrix device_matrix(std::int64_t rows, std::int64_t cols, DType element_type, std::int64_t gap = 0) const {
        const auto bytes = static_cast<std::size_t>(rows * (cols + gap)) * size_of(element_type);
        DeviceMatrix result{backend->allocate(bytes), {}};
        backend->zero(result.buffer.data(), bytes);
        result.view = result.buffer.tensor(element_type, rows, cols + gap).cols_from(0, cols);
        return result;
    }
    DeviceMatrix upload(const HostMatrix& matrix, DType element_type, std::int64_t gap = 0) const {
        DeviceMatrix result = device_matrix(matrix.rows, matrix.cols, element_type, gap);
        backend->upload(result.view, matrix.values.data(), DType::float32);
        return result;
    }
    DeviceMatrix upload(const HostMatrix& matrix) const { return upload(matrix, type, 3); }
    DeviceMatrix upload_float32(const HostMatrix& matrix) const { return upload(matrix, DType::float32); }

    template <class T>
    Buffer upload_vector(const std::vector<T>& values) const {
        Buffer buffer = backend->allocate(values.size() * sizeof(T));
        backend->copy_to_device(buffer.data(), values.data(), values.size() * sizeof(T));
        return buffer;
    }
    template <class T>
    std::vector<T> download_vector(const Buffer& buffer) const {
        std::vector<T> values(buffer.bytes() / sizeof(T));
        backend->synchronize();
        backend->copy_to_host(values.data(), buffer.data(), buffer.bytes());
        return values;
    }
    HostMatrix download(TensorView view) const {
        HostMatrix matrix(view.rows, view.cols);
        backend->synchronize();
        std::vector<std::uint16_t> halves(static_cast<std::size_t>(view.cols));
        for (std::int64_t row = 0; row < view.rows; ++row) {
            float* values = matrix.values.data() + row * view.cols;
            if (view.type == DType::float32) {
                backend->copy_to_host(values, view.row(row), halves.size() * sizeof(float));
                continue;
            }
            backend->copy_to_host(halves.data(), view.row(row), halves.size() * sizeof(std::uint16_t));
            for (std::size_t col = 0; col < halves.size(); ++col)
                values[col] =
                    view.type == DType::float16 ? to_float(Float16{halves[col]}) : to_float(BFloat16{halves[col]});
        }
        return matrix;
    }
};

/// Compares element by element; `bound(row, col)` is the largest difference allowed there.
template <class Expected, class Bound>
void expect_near(const HostMatrix& actual, const Expected& expected, const Bound& bound) {
    ASSERT_EQ(actual.rows, expected.rows);
    ASSERT_EQ(actual.cols, expected.cols);
    for (std::int64_t row = 0; row < actual.rows; ++row)
        for (std::int64_t col = 0; col < actual.cols; ++col)
            ASSERT_NEAR(actual(row, col), expected(row, col), bound(row, col)) << "row " << row << ", column " << col;
}

}  // namespace fairgptq::testing

/// Runs a TEST_P suite on every backend there is.
#define FAIRGPTQ_ON_BACKENDS(suite)                                                                           \
    INSTANTIATE_TEST_SUITE_P(Backends, suite, ::testing::ValuesIn(::fairgptq::testing::available_backends()), \
                             [](const auto& param_info) { return param_info.param; })

/// And with every element type that activations may have there.
#define FAIRGPTQ_ON_BACKENDS_AND_TYPES(suite)                                                          \
    INSTANTIATE_TEST_SUITE_P(Backends, suite,                                                          \
                             ::testing::ValuesIn(::fairgptq::testing::available_backends_and_types()), \
                             [](const auto& param_info) { return param_info.param; })
