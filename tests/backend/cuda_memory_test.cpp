// A GPU's memory against the host's.
#include <gtest/gtest.h>

#include <vector>

#include "backend/cuda/check.hpp"
#include "backend/cuda/memory.hpp"
#include "support/half.hpp"

namespace fairgptq {
namespace {

class CudaMemoryTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (cuda::device_count() == 0) GTEST_SKIP() << "this machine has no GPU";
    }
};

TEST_F(CudaMemoryTest, CopiesZeroesAndReturnsBytes) {
    cuda::Memory memory(0);
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{1} << 20U}) {
        std::vector<std::uint32_t> values(count), back(count, 7);
        for (std::size_t i = 0; i < count; ++i)
            values[i] = static_cast<std::uint32_t>(i * 2654435761U);
        const std::size_t bytes = count * sizeof(std::uint32_t);
        const Buffer a = memory.allocate(bytes), b = memory.allocate(bytes);
        memory.copy_to_device(a.data(), values.data(), bytes);
        memory.copy_on_device(b.data(), a.data(), bytes);
        memory.copy_to_host(back.data(), b.data(), bytes);
        EXPECT_EQ(back, values);
        memory.zero(b.data(), bytes);
        memory.copy_to_host(back.data(), b.data(), bytes);
        EXPECT_EQ(back, std::vector<std::uint32_t>(count, 0));
    }
}

TEST_F(CudaMemoryTest, UploadsEveryHalfExactlyIntoStridedRows) {
    cuda::Memory memory(0);
    constexpr std::int64_t rows = 64, cols = 1024, stride = 1030;
    std::vector<std::uint16_t> halves(rows * cols);
    for (std::size_t i = 0; i < halves.size(); ++i)
        halves[i] = static_cast<std::uint16_t>(i);
    const Buffer device = memory.allocate(rows * stride * sizeof(float));
    memory.zero(device.data(), device.bytes());
    TensorView view(MatrixView<float>(device.as<float>(), rows, cols, stride));
    memory.upload(view, halves.data(), DType::float16);
    std::vector<float> back(rows * stride);
    memory.copy_to_host(back.data(), device.data(), device.bytes());
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < stride; ++c) {
            const float expected = c < cols ? to_float(Float16{halves[static_cast<std::size_t>(r * cols + c)]}) : 0.0F;
            const float found = back[static_cast<std::size_t>(r * stride + c)];
            if (expected == expected)
                ASSERT_EQ(found, expected) << r << ", " << c;
            else
                ASSERT_NE(found, found) << r << ", " << c;
        }
}

TEST_F(CudaMemoryTest, RefusesMoreThanThereIs) {
    cuda::Memory memory(0);
    EXPECT_THROW(memory.allocate(std::size_t{1} << 50U), Failure);
    EXPECT_THROW(cuda::Memory{cuda::device_count()}, Failure);
}

}  // namespace
}  // namespace fairgptq
