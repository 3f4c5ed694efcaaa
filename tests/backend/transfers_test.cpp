#include "backend/transfers.hpp"

#include <cstring>

#include "backends.hpp"

namespace fairgptq::testing {
namespace {

class TransfersTest : public BackendTest {};

TEST_P(TransfersTest, UploadsEveryTypeIntoRowsWithGaps) {
    const auto transfers = backend->make_transfers();
    for (const std::int64_t rows : {0, 1, 70})
        for (const DType to : {DType::float32, type}) {
            // Whole numbers that every type holds.
            const HostMatrix values = integer_matrix(rows, 33, 5);
            std::vector<std::uint16_t> halves;
            for (const float value : values.values)
                halves.push_back(to_half(value).bits);
            const DeviceMatrix from_float = device_matrix(rows, 33, to, 4), from_half = device_matrix(rows, 33, to, 4);
            transfers->follow_device();  // which zeroed them
            transfers->upload(from_float.view, values.values.data(), DType::float32);
            transfers->upload(from_half.view, halves.data(), DType::float16);
            halves.assign(halves.size(), 0);  // it has been read
            transfers->finish();
            EXPECT_EQ(download(from_float.view).values, values.values);
            EXPECT_EQ(download(from_half.view).values, values.values);
        }
}

TEST_P(TransfersTest, LongUploadsGoInPieces) {
    const auto transfers = backend->make_transfers();
    const HostMatrix values = random_matrix(40 * 1024 + 3, 1024, 3);  // 160 MiB
    const DeviceMatrix there = device_matrix(values.rows, values.cols, DType::float32);
    transfers->follow_device();
    transfers->upload(there.view, values.values.data(), DType::float32);
    transfers->finish();
    std::vector<float> back(values.values.size());
    backend->copy_to_host(back.data(), there.view.data, back.size() * sizeof(float));
    EXPECT_EQ(std::memcmp(back.data(), values.values.data(), back.size() * sizeof(float)), 0);
}

TEST_P(TransfersTest, StoresAndFetchesTheFirstColumnsInStepWithTheDevice) {
    const auto incoming = backend->make_transfers(), outgoing = backend->make_transfers();
    const HostMatrix values = integer_matrix(50, 40, 9);
    const std::size_t bytes = 50 * 24 * size_of(type);
    const Buffer host = outgoing->allocate_host(bytes);
    for (int round = 0; round < 20; ++round) {
        const DeviceMatrix from = upload(values, type, 3), to = device_matrix(50, 40, type, 5);
        const DeviceMatrix twice = device_matrix(50, 40, type, 5);
        outgoing->follow_device();
        outgoing->store(host.data(), from.view.cols_from(0, 24));
        outgoing->finish();
        incoming->follow_device();
        incoming->fetch(to.view.cols_from(0, 24), host.data());
        incoming->lead_device();
        backend->copy_on_device(twice.buffer.data(), to.buffer.data(), to.buffer.bytes());
        HostMatrix expected(50, 40);
        for (std::int64_t row = 0; row < 50; ++row)
            for (std::int64_t col = 0; col < 24; ++col)
                expected(row, col) = values(row, col);
        EXPECT_EQ(download(twice.view).values, expected.values);
    }
}

TEST_P(TransfersTest, StoresBytesAsTheDeviceHadThem) {
    const auto outgoing = backend->make_transfers();
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{4099}}) {
        const Buffer from = backend->allocate(bytes), host = outgoing->allocate_host(bytes);
        std::vector<std::uint8_t> values(bytes);
        for (std::size_t i = 0; i < bytes; ++i)
            values[i] = static_cast<std::uint8_t>(i % 253);
        backend->copy_to_device(from.data(), values.data(), bytes);
        outgoing->follow_device();
        outgoing->store_bytes(host.data(), from.data(), bytes);
        outgoing->finish();
        const auto* stored = host.as<const std::uint8_t>();
        EXPECT_EQ(std::vector(stored, stored + bytes), values);
    }
}

FAIRGPTQ_ON_BACKENDS(TransfersTest);

}  // namespace
}  // namespace fairgptq::testing
