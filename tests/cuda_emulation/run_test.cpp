// Whole runs of a tiny model on an emulated GPU.
#include <algorithm>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/scratch.hpp"
#include "emulation.hpp"
#include "pipeline/memory_plan.hpp"
#include "pipeline/tiny_run.hpp"
#include "support_files/said.hpp"

namespace fairgptq::testing {
namespace {

class EmulatedRun : public TinyRun {
  protected:
    static Way on_gpu(Way way = {}) {
        way.make = [] { return std::make_unique<CudaBackend>(0, DType::float16); };
        return way;
    }
};

// A replayed layer is dequantized from its file, one that was just solved from the codes on the GPU.
TEST_F(EmulatedRun, RanksAndReplayedLayersChangeNoByte) {
    for (const ColumnOrder order : {ColumnOrder::none, ColumnOrder::activation}) {
        settings.solver.order = order;
        settings.alpha.modules = "q_proj,down_proj";  // two solves in a stage
        const std::vector<LayerRecord> alone = quantize(on_gpu());
        expect_same(alone, quantize(on_gpu({.finished = 1})));
        if (order == ColumnOrder::none) continue;
        expect_same(alone, quantize(on_gpu({.ranks = 2})));
        expect_same(alone, quantize(on_gpu({.residency = {100, ReadAhead::to_host}})));
    }
}

class EmulatedMixture : public TinyRun {
  protected:
    EmulatedMixture() : TinyRun(2, mixture_with_shared(1)) {}
    static Way on_gpu(Way way = {}) {
        way.make = [] { return std::make_unique<CudaBackend>(0, DType::float16); };
        return way;
    }
};

TEST_F(EmulatedMixture, RanksReplayedLayersAndMemoryChangeNoByte) {
    constexpr std::size_t not_here =
        gpu_context_bytes + cuda::StreamTransfers::pieces * cuda::StreamTransfers::piece_bytes;
    const MemoryPlan plan = plan_memory(model.family(), chunks(), 0, settings,
                                        {settings.solver, modules, model.family()}, 1, {DType::float16, true, {}});
    Way way = on_gpu({.residency = plan.residency});
    std::size_t taken = 0;
    way.at_end = [&](const Backend& backend) { taken = backend.taken().value(); };
    const std::vector<LayerRecord> alone = quantize(way);
    const auto planned = static_cast<double>(plan.device_peak - not_here - cuda::products_bytes);
    EXPECT_NEAR(static_cast<double>(taken - cuda::workspace_bytes), planned, 0.05 * planned);
    expect_same(alone, quantize(on_gpu({.ranks = 2, .residency = {100, ReadAhead::to_host}, .finished = 1})));
}

TEST_F(EmulatedMixture, GivesWhatTheCpuGives) {
    settings.inputs = InputsFrom::original;
    const LayerRecord gpu = quantize(on_gpu()).back(), cpu = quantize({}).back();
    ASSERT_EQ(gpu.modules.size(), cpu.modules.size());
    for (std::size_t i = 0; i < gpu.modules.size(); ++i) {
        // A token that two experts are nearly as good for may go to the other one: of few tokens that is much.
        const bool expert = gpu.modules[i].name.find(".experts.") != std::string::npos;
        const double allowed = expert ? 0.05 : 0.01;
        EXPECT_NEAR(gpu.modules[i].bias_before, cpu.modules[i].bias_before, allowed * cpu.modules[i].bias_before)
            << gpu.modules[i].name;
        EXPECT_NEAR(gpu.modules[i].reconstruction, cpu.modules[i].reconstruction,
                    allowed * cpu.modules[i].reconstruction)
            << gpu.modules[i].name;
    }
}

// But for what a driver takes, and room for weights of another type than the activations': here only norms are.
TEST_F(EmulatedRun, TakesTheMemoryThatWasPlanned) {
    constexpr std::size_t not_here =
        gpu_context_bytes + cuda::StreamTransfers::pieces * cuda::StreamTransfers::piece_bytes;
    PlanDevice device{DType::float16, true, {}};
    for (const std::size_t missing : {0, 600'000}) {
        const MemoryPlan plan =
            plan_memory(model.family(), chunks(), 0, settings, {settings.solver, modules, model.family()}, 1, device);
        EXPECT_EQ(plan.spilled_tokens > 0, missing > 0);
        Way way = on_gpu({.residency = plan.residency});
        std::size_t taken = 0;
        way.at_end = [&](const Backend& backend) { taken = backend.taken().value(); };
        quantize(way);
        const auto planned = static_cast<double>(plan.device_peak - not_here - cuda::products_bytes);
        EXPECT_NEAR(static_cast<double>(taken - cuda::workspace_bytes), planned, 0.05 * planned);
        device.limit = plan.device_peak - 600'000;
    }
}

/// What a machine lacks makes a run slower, no more.
TEST_F(EmulatedRun, NeedsNoPoolsNoLockedMemoryAndNoWordOfCusolvers) {
    const Way way = on_gpu({.residency = {100, ReadAhead::to_host}});
    const std::vector<LayerRecord> expected = quantize(way);
    emulation::set_equipment({.memory_pools = false, .page_locking = false, .deterministic_solver = false});
    const Said said;
    expect_same(expected, quantize(way));
    emulation::set_equipment({});
    for (const char* words : {"GPU 0 has no memory pools", "cannot be locked", "cuSOLVER does not promise"})
        EXPECT_EQ(said.count(words), 1) << said.text();
}

TEST_F(EmulatedRun, PhasesAreRangesInsideTheirLayerAndStage) {
    emulation::take_ranges();
    quantize(on_gpu({.finished = 1}));  // the first layer, then a replay of it and the second
    const std::vector<std::string> ranges = emulation::take_ranges();
    const auto count = [&](const std::string& path) { return std::count(ranges.begin(), ranges.end(), path); };
    const std::string queries = "self_attn.q_proj, self_attn.k_proj, self_attn.v_proj";
    EXPECT_EQ(count("fairgptq / layer 0"), 2);
    EXPECT_EQ(count("fairgptq / layer 1"), 1);
    for (const std::string& stage : {queries, std::string("self_attn.o_proj"),
                                     std::string("mlp.gate_proj, mlp.up_proj"), std::string("mlp.down_proj")})
        for (const std::string layer : {"layer 0", "layer 1"}) {
            const std::string here = fmt::format("fairgptq / {} / {}", layer, stage);
            EXPECT_EQ(count(here), 1) << here;
            for (const char* phase :
                 {"covariance", "all_reduce", "factor", "columns", "figures", "exchange", "forward"})
                EXPECT_GE(count(fmt::format("{} / {}", here, phase)), 1) << here << ": " << phase;
            EXPECT_EQ(count(here + " / figures"), 1);
        }
    EXPECT_EQ(count("fairgptq / setup"), 2);
    for (const char* phase : {"read", "forward", "exchange", "write"})
        EXPECT_GE(count(fmt::format("fairgptq / layer 1 / {}", phase)), 1) << phase;
}

}  // namespace
}  // namespace fairgptq::testing
