#include "commands/run_session.hpp"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "commands/residency.hpp"
#include "commands/solver_options.hpp"
#include "pipeline/arithmetic.hpp"
#include "pipeline/memory_plan.hpp"
#include "pipeline/progress.hpp"
#include "pipeline/quantize.hpp"
#include "pipeline/rank_times.hpp"
#include "pipeline/source_weights.hpp"
#include "run/run_directory.hpp"
#include "run/run_lock.hpp"
#include "run/stop_signal.hpp"
#include "support/phase_clock.hpp"
#include "support/say.hpp"

namespace fairgptq::commands {
namespace {

std::int64_t peak_memory_kib(Communicator& comm) {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return comm.all_reduce_max(usage.ru_maxrss);
}

const char* plural(std::size_t count) {
    return count == 1 ? "" : "s";
}

/// Whatever ends a run is the last thing that its log says, so that `watch` need not guess.
void log_failure(std::span<const RunTarget> targets, const Communicator& comm, const char* what) {
    for (const RunTarget& target : targets) {
        try {
            target.run->log({{"event", "failed"}, {"rank", comm.rank()}, {"message", what}});
        } catch (const std::exception&) {  // a full disk: the message on stderr says so
        }
    }
}

/// What --resume finds: an existing run, or a new one. Rank 0 holds its lock.
struct OpenedRun {
    std::unique_ptr<RunLock> lock;
    RunDirectory run;
    FinishedLayers layers;
    TensorHashes source_tensors;  // of the finished layers
};

/// A collective. @throws SharedFailure, with the sentence of whatever makes the run unusable
OpenedRun open_run(const std::filesystem::path& out, bool resume, const nlohmann::json& settings, Communicator& comm) {
    // Rank 0 makes or repairs; the others only look, after it is done.
    FinishedLayers layers(settings.at("layers").get<std::int64_t>());
    TensorHashes source_tensors;
    std::unique_ptr<RunLock> lock;
    together(comm, [&] {
        if (comm.rank() != 0) return;
        if (!RunDirectory::begun(out)) RunDirectory::require_empty(out);  // no lock in a folder of other things
        lock = RunLock::acquire(out);
        if (resume && RunDirectory::begun(out)) {
            const RunDirectory run = RunDirectory::resume(out, settings);
            layers = run.finished_layers(true, &source_tensors);
        } else {
            RunDirectory::create(out, settings);
        }
    });
    layers = FinishedLayers::from_text(comm.broadcast_string(layers.text(), 0));
    source_tensors = broadcast_hashes(source_tensors, comm);
    // Every rank compares: one that read another model or token file (a stale copy on its node) must not take part.
    std::optional<RunDirectory> run;
    together(comm, [&] { run = RunDirectory::resume(out, settings); });
    return {std::move(lock), std::move(*run), std::move(layers), std::move(source_tensors)};
}

/// --stop-after-layers; −1 where it is not given. @throws InvalidInput
std::int64_t read_stop_after(const cxxopts::ParseResult& parsed) {
    if (parsed.count("stop-after-layers") == 0) return -1;
    const auto layers = parsed["stop-after-layers"].as<std::int64_t>();
    if (layers < 1) throw InvalidInput("--stop-after-layers must be at least 1, not {}", layers);
    return layers;
}

/// Does what is left of the runs in one pass, logs it, and says at rank 0 how it went.
/// @param planned the runs that were opened, in their order
/// @param memory this rank's plan, for the log
/// @returns the exit code
int finish_runs(const RunInputs& inputs, std::span<const OpenedRun> opened, std::span<const PlannedRun> planned,
                std::int64_t stop_after_layers, int threads, const RunResources& resources, const MemoryPlan& memory,
                PhaseClock& clock) {
    Backend& backend = resources.backend;
    Communicator& comm = resources.comm;
    const std::int64_t layers = inputs.settings.layers;
    std::vector<RunTarget> targets;
    std::int64_t finished = layers, there = layers;
    for (std::size_t i = 0; i < opened.size(); ++i) {
        const OpenedRun& one = opened[i];
        finished = std::min(finished, one.layers.first_missing());
        there = std::min(there, one.layers.count());
        if (!one.layers.is_complete()) targets.push_back({&one.run, planned[i].alpha, one.layers, one.source_tensors});
    }
    if (targets.empty()) {
        if (comm.rank() == 0)
            for (const OpenedRun& one : opened)
                say("{} is already complete: {} layers\n", one.run.path().string(), layers);
        return exit_done;
    }
    std::vector<AlphaPolicy> alphas;
    for (const RunTarget& target : targets)
        alphas.emplace_back(target.alpha, inputs.family);
    const std::vector<double> work = layer_work(inputs.family, inputs.chunks, inputs.grids, alphas, layers);
    if (comm.rank() == 0) {
        double tokens = 0, squared_lengths = 0;
        for (const Chunk& chunk : inputs.chunks.all)
            for (std::size_t s = 0; s + 1 < chunk.tokens.offsets.size(); ++s) {
                const auto length = static_cast<double>(chunk.tokens.offsets[s + 1] - chunk.tokens.offsets[s]);
                tokens += length;
                squared_lengths += length * length;
            }
        for (const RunTarget& target : targets) {
            nlohmann::json event{{"event", "start"},
                                 {"ranks", comm.size()},
                                 {"threads", threads},
                                 {"device", backend.name()},
                                 {"comm", resources.collectives.name()},
                                 {"planned_device_bytes", memory.device_peak},
                                 {"spilled_tokens", memory.spilled_tokens},
                                 {"version", FAIRGPTQ_VERSION},
                                 {"layers", layers},
                                 {"forward_tokens", static_cast<std::int64_t>(tokens)},
                                 {"squared_lengths", squared_lengths},
                                 {"hessian_tokens", inputs.chunks.hessian_tokens},
                                 {"pair_columns", inputs.chunks.pair_columns},
                                 {"chunks", inputs.chunks.all.size()},
                                 {"finished_layers", target.layers.count()}};
            if (!work.empty()) event["layer_work"] = work;
            target.run->log(std::move(event));
        }
        for (const std::string& line : what_waits(memory))
            say("{}\n", line);
        const std::string what = there > finished
                                     ? fmt::format("resuming {} layers, of which {} are there,", layers, there)
                                 : finished > 0 ? fmt::format("resuming after layer {} of {} layers", finished, layers)
                                                : fmt::format("quantizing {} layers", layers);
        say("{} with {} calibration tokens and {} pair columns in {} chunks, {} rank{} on {}{}\n", what,
            inputs.chunks.hessian_tokens, inputs.chunks.pair_columns, inputs.chunks.all.size(), comm.size(),
            plural(static_cast<std::size_t>(comm.size())), backend.name(),
            targets.size() == 1 ? "" : fmt::format(", {} runs in one pass", targets.size()));
    }
    const double rate = measure_matrix_rate(backend, comm);
    clock.settle_with([&backend] { backend.synchronize(); });
    clock.charge();
    const double setup = clock.elapsed();
    const PhaseClock::Shown shown(clock, backend.make_timeline());
    Progress progress(clock, layers, comm.rank() == 0, work);
    Outcome outcome{};
    try {
        outcome = quantize_model(inputs.settings, inputs.grids, inputs.family, inputs.checkpoint, inputs.chunks,
                                 targets, stop_after_layers, resources, progress);
    } catch (const SharedFailure& problem) {
        if (comm.rank() == problem.speaker) log_failure(targets, comm, problem.what());
        throw;
    } catch (const std::exception& problem) {
        log_failure(targets, comm, problem.what());
        throw;
    }
    progress.close();
    clock.enter(Phase::exchange);
    const std::int64_t peak_kib = peak_memory_kib(comm);
    const std::int64_t peak_device = comm.all_reduce_max(static_cast<std::int64_t>(backend.taken().value_or(0)));
    clock.charge();
    const double seconds = clock.elapsed();
    const std::vector<RankTimes> times = gather_times(comm, {clock.seconds(), seconds});
    if (comm.rank() != 0) return outcome == Outcome::stopped ? exit_stopped : exit_done;

    nlohmann::json event{
        {"event", outcome == Outcome::stopped ? "stopped" : "done"}, {"seconds", seconds}, {"peak_rss_kib", peak_kib}};
    add_times(event, times);
    std::string of_gpu;
    if (peak_device > 0) {
        event["peak_device_bytes"] = peak_device;
        of_gpu = fmt::format(", {:.2f} of its GPU's, where {:.2f} were planned",
                             static_cast<double>(peak_device) / (1U << 30U),
                             static_cast<double>(memory.device_peak) / (1U << 30U));
    }
    std::string ratio;
    const bool whole =
        std::all_of(targets.begin(), targets.end(), [](const auto& one) { return one.layers.count() == 0; });
    if (outcome == Outcome::done && whole) {  // otherwise it was only a part of it
        const double flop = count_arithmetic(inputs.family, inputs.chunks, inputs.grids, alphas, layers).total();
        const double ratio_to_arithmetic = (seconds - setup) * rate / flop;
        event.update({{"arithmetic_flop", flop}, {"matrix_rate", rate}, {"times_arithmetic", ratio_to_arithmetic}});
        ratio = fmt::format(": {:.2f} times what its {:.2f} TFLOP take at this machine's {:.0f} GFLOP/s",
                            ratio_to_arithmetic, flop * 1e-12, rate * 1e-9);
    }
    for (const RunTarget& target : targets)
        target.run->log(event);
    if (outcome == Outcome::stopped) {
        say("stopped on request; every finished layer is saved, start again with --resume\n");
        return exit_stopped;
    }
    say("done in {:.1f} s with {} rank{} of {} thread{}{}; peak memory {:.2f} GiB a rank{}\n", seconds, comm.size(),
        plural(static_cast<std::size_t>(comm.size())), threads, plural(static_cast<std::size_t>(threads)), ratio,
        static_cast<double>(peak_kib) / (1 << 20), of_gpu);
    say("time: {}\n", times_text(times));
    return exit_done;
}

cxxopts::Options make_options(const RunCommand& command) {
    cxxopts::Options options(fmt::format("fairgptq {}", command.name), command.summary);
    options.add_options()                                                                                         //
        ("out", command.out, cxxopts::value<std::string>())                                                       //
        ("resume", command.resume)                                                                                //
        ("stop-after-layers", "stop cleanly after N more layers (exit code 75)", cxxopts::value<std::int64_t>())  //
        ("h,help", "show this");
    if (command.add_options) command.add_options(options);
    add_solver_options(options);
    add_run_options(options);
    return options;
}

}  // namespace

int make_runs(const RunCommand& command, int argc, char** argv, Communicator& comm) {
    PhaseClock clock;
    catch_stop_signals();
    const int threads = use_share_of_cores(comm);
    std::unique_ptr<Backend> backend;
    std::optional<RunInputs> inputs;
    std::vector<PlannedRun> planned;
    std::filesystem::path out;
    bool resume = false;
    std::int64_t stop_after = -1;
    together(comm, [&] {
        cxxopts::Options options = make_options(command);
        const auto parsed = parse(options, argc, argv, comm.rank() == 0);
        if (!parsed) return;
        out = required_path(*parsed, "out");
        resume = flag(*parsed, "resume");
        stop_after = read_stop_after(*parsed);
        RunInputs read = read_run_inputs(*parsed);
        planned = command.runs(*parsed, read);
        inputs.emplace(std::move(read));
        backend =
            make_backend((*parsed)["device"].as<std::string>(), comm.local_rank(), inputs->family.config.weight_type());
    });
    if (!inputs) return exit_done;
    const auto collectives = make_device_collectives(inputs->comm, *backend, comm);
    const MemoryPlan memory = plan_run(*inputs, *backend, comm, collectives->direct(), planned.size());
    const auto folder = [&](const PlannedRun& run) { return run.folder.empty() ? out : out / run.folder; };
    together(comm, [&] {  // before the first of them is made
        if (comm.rank() != 0 || resume) return;
        for (const PlannedRun& run : planned)
            RunDirectory::require_empty(folder(run));
    });
    std::vector<OpenedRun> opened;
    for (const PlannedRun& run : planned) {
        inputs->settings.alpha = run.alpha;
        opened.push_back(open_run(folder(run), resume, run_settings(*inputs), comm));
    }
    if (comm.rank() == 0) warn_of_settings(*inputs);
    return finish_runs(*inputs, opened, planned, stop_after, threads, {*backend, comm, *collectives, memory.residency},
                       memory, clock);
}

}  // namespace fairgptq::commands
