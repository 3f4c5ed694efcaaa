// `fairgptq bench`: options in, a table or JSON out; bench_kernels.hpp has what is timed.
#include <fmt/format.h>

#include <algorithm>
#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "commands/bench_kernels.hpp"
#include "commands/command.hpp"
#include "commands/options.hpp"
#include "solver/settings.hpp"
#include "support/json.hpp"
#include "support/split.hpp"

namespace fairgptq::commands {
namespace {

std::vector<std::string> kernels_named(const std::string& list) {
    if (list == "all") return {bench_kernels.begin(), bench_kernels.end()};
    std::vector<std::string> names;
    for (const std::string& name : split(list)) {
        if (std::ranges::find(bench_kernels, name) == bench_kernels.end())
            throw InvalidInput("--kernels must be all, or a list of {}, not '{}'", fmt::join(bench_kernels, ", "),
                               list);
        names.push_back(name);
    }
    if (names.empty()) throw InvalidInput("--kernels names no kernel; all would be every one");
    return names;
}

}  // namespace

int bench(int argc, char** argv, Communicator& comm) {
    cxxopts::Options options("fairgptq bench",
                             "Each kernel's rate, as a share of this machine's own matrix-product rate");
    options.add_options()  //
        ("model-shape", "smollm2-135m, llama-7b, 8b, 13b or 70b",
         cxxopts::value<std::string>()->default_value("8b"))                                                  //
        ("tokens", "tokens in the chunk", cxxopts::value<std::int64_t>()->default_value("8192"))              //
        ("sequence-length", "tokens of each sequence", cxxopts::value<std::int64_t>()->default_value("512"))  //
        ("group-size", "columns that share a scale", cxxopts::value<std::int64_t>()->default_value("64"))     //
        ("kernels", "all, or a list of covariance, factor, columns, solve (on a GPU), attention, forward",
         cxxopts::value<std::string>()->default_value("all"))                                  //
        ("device", "auto, cpu or cuda", cxxopts::value<std::string>()->default_value("auto"))  //
        ("json", "print JSON")("h,help", "show this");
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    const std::string wanted = (*parsed)["model-shape"].as<std::string>();
    const auto shape = std::ranges::find(bench_shapes, wanted, &BenchShape::name);
    if (shape == bench_shapes.end())
        throw InvalidInput("--model-shape must be one of smollm2-135m, llama-7b, 8b, 13b, 70b, not '{}'", wanted);
    const auto tokens = (*parsed)["tokens"].as<std::int64_t>();
    const auto length = (*parsed)["sequence-length"].as<std::int64_t>();
    if (tokens < 1 || tokens > (1 << 20) || length < 1)
        throw InvalidInput("--tokens must be from 1 to 1048576 and --sequence-length at least 1");
    SolverSettings settings;
    settings.grid.group_size = (*parsed)["group-size"].as<std::int64_t>();
    check(settings);
    const std::vector<std::string> kernels = kernels_named((*parsed)["kernels"].as<std::string>());
    const int threads = use_share_of_cores(comm);
    const auto backend = make_backend((*parsed)["device"].as<std::string>());
    if (kernels == std::vector<std::string>{"solve"} && backend->host_accessible())
        throw InvalidInput("--kernels solve is timed on a GPU only; on a CPU factor and columns are its parts");
    const BenchResult result = run_bench(*backend, *shape, {tokens, length, settings.grid.group_size, kernels});
    if (flag(*parsed, "json")) {
        nlohmann::json json{{"device", backend->name()},
                            {"threads", threads},
                            {"model_shape", wanted},
                            {"matrix_rate", result.float32_rate},
                            {"activation_matrix_rate", result.activation_rate},
                            {"copy_rate", result.copy_rate},
                            {"kernels", nlohmann::json::array()}};
        for (const BenchRow& row : result.rows)
            json["kernels"].push_back({{"kernel", row.kernel},
                                       {"size", row.size},
                                       {"seconds", row.seconds},
                                       {"flop_per_second", row.flop / row.seconds},
                                       {"share_of_matrix_rate", row.share},
                                       {"bytes", row.bytes},
                                       {"share_of_copy_rate", row.copy_share}});
        fmt::print("{}\n", json_text(json, 2));
        return exit_done;
    }
    fmt::print("{}, {} threads, shapes of {}; matrix product of {}, float32: {:.0f} GFLOP/s", backend->name(), threads,
               wanted, result.rate_size, result.float32_rate * 1e-9);
    if (result.activation_rate > 0) fmt::print(", activations' type: {:.0f}", result.activation_rate * 1e-9);
    fmt::print("; copy: {:.0f} GB/s\n\n", result.copy_rate * 1e-9);
    fmt::print("{:<18}{:<22}{:>12}{:>12}{:>24}{:>10}{:>20}\n", "kernel", "size", "time, ms", "GFLOP/s",
               "share of matrix rate", "GB", "share of copy rate");
    for (const BenchRow& row : result.rows)
        fmt::print("{:<18}{:<22}{:>12.2f}{:>12.0f}{:>22.0f} %{:>10.2f}{:>18.0f} %\n", row.kernel, row.size,
                   row.seconds * 1e3, row.flop / row.seconds * 1e-9, row.share * 100, row.bytes * 1e-9,
                   row.copy_share * 100);
    return exit_done;
}

}  // namespace fairgptq::commands
