#include "backend/dequantize.hpp"

#include "backends.hpp"
#include "reference/dequantize.hpp"

namespace fairgptq::testing {
namespace {

class DequantizeTest : public BackendTest {};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(DequantizeTest);

TEST_P(DequantizeTest, ScalesCodesByTheirColumnsGroup) {
    for (const std::int64_t rows : {0, 1, 3})
        for (const std::int64_t cols : {1, 15, 16, 17, 300}) {
            constexpr std::int64_t groups = 5;
            const HostMatrix scales = random_matrix(rows, groups, 1);
            std::vector<std::uint8_t> codes;
            std::vector<std::uint8_t> zeros;
            std::vector<std::int32_t> group_index;
            for (std::int64_t i = 0; i < rows * cols; ++i)
                codes.push_back(static_cast<std::uint8_t>(i * 31));
            for (std::int64_t i = 0; i < rows * groups; ++i)
                zeros.push_back(static_cast<std::uint8_t>(i * 57));
            for (std::int64_t i = 0; i < cols; ++i)
                group_index.push_back(static_cast<std::int32_t>(i * 7 % groups));
            const Buffer device_codes = upload_vector(codes);
            const Buffer device_zeros = upload_vector(zeros);
            const Buffer device_groups = upload_vector(group_index);
            const DeviceMatrix device_scales = upload_float32(scales);
            const DeviceMatrix weights = device_matrix(rows, cols, type, 2);
            backend->dequantize(device_codes.matrix<const std::uint8_t>(rows, cols), device_scales.view.float32(),
                                device_zeros.matrix<const std::uint8_t>(rows, groups), device_groups.as<std::int32_t>(),
                                weights.view);
            const reference::Matrix expected = reference::dequantize({codes.data(), rows, cols}, scales.view(),
                                                                     {zeros.data(), rows, groups}, group_index.data());
            // The difference of codes is exact; the product is rounded to float32 and to the weights' type.
            expect_near(download(weights.view), expected, [&](std::int64_t row, std::int64_t col) {
                return (float32_roundoff + unit_roundoff(type)) * std::fabs(expected(row, col));
            });
        }
}

TEST_P(DequantizeTest, WhatDoesNotFitIsRefused) {
    const Buffer codes = upload_vector(std::vector<std::uint8_t>(6));
    const Buffer zeros = upload_vector(std::vector<std::uint8_t>(4));
    const Buffer groups = upload_vector(std::vector<std::int32_t>{0, 1, 0});
    const DeviceMatrix scales = device_matrix(2, 2, DType::float32);
    const DeviceMatrix weights = device_matrix(2, 3, type);
    const auto run = [&](std::int64_t code_rows, std::int64_t zero_cols, TensorView to) {
        backend->dequantize(codes.matrix<const std::uint8_t>(code_rows, 3), scales.view.float32(),
                            zeros.matrix<const std::uint8_t>(2, zero_cols), groups.as<std::int32_t>(), to);
    };
    EXPECT_NO_THROW(run(2, 2, weights.view));
    EXPECT_THROW(run(1, 2, weights.view), Failure);
    EXPECT_THROW(run(2, 1, weights.view), Failure);
    EXPECT_THROW(run(2, 2, weights.view.cols_from(0, 2)), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
