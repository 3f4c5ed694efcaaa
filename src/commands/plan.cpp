// `fairgptq plan`: memory per rank and time, before a job is queued.
#include <fmt/format.h>

#include <cxxopts.hpp>
#include <memory>
#include <optional>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "commands/residency.hpp"
#include "commands/run_options.hpp"
#include "commands/solver_options.hpp"
#include "commands/sweep_options.hpp"
#include "pipeline/arithmetic.hpp"
#include "pipeline/memory_plan.hpp"
#include "support/table.hpp"

namespace fairgptq::commands {
namespace {

std::string mebibytes(std::size_t bytes) {
    return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1U << 20U));
}

double gibibytes(std::size_t bytes) {
    return static_cast<double>(bytes) / (1U << 30U);
}

void print(const char* title, const std::vector<MemoryPlan::Item>& items, std::size_t peak) {
    fmt::print("{}\n", title);
    for (const auto& item : items)
        fmt::print("  {:<32}{:>16}\n", item.name, mebibytes(item.bytes));
    fmt::print("  {:<32}{:>16}\n", "peak", mebibytes(peak));
}

}  // namespace

int plan(int argc, char** argv, Communicator& comm) {
    cxxopts::Options options("fairgptq plan", "Memory and time that a run will need");
    options.add_options()                                                         //
        ("ranks", "ranks of the run", cxxopts::value<int>()->default_value("1"))  //
        ("h,help", "show this");
    add_sweep_options(options);
    add_solver_options(options);
    add_run_options(options);
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    const int ranks = (*parsed)["ranks"].as<int>();
    if (ranks < 1 || ranks > 1 << 20) throw InvalidInput("--ranks must be at least 1, not {}", ranks);
    const std::optional<std::size_t> limit = read_device_memory(*parsed);
    const int threads = use_share_of_cores(comm);
    const RunInputs inputs = read_run_inputs(*parsed, Weights::if_there);
    std::vector<AlphaSettings> alphas{inputs.settings.alpha};
    if (parsed->count("alphas") > 0) alphas = sweep_settings(read_alphas(*parsed), inputs);
    std::vector<AlphaPolicy> policies;
    for (const AlphaSettings& alpha : alphas)
        policies.emplace_back(alpha, inputs.family);
    const std::string device = (*parsed)["device"].as<std::string>();
    const DType type = inputs.family.config.weight_type();
    // A login node has no GPU, and its jobs have.
    const auto backend = device == "cuda" && !gpu_is_here() ? nullptr : make_backend(device, 0, type);
    const PlanDevice planned{backend ? backend->activation_type() : type, !backend || !backend->host_accessible(),
                             limit};
    const MemoryPlan memory = plan_memory(inputs.family, inputs.chunks, inputs.file_tokens, inputs.settings,
                                          inputs.grids, ranks, planned, alphas.size());
    fmt::print("{} layers of {}, {} calibration tokens and {} pair columns in {} chunks, {} rank{}{}\n\n",
               inputs.settings.layers, inputs.family.config.architecture, inputs.chunks.hessian_tokens,
               inputs.chunks.pair_columns, inputs.chunks.all.size(), ranks, ranks == 1 ? "" : "s",
               alphas.size() == 1 ? "" : fmt::format(", {} runs in one pass", alphas.size()));
    print(planned.gpu ? "device memory of each rank" : "memory of each rank: calibration and solver", memory.device,
          memory.device_peak);
    print(planned.gpu ? "host memory of each rank" : "the rest", memory.host, memory.host_peak);
    if (!planned.gpu) fmt::print("{:<34}{:>16}\n", "peak of each rank", mebibytes(memory.shared_peak));
    for (const std::string& line : what_waits(memory))
        fmt::print("{}\n", line);

    const Arithmetic arithmetic =
        count_arithmetic(inputs.family, inputs.chunks, inputs.grids, policies, inputs.settings.layers);
    if (backend) {
        const double rate = measure_matrix_rate(*backend);
        // Beside the matrix products a run reads, normalises and rounds: half as much time again, measured on
        // SmolLM2-135M.
        constexpr double overhead = 1.5;
        fmt::print(
            "\ntime: {0:.2f} TFLOP; about {4} where every rank has what this process has, {1:.0f} GFLOP/s with {2} "
            "thread{3}\n",
            arithmetic.total() * 1e-12, rate * 1e-9, threads, threads == 1 ? "" : "s",
            format_duration(overhead * arithmetic.total() / (rate * ranks)));
    } else {
        fmt::print("\ntime: {:.2f} TFLOP; how long they take is not known here, where there is no GPU\n",
                   arithmetic.total() * 1e-12);
    }
    warn_of_settings(inputs);
    if (!limit) return exit_done;
    const std::string given = fmt::format("{:g}", real(*parsed, "device-memory"));
    const double needed = gibibytes(memory.needed(planned.gpu));
    if (!memory.fits)
        throw InvalidInput(
            "{} GiB a rank do not suffice: {:.1f} GiB are needed; take more ranks, a smaller --chunk-tokens or fewer "
            "tokens",
            given, needed);
    fmt::print("{} GiB a rank suffice: {:.1f} GiB are needed\n", given, needed);
    return exit_done;
}

}  // namespace fairgptq::commands
