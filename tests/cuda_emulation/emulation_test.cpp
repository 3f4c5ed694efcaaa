// The emulation itself: what is right runs, and each kind of fault that it is there to show, shows.
#include "emulation.hpp"

#include <gtest/gtest.h>
#include <nccl.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cuda/event.hpp"
#include "backend/cuda/memory.hpp"
#include "backend/cuda/products.hpp"
#include "faulty_kernels.hpp"

namespace fairgptq::testing {
namespace {

class Emulation : public ::testing::Test {
  protected:
    Emulation() : from(memory.allocate(64 * sizeof(float))), to(memory.allocate(64 * sizeof(float))) {
        GTEST_FLAG_SET(death_test_style, "threadsafe");
        std::iota(values.begin(), values.end(), 1.0F);
        memory.copy_to_device(from.data(), values.data(), from.bytes());
    }
    std::vector<float> result() {
        std::vector<float> back(64);
        memory.copy_to_host(back.data(), to.data(), to.bytes());
        return back;
    }
    std::vector<float> reversed() const { return {values.rbegin(), values.rend()}; }

    cuda::Memory memory{0};
    Buffer from, to;
    std::vector<float> values = std::vector<float>(64);
};

TEST_F(Emulation, ThreadsMeetAtBarriersAndInWarps) {
    for (unsigned seed = 0; seed < 20; ++seed) {
        emulation::set_seed(seed);
        ASSERT_EQ(launch_reverse_on_chip(from.as<float>(), to.as<float>(), true, memory.stream()), cudaSuccess);
        ASSERT_EQ(result(), reversed());
        ASSERT_EQ(launch_copy_through_chip(from.as<float>(), to.as<float>(), true, memory.stream()), cudaSuccess);
        ASSERT_EQ(result(), reversed());
        ASSERT_EQ(launch_sum_of_warps(from.as<float>(), to.as<float>(), memory.stream()), cudaSuccess);
        std::vector<float> sums(64, 32 * 33 / 2);
        std::fill(sums.begin() + 32, sums.end(), 32 * 33 / 2 + 32 * 32);
        ASSERT_EQ(result(), sums);
    }
}

TEST_F(Emulation, PredicatesOfABlockAreItsOwn) {
    std::vector<float> some(3 * 64, 1);
    some[64 + 17] = -1;
    const Buffer device = memory.allocate(some.size() * sizeof(float)), any = memory.allocate(3 * sizeof(int));
    memory.copy_to_device(device.data(), some.data(), device.bytes());
    ASSERT_EQ(launch_any_negative(device.as<float>(), any.as<int>(), 3, memory.stream()), cudaSuccess);
    std::vector<int> found(3);
    memory.copy_to_host(found.data(), any.data(), any.bytes());
    EXPECT_EQ(found, (std::vector<int>{0, 1, 0}));
}

using EmulationDeathTest = Emulation;

TEST_F(EmulationDeathTest, AMissingBarrierShows) {
    EXPECT_DEATH(
        {
            launch_reverse_on_chip(from.as<float>(), to.as<float>(), false, memory.stream());
            memory.synchronize();
        },
        "other bytes when its threads run in another order");
}
TEST_F(EmulationDeathTest, ABarrierThatNotAllReachShows) {
    EXPECT_DEATH(
        {
            launch_barrier_for_some(memory.stream());
            memory.synchronize();
        },
        "a barrier that is never passed: 32 threads of .* wait for the block");
}
TEST_F(EmulationDeathTest, WritingBesideAnAllocationShows) {
    for (const std::int64_t place : {64, -1})
        EXPECT_DEATH(
            {
                launch_write(to.as<float>(), place, memory.stream());
                memory.synchronize();
            },
            "wrote behind an allocation|AddressSanitizer");
}
TEST_F(EmulationDeathTest, TheHostCannotTouchDeviceMemory) {
    EXPECT_DEATH(*to.as<volatile float>() = 1, "");
    EXPECT_DEATH(static_cast<void>(*to.as<volatile float>()), "");
}
TEST_F(EmulationDeathTest, HostPointersAmongArgumentsShow) {
    EXPECT_DEATH(launch_write(values.data(), 0, memory.stream()), "pointer to host memory");
}
TEST_F(EmulationDeathTest, ProductsThatLeaveTheirMemoryShow) {
    cuda::Products products(memory);
    const MatrixView<float> good(from.as<float>(), 8, 8), bad(to.as<float>(), 8, 9);
    products.multiply(cuda::Transpose::no, 1, good, good, 0, {to.as<float>(), 8, 8});
    memory.synchronize();
    EXPECT_DEATH(
        {
            products.multiply(cuda::Transpose::no, 1, good, bad, 0, bad);
            memory.synchronize();
        },
        "reach beyond their allocation");
}

TEST_F(EmulationDeathTest, AThreadThatFreesBeforeItChoosesAGpuShows) {
    EXPECT_DEATH(std::thread([&] { to = Buffer(); }).join(), "cudaFreeAsync by a thread that has not chosen its GPU");
}
TEST_F(EmulationDeathTest, AWorkspaceThatAStreamTookAwayShows) {
    cublasHandle_t handle = nullptr;
    ASSERT_EQ(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
    const float one = 1;
    const auto product = [&] {
        return cublasSgemm_64(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, from.as<float>(), 4, from.as<float>(), 4,
                              &one, to.as<float>(), 4);
    };
    EXPECT_EQ(cublasSetWorkspace(handle, to.as<std::byte>() + 16, 128), CUBLAS_STATUS_INVALID_VALUE);
    ASSERT_EQ(cublasSetStream(handle, memory.stream()), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cublasSetWorkspace(handle, to.data(), to.bytes()), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(product(), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cublasSetStream(handle, memory.stream()), CUBLAS_STATUS_SUCCESS);
    EXPECT_DEATH(product(), "without a workspace");
    memory.synchronize();
    cublasDestroy(handle);
}

TEST_F(Emulation, AnEventIsItsDevices) {
    cudaSetDevice(1);
    cuda::Event event;
    memory.use();
    EXPECT_THROW(event.record(memory.stream()), Failure);
}

TEST_F(Emulation, RowsTooFarApartToCopyAreRefused) {
    EXPECT_EQ(cudaMemcpy2DAsync(to.data(), std::size_t{1} << 31U, values.data(), 4, 4, 1, cudaMemcpyHostToDevice,
                                memory.stream()),
              cudaErrorInvalidValue);
}

TEST_F(Emulation, WorkIsNotDoneBeforeItIsWaitedFor) {
    std::vector<float> back(64, 0);
    ASSERT_EQ(launch_reverse_on_chip(from.as<float>(), to.as<float>(), true, memory.stream()), cudaSuccess);
    ASSERT_EQ(cudaMemcpyAsync(back.data(), to.data(), to.bytes(), cudaMemcpyDeviceToHost, memory.stream()),
              cudaSuccess);
    EXPECT_EQ(back, std::vector<float>(64, 0));
    memory.synchronize();
    EXPECT_EQ(back, reversed());
}

TEST_F(Emulation, AsynchronousCopiesArriveWhenTheyAreWaitedFor) {
    emulation::set_twice(false);
    ASSERT_EQ(launch_copy_through_chip(from.as<float>(), to.as<float>(), false, memory.stream()), cudaSuccess);
    for (const float value : result())
        EXPECT_TRUE(std::isnan(value));
    emulation::set_twice(true);
}

TEST_F(Emulation, NewMemoryIsNaN) {
    const Buffer fresh = memory.allocate(64 * sizeof(float));
    std::vector<float> back(64, 0);
    memory.copy_to_host(back.data(), fresh.data(), fresh.bytes());
    for (const float value : back)
        EXPECT_TRUE(std::isnan(value));
}

TEST_F(Emulation, LaunchesThatAGpuRefusesAreRefused) {
    const auto status = [&](dim3 grid, dim3 block, std::size_t on_chip) {
        return launch_nothing(grid, block, on_chip, memory.stream());
    };
    EXPECT_EQ(status({0, 1}, 1, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(status({1, 65536}, 1, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(status(1, 1025, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(status(1, 1, (48U << 10U) + 1), cudaErrorInvalidValue);
    EXPECT_EQ(launch_nothing(1, 1, 0, nullptr), cudaErrorInvalidResourceHandle);  // the default stream
}

TEST_F(Emulation, AStreamIsItsDevicesThreads) {
    std::thread([&] {
        ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
        EXPECT_EQ(launch_write(to.as<float>(), 0, memory.stream()), cudaErrorInvalidResourceHandle);
        memory.use();
        EXPECT_EQ(launch_write(to.as<float>(), 0, memory.stream()), cudaSuccess);
    }).join();
    EXPECT_EQ(result()[0], 1);
}

TEST_F(Emulation, CublasSumsInOrdersOfItsOwn) {
    // What fixed_order is for: the same row, alone and among others.
    cuda::Products products(memory);
    std::vector<float> numbers(40 * 300);
    for (std::size_t i = 0; i < numbers.size(); ++i)
        numbers[i] = std::sin(static_cast<float>(i));
    const Buffer a = memory.allocate(numbers.size() * sizeof(float)), b = memory.allocate(a.bytes());
    memory.copy_to_device(a.data(), numbers.data(), a.bytes());
    memory.copy_to_device(b.data(), numbers.data(), b.bytes());
    const auto first_row = [&](std::int64_t rows) {
        const Buffer c = memory.allocate(static_cast<std::size_t>(rows) * 40 * sizeof(float));
        products.multiply(cuda::Transpose::no, 1, {a.as<float>(), rows, 300}, {b.as<float>(), 300, 40}, 0,
                          {c.as<float>(), rows, 40});
        std::vector<float> row(40);
        memory.copy_to_host(row.data(), c.data(), row.size() * sizeof(float));
        return row;
    };
    EXPECT_NE(first_row(1), first_row(40));
}

TEST_F(Emulation, NcclTakesNoCallWhileOneIsUnderWay) {
    ncclUniqueId id;
    ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t comm = nullptr;
    EXPECT_EQ(ncclCommInitRankConfig(&comm, 1, id, 0, &config), ncclInvalidArgument);  // it would wait in the call
    config.blocking = 0;
    ASSERT_EQ(ncclCommInitRankConfig(&comm, 1, id, 0, &config), ncclInProgress);
    const auto sum = [&] {
        return ncclAllReduce(from.data(), to.data(), 2, ncclDouble, ncclSum, comm, memory.stream());
    };
    const auto state = [&] {
        ncclResult_t now = ncclSuccess;
        EXPECT_EQ(ncclCommGetAsyncError(comm, &now), ncclSuccess);
        return now;
    };
    EXPECT_EQ(sum(), ncclInvalidUsage);  // it has not joined yet
    EXPECT_EQ(state(), ncclSuccess);
    EXPECT_EQ(sum(), ncclInProgress);
    EXPECT_EQ(sum(), ncclInvalidUsage);
    EXPECT_EQ(state(), ncclSuccess);
    EXPECT_EQ(ncclCommFinalize(comm), ncclInProgress);
    EXPECT_EQ(sum(), ncclInvalidUsage);
    while (state() == ncclInProgress)
        continue;
    EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
}

}  // namespace
}  // namespace fairgptq::testing
