// Which attention the tensor cores' kernel does (attention_test.cpp has both compared with plain loops).
#include <gtest/gtest.h>

#include "backend/cuda/attention_kernels.hpp"

namespace fairgptq::testing {
namespace {

/// Never read.
cuda::PlainTensor tensor(DType type, std::int64_t stride, std::uintptr_t address = 4096) {
    return {reinterpret_cast<void*>(address), type, 10, stride, stride};
}
int queries(const cuda::PlainTensor& one, const cuda::PlainAttention& shape) {
    return cuda::queries_of_tile(one, one, one, shape, one);
}

TEST(TiledAttention, TakesHeadsOfSixteenBitElementsInWholePieces) {
    const cuda::PlainAttention shape{4, 4, 64, 0, 1, 0, 64, 64};
    EXPECT_EQ(queries(tensor(DType::bfloat16, 256), shape), 128);
    EXPECT_EQ(queries(tensor(DType::float16, 264), shape), 128);
    EXPECT_EQ(queries(tensor(DType::float32, 256), shape), 0);
    EXPECT_EQ(queries(tensor(DType::bfloat16, 260), shape), 0);
    EXPECT_EQ(queries(tensor(DType::bfloat16, 256, 4104), shape), 0);
    const cuda::PlainTensor good = tensor(DType::bfloat16, 256);
    const cuda::PlainTensor bad = tensor(DType::bfloat16, 257);
    EXPECT_EQ(cuda::queries_of_tile(good, bad, good, shape, good), 0);
    EXPECT_EQ(cuda::queries_of_tile(good, good, bad, shape, good), 0);
    EXPECT_EQ(cuda::queries_of_tile(good, good, good, shape, bad), 0);
}

TEST(TiledAttention, TakesAnyWidthOfWholePiecesUpTo256) {
    const auto of_width = [](std::int64_t width) {
        return queries(tensor(DType::bfloat16, 4 * width), {4, 4, width, 0, 1, 0, width, width});
    };
    for (const std::int64_t width : {8, 16, 80, 96, 104, 128})
        EXPECT_EQ(of_width(width), 128) << width;
    for (const std::int64_t width : {136, 192, 256})
        EXPECT_EQ(of_width(width), 64) << width;
    for (const std::int64_t width : {4, 20, 100, 264})
        EXPECT_EQ(of_width(width), 0) << width;
}

TEST(TiledAttention, TakesValuesOfWholePiecesOnly) {
    const auto of_values = [](std::int64_t value_dim, std::int64_t value_step) {
        return queries(tensor(DType::bfloat16, 1024), {4, 4, 192, 0, 1, 0, value_dim, value_step});
    };
    EXPECT_EQ(of_values(128, 256), 64);
    EXPECT_EQ(of_values(128, 128), 64);
    EXPECT_EQ(of_values(100, 256), 0);
    EXPECT_EQ(of_values(128, 250), 0);
}

TEST(TiledAttention, LooksForTheLargestScoreBeforeScaling) {
    EXPECT_EQ(queries(tensor(DType::bfloat16, 256), {4, 4, 64, 0, 0, 0, 64, 64}), 0);
    EXPECT_EQ(queries(tensor(DType::bfloat16, 256), {4, 4, 64, 0, -1, 0, 64, 64}), 0);
}

}  // namespace
}  // namespace fairgptq::testing
