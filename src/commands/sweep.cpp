// `fairgptq sweep`: one calibration pass, a run for every α.
#include <fmt/format.h>

#include <cxxopts.hpp>
#include <memory>
#include <optional>
#include <vector>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "commands/residency.hpp"
#include "commands/run_options.hpp"
#include "commands/run_session.hpp"
#include "commands/solver_options.hpp"
#include "commands/sweep_options.hpp"
#include "run/stop_signal.hpp"

namespace fairgptq::commands {
namespace {

cxxopts::Options make_options() {
    cxxopts::Options options("fairgptq sweep",
                             "Quantizes a model with several values of alpha in one pass over the calibration data; "
                             "each is a run of its own, DIR/alpha_VALUE");
    options.add_options()                                                                                         //
        ("out", "folder for the runs, made or gone on with", cxxopts::value<std::string>())                       //
        ("resume", "go on with the runs that exist")                                                              //
        ("stop-after-layers", "stop cleanly after N more layers (exit code 75)", cxxopts::value<std::int64_t>())  //
        ("h,help", "show this");
    add_sweep_options(options);
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
        const std::vector<double> values = read_alphas(*parsed);
        RunInputs read = read_run_inputs(*parsed);
        alphas = sweep_settings(values, read);
        inputs.emplace(std::move(read));
        backend =
            make_backend((*parsed)["device"].as<std::string>(), comm.local_rank(), inputs->family.config.weight_type());
    });
    if (!inputs) return exit_done;
    const MemoryPlan memory = plan_run(*inputs, *backend, comm, alphas.size());
    const auto collectives = make_device_collectives(inputs->comm, *backend, comm);
    std::vector<OpenedRun> opened;
    for (const AlphaSettings& alpha : alphas) {
        inputs->settings.alpha = alpha;
        opened.push_back(open_run(out / fmt::format("alpha_{}", alpha.alpha), resume, run_settings(*inputs), comm));
    }
    return finish_runs(*inputs, opened, alphas, stop_after, threads, {*backend, comm, *collectives, memory.residency},
                       memory, clock);
}

}  // namespace fairgptq::commands
