// `fairgptq plan`: memory per rank and time, before a job is queued.
#include <fmt/format.h>

#include <cmath>
#include <cxxopts.hpp>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "commands/run_options.hpp"
#include "commands/solver_options.hpp"
#include "pipeline/arithmetic.hpp"
#include "pipeline/memory_plan.hpp"

namespace fairgptq::commands {
namespace {

std::string mebibytes(std::size_t bytes) {
    return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1U << 20U));
}

std::string duration(double seconds) {
    if (seconds < 120) return fmt::format("{:.0f} s", seconds);
    return seconds < 7200 ? fmt::format("{:.0f} min", seconds / 60) : fmt::format("{:.1f} h", seconds / 3600);
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
    options.add_options()                                                                                    //
        ("ranks", "ranks of the run", cxxopts::value<int>()->default_value("1"))                             //
        ("device-memory", "memory of each rank's device in GiB, to compare with", cxxopts::value<double>())  //
        ("h,help", "show this");
    add_solver_options(options);
    add_run_options(options);
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    const int ranks = (*parsed)["ranks"].as<int>();
    if (ranks < 1 || ranks > 1 << 20) throw InvalidInput("--ranks must be at least 1, not {}", ranks);
    double device_memory = 0;
    if (parsed->count("device-memory") > 0) {
        device_memory = (*parsed)["device-memory"].as<double>();
        if (!(device_memory > 0)) throw InvalidInput("--device-memory must be a number of GiB above 0");
    }
    const int threads = use_fair_share_of_cores(comm);
    const RunInputs inputs = read_run_inputs(*parsed);
    const auto backend = make_backend((*parsed)["device"].as<std::string>(), inputs.family.config.weight_type());
    const bool on_host = backend->name().rfind("cpu", 0) == 0;
    const MemoryPlan memory = plan_memory(inputs.family, inputs.chunks, inputs.file_tokens, inputs.settings, ranks,
                                          backend->activation_type());
    fmt::print("{} layers of {}, {} calibration tokens and {} pair columns in {} chunks, {} rank{}\n\n",
               inputs.settings.layers, inputs.family.config.architecture, inputs.chunks.hessian_tokens,
               inputs.chunks.pair_columns, inputs.chunks.all.size(), ranks, ranks == 1 ? "" : "s");
    print(on_host ? "memory of each rank: calibration and solver" : "device memory of each rank", memory.device,
          memory.device_peak);
    print(on_host ? "the rest" : "host memory of each rank", memory.host, memory.host_peak);
    if (on_host) fmt::print("{:<34}{:>16}\n", "peak of each rank", mebibytes(memory.shared_peak));

    const double rate = measure_matrix_rate(*backend);
    const Arithmetic arithmetic = count_arithmetic(
        inputs.family, inputs.chunks, AlphaPolicy(inputs.settings.alpha, inputs.family), inputs.settings.layers, ranks);
    // Beside the matrix products a run reads, normalises and rounds: half as much time again, measured on SmolLM2-135M.
    constexpr double overhead = 1.5;
    fmt::print(
        "\ntime: {0:.2f} TFLOP; about {4} where every rank has what this process has, {1:.0f} GFLOP/s with {2} "
        "thread{3}\n",
        arithmetic.total() * 1e-12, rate * 1e-9, threads, threads == 1 ? "" : "s",
        duration(overhead * arithmetic.total() / (rate * ranks)));
    const double limit = device_memory * (1U << 30U);
    const auto needed = static_cast<double>(on_host ? memory.shared_peak : memory.device_peak);
    if (device_memory > 0)
        fmt::print("{} GiB a rank {}: {:.1f} GiB are needed\n", device_memory,
                   needed <= limit ? "suffice" : "do not suffice", needed / (1U << 30U));
    return exit_done;
}

}  // namespace fairgptq::commands
