// What only an emulated GPU can be asked: how much memory a solve takes, whether a second one asks the driver for more,
// and whether every call chooses its GPU first.
#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "backend/cuda/backend.hpp"
#include "emulation.hpp"
#include "solver/random_problem.hpp"
#include "solver/solve.hpp"
#include "support_files/refusal.hpp"
#include "support_files/said.hpp"

namespace fairgptq::testing {
namespace {

/// A random problem's matrices on a device.
struct DeviceMatrices {
    DeviceMatrices(Backend& backend, const RandomProblem& problem) {
        const auto copy = [&](const std::vector<float>& values) {
            Buffer buffer = backend.allocate(values.size() * sizeof(float));
            backend.copy_to_device(buffer.data(), values.data(), buffer.bytes());
            return buffer;
        };
        weights = copy(problem.weights);
        hessian = copy(problem.hessian);
        covariance = copy(problem.covariance);
        stage = {hessian.matrix<const float>(problem.n, problem.n),
                 covariance.matrix<const float>(problem.n, problem.n),
                 {{"the matrix", weights.matrix<float>(problem.rows, problem.n), 0.5}}};
    }
    Buffer weights, hessian, covariance;
    StageProblem stage;
};

TEST(EmulatedDevice, ASolveTakesThePlannedMemoryAndASecondOneNoMore) {
    for (const auto& [rows, n, group] :
         {std::tuple{70, 512, 64}, std::tuple{1500, 256, 256}, std::tuple{64, 640, -1}}) {
        SCOPED_TRACE(fmt::format("{} x {}, groups of {}", rows, n, group));
        CudaBackend backend(0, DType::bfloat16);
        const DeviceMatrices matrices(backend, RandomProblem(rows, n, 1));
        SolverSettings settings;
        settings.grid.group_size = group;
        settings.order = ColumnOrder::group;
        const auto comm = make_single_rank();
        const std::size_t before = emulation::reserved_bytes(0);
        solve_stage(backend, *comm, matrices.stage, settings);
        backend.synchronize();
        const std::size_t taken = emulation::reserved_bytes(0) - before;
        const std::size_t planned = solver_bytes(rows, n, 1, resolve_group_size(group, n, ""), false) +
                                    cuda::solver_scratch(rows, n, resolve_group_size(group, n, ""), false) -
                                    cuda::products_bytes;
        EXPECT_LE(taken, planned + planned / 50);
        EXPECT_GE(taken, planned - planned / 10);

        const std::int64_t calls = emulation::allocation_calls();
        const std::size_t used = emulation::allocated_bytes(0);
        solve_stage(backend, *comm, matrices.stage, settings);
        EXPECT_EQ(emulation::allocation_calls(), calls);
        backend.synchronize();
        EXPECT_EQ(emulation::allocated_bytes(0), used);
    }
    EXPECT_EQ(emulation::reserved_bytes(0), 0U);
}

TEST(EmulatedDevice, FreedMemoryIsAvailable) {
    for (const bool pools : {true, false}) {
        emulation::set_equipment({.memory_pools = pools});
        cuda::Memory memory(0);
        const std::size_t all = memory.available();
        Buffer buffer = memory.allocate(std::size_t{1} << 20U);
        EXPECT_EQ(memory.available(), all - (std::size_t{1} << 20U));
        buffer = Buffer();
        memory.synchronize();
        EXPECT_EQ(memory.available(), all);
        EXPECT_NO_THROW(memory.allocate(all));  // what the pool keeps is no hindrance
        try {
            memory.allocate(all + 1);
            ADD_FAILURE() << "more than there is";
        } catch (const Failure& failure) {
            EXPECT_NE(std::string(failure.what()).find("--device-memory"), std::string::npos) << failure.what();
        }
    }
    emulation::set_equipment({});
}

TEST(EmulatedDevice, AHostThatLocksNoMemoryIsAskedForNoMoreThanItHas) {
    emulation::set_equipment({.page_locking = false});
    cuda::Memory memory(0);
    EXPECT_NE(memory.allocate_host(0).data(), nullptr);
    EXPECT_THROW(memory.allocate_host(std::size_t{1} << 60U), Failure);
    emulation::set_equipment({});
}

TEST(EmulatedDevice, WhyThereIsNoneIsSaid) {
    emulation::set_equipment({.gpus = false});
    expect_refused([] { make_backend("cuda"); }, {"as the emulation sees it"});
    EXPECT_FALSE(gpu_is_here());
    emulation::set_equipment({});
}

TEST(EmulatedDevice, ADriverTooOldIsSaidBeforeTheCpuIsTaken) {
    const auto said_of = [](const emulation::Equipment& equipment) {
        emulation::set_equipment(equipment);
        const Said said;
        EXPECT_EQ(make_backend("auto")->host_accessible(), !equipment.gpus || !equipment.driver_is_new);
        emulation::set_equipment({});
        return said.count("a GPU's driver is installed, and no GPU can be used");
    };
    EXPECT_EQ(said_of({.driver_is_new = false}), 1);
    EXPECT_EQ(said_of({.gpus = false}), 0);  // CUDA_VISIBLE_DEVICES is empty, say
    EXPECT_EQ(said_of({}), 0);
}

TEST(EmulatedDevice, UploadsStageFewRows) {
    cuda::Memory memory(0);
    constexpr std::int64_t rows = 5000, cols = 2049;  // 41 MB as float32
    std::vector<float> values(static_cast<std::size_t>(rows * cols));
    for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(i % 2039);
    const Buffer halves = memory.allocate(values.size() * sizeof(std::uint16_t));
    const std::size_t before = emulation::reserved_bytes(0);
    memory.upload(halves.tensor(DType::float16, rows, cols), values.data(), DType::float32);
    EXPECT_LE(emulation::reserved_bytes(0) - before, std::size_t{16} << 20U);
    std::vector<Float16> back(values.size());
    memory.copy_to_host(back.data(), halves.data(), halves.bytes());
    for (std::size_t i = 0; i < values.size(); ++i)
        ASSERT_EQ(to_float(back[i]), values[i]) << i;
}

TEST(EmulatedDevice, BuffersMayOutliveTheBackend) {
    std::optional<CudaBackend> backend(std::in_place, 0, DType::bfloat16);
    Buffer buffer = backend->allocate(100);
    backend->zero(buffer.data(), 100);
    backend.reset();
    EXPECT_GE(emulation::allocated_bytes(0), 100U);
    buffer = Buffer();
    EXPECT_EQ(emulation::allocated_bytes(0), 0U);
}

TEST(EmulatedDevice, AThreadThatHasNotChosenAGpuMayUseABackend) {
    CudaBackend backend(1, DType::float16);
    std::thread([&] {  // its GPU is 0
        const DeviceMatrices matrices(backend, RandomProblem(70, 64, 1));
        SolverSettings settings;
        settings.grid.group_size = 64;
        EXPECT_NO_THROW(solve_stage(backend, *make_single_rank(), matrices.stage, settings));
        const Buffer inputs = backend.allocate(8 * 8 * 2), outputs = backend.allocate(8 * 8 * 2),
                     scratch = backend.allocate(8 * 8 * 4), sum = backend.allocate(36 * 8);
        const TensorView x = inputs.tensor(DType::float16, 8, 8), y = outputs.tensor(DType::float16, 8, 8);
        backend.zero(inputs.data(), inputs.bytes());
        backend.zero(sum.data(), sum.bytes());
        EXPECT_NO_THROW(backend.accumulate_gram(x, scratch.matrix<float>(8, 8), {sum.as<double>(), 8}));
        EXPECT_NO_THROW(backend.finish_gram({sum.as<const double>(), 8}, 1, scratch.matrix<float>(8, 8)));
        EXPECT_NO_THROW(backend.linear(x, x, nullptr, y, false));
        EXPECT_NO_THROW(backend.linear(x, x, scratch.as<float>(), y, false));
        EXPECT_NO_THROW(backend.rms_norm(x, scratch.as<float>(), 1e-5F, y));
        EXPECT_NO_THROW(backend.gated_activation(Activation::silu, x, x, y));
        EXPECT_NO_THROW(backend.activation(Activation::gelu, x, y));
        backend.synchronize();
    })
        .join();
}

}  // namespace
}  // namespace fairgptq::testing
