// `fairgptq quantize`: checks everything a user can get wrong before any work, then hands over to the pipeline.
#include "pipeline/quantize.hpp"

#include <cxxopts.hpp>
#include <memory>
#include <optional>
#include <span>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "commands/residency.hpp"
#include "commands/run_options.hpp"
#include "commands/run_session.hpp"
#include "commands/solver_options.hpp"
#include "run/stop_signal.hpp"

namespace fairgptq::commands {
namespace {

cxxopts::Options make_options() {
    cxxopts::Options options("fairgptq quantize", "Quantizes a model with Fair-GPTQ, a checkpoint after every layer");
    options.add_options()                                                                                         //
        ("out", "run directory to make (or to go on with)", cxxopts::value<std::string>())                        //
        ("resume", "go on with the run directory if it exists")                                                   //
        ("stop-after-layers", "stop cleanly after N more layers (exit code 75)", cxxopts::value<std::int64_t>())  //
        ("h,help", "show this");
    add_solver_options(options);
    add_run_options(options);
    return options;
}

}  // namespace

int quantize(int argc, char** argv, Communicator& comm) {
    PhaseClock clock;
    catch_stop_signals();
    const int threads = use_fair_share_of_cores(comm);
    std::unique_ptr<Backend> backend;
    std::optional<RunInputs> inputs;
    std::filesystem::path out;
    bool resume = false;
    std::int64_t stop_after = -1;
    together(comm, [&] {
        cxxopts::Options options = make_options();
        const auto parsed = parse(options, argc, argv, comm.rank() == 0);
        if (!parsed) return;
        out = required_path(*parsed, "out");
        resume = flag(*parsed, "resume");
        stop_after = read_stop_after(*parsed);
        inputs.emplace(read_run_inputs(*parsed));
        backend =
            make_backend((*parsed)["device"].as<std::string>(), comm.local_rank(), inputs->family.config.weight_type());
    });
    if (!inputs) return exit_done;
    const MemoryPlan memory = plan_run(*inputs, *backend, comm, 1);
    const auto collectives = make_device_collectives(inputs->comm, *backend, comm);
    const OpenedRun opened = open_run(out, resume, run_settings(*inputs), comm);
    return finish_runs(*inputs, std::span(&opened, 1), std::span(&inputs->settings.alpha, 1), stop_after, threads,
                       {*backend, comm, *collectives, memory.residency}, memory, clock);
}

}  // namespace fairgptq::commands
