#include "backend/memory.hpp"

#include <limits>

#include "backends.hpp"
#include "support_files/refusal.hpp"

namespace fairgptq::testing {
namespace {

class MemoryTest : public BackendTest {};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(MemoryTest);

TEST(DeviceTest, CudaIsHere) {
    try {
        EXPECT_NE(make_backend("cuda"), nullptr);
    } catch (const InvalidInput& error) {
        GTEST_SKIP() << "operations are not tested on CUDA: " << error.what();
    }
}

TEST(DeviceTest, UnknownDeviceIsRefusedByName) {
    expect_refused([] { make_backend("tpu"); }, {"tpu", "auto, cpu or cuda"});
}

TEST(DeviceTest, AutoIsAlwaysThere) {
    EXPECT_FALSE(make_backend("auto")->name().empty());
}

TEST_P(MemoryTest, BuffersAreAlignedAndHoldWhatWasAskedFor) {
    for (const std::size_t bytes : {0, 1, 63, 64, 65, 4096, 1 << 20}) {
        const Buffer buffer = backend->allocate(bytes);
        EXPECT_EQ(buffer.bytes(), bytes);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0U);
        backend->zero(buffer.data(), bytes);
        EXPECT_EQ(download_vector<char>(buffer), std::vector<char>(bytes, 0));
    }
}

TEST_P(MemoryTest, TooMuchIsAFailureThatNamesTheSize) {
    for (const std::size_t bytes : {std::numeric_limits<std::size_t>::max(), std::size_t{1} << 60U}) {
        try {
            backend->allocate(bytes);
            FAIL() << "no exception";
        } catch (const Failure& error) {
            EXPECT_NE(std::string(error.what()).find(std::to_string(bytes)), std::string::npos) << error.what();
        }
    }
}

TEST_P(MemoryTest, CopiesGoThereAndBack) {
    std::vector<std::uint8_t> bytes(1000);
    for (std::size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = static_cast<std::uint8_t>(i * 7);
    const Buffer first = upload_vector(bytes);
    const Buffer second = backend->allocate(bytes.size());
    backend->copy_on_device(second.data(), first.data(), bytes.size());
    EXPECT_EQ(download_vector<std::uint8_t>(second), bytes);
}

TEST_P(MemoryTest, UploadConvertsExactly) {
    for (const std::int64_t cols : {0, 1, 15, 16, 17, 1000}) {
        // Whole numbers up to 127 are exact in every type.
        std::vector<float> singles;
        std::vector<Float16> halves;
        std::vector<BFloat16> brains;
        for (std::int64_t i = 0; i < 3 * cols; ++i) {
            singles.push_back(static_cast<float>(i % 255 - 127));
            halves.push_back(to_half(singles.back()));
            brains.push_back(to_bfloat16(singles.back()));
        }
        const DeviceMatrix matrix = device_matrix(3, cols, type, 5);
        backend->upload(matrix.view, singles.data(), DType::float32);
        EXPECT_EQ(download(matrix.view).values, singles);
        backend->zero(matrix.buffer.data(), matrix.buffer.bytes());
        backend->upload(matrix.view, halves.data(), DType::float16);
        EXPECT_EQ(download(matrix.view).values, singles);
        backend->zero(matrix.buffer.data(), matrix.buffer.bytes());
        backend->upload(matrix.view, brains.data(), DType::bfloat16);
        EXPECT_EQ(download(matrix.view).values, singles);
    }
}

TEST_P(MemoryTest, UploadToFloat32KeepsEveryHalf) {
    std::vector<Float16> halves(1U << 16U);
    for (std::size_t i = 0; i < halves.size(); ++i)
        halves[i].bits = static_cast<std::uint16_t>(i);
    const DeviceMatrix matrix = device_matrix(256, 256, DType::float32);
    backend->upload(matrix.view, halves.data(), DType::float16);
    const HostMatrix result = download(matrix.view);
    for (std::size_t i = 0; i < halves.size(); ++i) {
        const float expected = to_float(halves[i]);
        if (std::isnan(expected))
            ASSERT_TRUE(std::isnan(result.values[i])) << i;
        else
            ASSERT_EQ(result.values[i], expected) << i;
    }
}

}  // namespace
}  // namespace fairgptq::testing
