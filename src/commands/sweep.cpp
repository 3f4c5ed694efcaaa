// `fairgptq sweep`: one calibration pass, a run for every α.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cxxopts.hpp>
#include <memory>
#include <optional>
#include <vector>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "commands/run_options.hpp"
#include "commands/run_session.hpp"
#include "commands/solver_options.hpp"
#include "run/stop_signal.hpp"

namespace fairgptq::commands {
namespace {

/// "0,0.01,0.1": in the order given.
std::vector<double> parse_alphas(const std::string& list) {
    std::vector<double> alphas;
    for (std::size_t begin = 0; begin <= list.size();) {
        const std::size_t end = std::min(list.find(',', begin), list.size());
        double alpha = 0;
        const auto [stop, error] = std::from_chars(list.data() + begin, list.data() + end, alpha);
        if (error != std::errc() || stop != list.data() + end || !std::isfinite(alpha) || alpha < 0)
            throw InvalidInput("--alphas must be numbers of 0 or more with commas between, like 0,0.1,1; '{}' is none",
                               list.substr(begin, end - begin));
        if (std::find(alphas.begin(), alphas.end(), alpha) != alphas.end())
            throw InvalidInput("--alphas has {} twice", alpha);
        alphas.push_back(alpha);
        begin = end + 1;
    }
    return alphas;
}

cxxopts::Options make_options() {
    cxxopts::Options options("fairgptq sweep",
                             "Quantizes a model with several values of alpha in one pass over the calibration data; "
                             "each is a run of its own, DIR/alpha_VALUE");
    options.add_options()                                                                                         //
        ("alphas", "values of alpha, like 0,0.01,0.1,0.5,1,2", cxxopts::value<std::string>())                     //
        ("out", "folder for the runs, made or gone on with", cxxopts::value<std::string>())                       //
        ("resume", "go on with the runs that exist")                                                              //
        ("stop-after-layers", "stop cleanly after N more layers (exit code 75)", cxxopts::value<std::int64_t>())  //
        ("h,help", "show this");
    add_solver_options(options);
    add_run_options(options);
    return options;
}

}  // namespace

int sweep(int argc, char** argv, Communicator& comm) {
    PhaseClock clock;
    catch_stop_signals();
    const int threads = use_fair_share_of_cores(comm);
    std::unique_ptr<Backend> backend;
    std::optional<RunInputs> inputs;
    std::filesystem::path out;
    std::vector<AlphaSettings> alphas;
    bool resume = false;
    std::int64_t stop_after = -1;
    together(comm, [&] {
        cxxopts::Options options = make_options();
        const auto parsed = parse(options, argc, argv, comm.rank() == 0);
        if (!parsed) return;
        out = required_path(*parsed, "out");
        resume = flag(*parsed, "resume");
        stop_after = read_stop_after(*parsed);
        if (parsed->count("alphas") == 0) throw InvalidInput("--alphas is missing, like --alphas 0,0.01,0.1,1");
        if (parsed->count("alpha") > 0) throw InvalidInput("sweep takes its values from --alphas; leave --alpha out");
        const std::vector<double> values = parse_alphas((*parsed)["alphas"].as<std::string>());
        RunInputs read = read_run_inputs(*parsed);
        if (read.settings.inputs == InputsFrom::sequential)
            throw InvalidInput(
                "sweep needs --inputs original: with sequential inputs every alpha's quantized layers change what the "
                "next layers see, so that no statistics could be shared; run quantize once per alpha instead");
        for (const double value : values) {
            alphas.push_back(read.settings.alpha);
            alphas.back().alpha = value;
        }
        inputs.emplace(std::move(read));
        backend = make_backend((*parsed)["device"].as<std::string>(), inputs->family.config.weight_type());
    });
    if (!inputs) return exit_done;
    inputs->weights_hash = hash_weights(inputs->checkpoint, comm);
    std::vector<OpenedRun> opened;
    for (const AlphaSettings& alpha : alphas) {
        inputs->settings.alpha = alpha;
        opened.push_back(open_run(out / fmt::format("alpha_{}", alpha.alpha), resume, run_settings(*inputs), comm));
    }
    return finish_runs(*inputs, opened, alphas, stop_after, threads, *backend, comm, clock);
}

}  // namespace fairgptq::commands
