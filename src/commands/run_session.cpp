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

const char* plural(int count) {
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

/// What one pass makes: the layers that runs lack.
class Pass {
  public:
    /// @param planned the runs that were opened, in their order
    /// @param memory this rank's plan, for the log
    Pass(const RunInputs& inputs, std::span<const OpenedRun> opened, std::span<const PlannedRun> planned, int threads,
         const RunResources& resources, const MemoryPlan& memory)
        : inputs_(inputs), resources_(resources), memory_(memory), threads_(threads), layers_(inputs.settings.layers) {
        finished_ = there_ = layers_;
        for (std::size_t i = 0; i < opened.size(); ++i) {
            const OpenedRun& one = opened[i];
            finished_ = std::min(finished_, one.layers.first_missing());
            there_ = std::min(there_, one.layers.count());
            if (one.layers.is_complete()) continue;
            targets_.push_back({&one.run, planned[i].alpha, one.layers, one.source_tensors});
            alphas_.emplace_back(planned[i].alpha, inputs.family);
        }
    }
    bool is_empty() const { return targets_.empty(); }

    /// Does it, logs it, and says at rank 0 how it went. @returns the exit code
    int run(std::int64_t stop_after_layers, PhaseClock& clock) {
        Backend& backend = resources_.backend;
        Communicator& comm = resources_.comm;
        const std::vector<double> work = layer_work(inputs_.family, inputs_.chunks, inputs_.grids, alphas_, layers_);
        if (comm.rank() == 0) {
            for (const RunTarget& target : targets_)
                target.run->log(start_event(target, work));
            announce();
        }
        const double rate = measure_matrix_rate(backend, comm);
        clock.settle_with([&backend] { backend.synchronize(); });
        clock.charge();
        const double setup = clock.elapsed();
        const PhaseClock::Shown shown(clock, backend.make_timeline());
        Progress progress(clock, layers_, comm.rank() == 0, work);
        Outcome outcome{};
        try {
            outcome = quantize_model(inputs_.settings, inputs_.grids, inputs_.family, inputs_.checkpoint,
                                     inputs_.chunks, targets_, stop_after_layers, resources_, progress);
        } catch (const SharedFailure& problem) {
            if (comm.rank() == problem.speaker) log_failure(targets_, comm, problem.what());
            throw;
        } catch (const std::exception& problem) {
            log_failure(targets_, comm, problem.what());
            throw;
        }
        progress.close();
        clock.enter(Phase::exchange);
        End end{outcome, peak_memory_kib(comm),
                comm.all_reduce_max(static_cast<std::int64_t>(backend.taken().value_or(0)))};
        clock.charge();
        end.seconds = clock.elapsed();
        end.times = gather_times(comm, {clock.seconds(), end.seconds});
        if (comm.rank() == 0) conclude(end, rate, end.seconds - setup);
        return outcome == Outcome::stopped ? exit_stopped : exit_done;
    }

  private:
    /// What all ranks know of how it went.
    struct End {
        Outcome outcome{};
        std::int64_t peak_kib = 0, peak_device = 0;  // of the rank that took most
        double seconds = 0;
        std::vector<RankTimes> times = {};
    };

    nlohmann::json start_event(const RunTarget& target, const std::vector<double>& work) const {
        const Lengths lengths(inputs_.chunks);
        nlohmann::json event{{"event", "start"},
                             {"ranks", resources_.comm.size()},
                             {"threads", threads_},
                             {"device", resources_.backend.name()},
                             {"comm", resources_.collectives.name()},
                             {"planned_device_bytes", memory_.device_peak},
                             {"spilled_tokens", memory_.spilled_tokens},
                             {"version", FAIRGPTQ_VERSION},
                             {"layers", layers_},
                             {"forward_tokens", static_cast<std::int64_t>(lengths.tokens)},
                             {"squared_lengths", lengths.squared},
                             {"hessian_tokens", inputs_.chunks.hessian_tokens},
                             {"pair_columns", inputs_.chunks.pair_columns},
                             {"chunks", inputs_.chunks.all.size()},
                             {"finished_layers", target.layers.count()}};
        if (!work.empty()) event["layer_work"] = work;
        return event;
    }

    void announce() const {
        for (const std::string& line : what_waits(memory_))
            say("{}\n", line);
        const std::string what =
            there_ > finished_ ? fmt::format("resuming {} layers, of which {} are there,", layers_, there_)
            : finished_ > 0    ? fmt::format("resuming after layer {} of {} layers", finished_, layers_)
                               : fmt::format("quantizing {} layers", layers_);
        const int ranks = resources_.comm.size();
        say("{} with {} calibration tokens and {} pair columns in {} chunks, {} rank{} on {}{}\n", what,
            inputs_.chunks.hessian_tokens, inputs_.chunks.pair_columns, inputs_.chunks.all.size(), ranks, plural(ranks),
            resources_.backend.name(),
            targets_.size() == 1 ? "" : fmt::format(", {} runs in one pass", targets_.size()));
    }

    /// @param rate of all ranks together, operations a second; @param busy seconds without the setup
    void conclude(const End& end, double rate, double busy) const {
        constexpr double gibibyte = 1U << 30U;
        const bool stopped = end.outcome == Outcome::stopped;
        nlohmann::json event{
            {"event", stopped ? "stopped" : "done"}, {"seconds", end.seconds}, {"peak_rss_kib", end.peak_kib}};
        add_times(event, end.times);
        std::string of_gpu;
        if (end.peak_device > 0) {
            event["peak_device_bytes"] = end.peak_device;
            of_gpu = fmt::format(", {:.2f} of its GPU's, where {:.2f} were planned",
                                 static_cast<double>(end.peak_device) / gibibyte,
                                 static_cast<double>(memory_.device_peak) / gibibyte);
        }
        std::string ratio;
        const bool whole = std::ranges::all_of(targets_, [](const auto& one) { return one.layers.count() == 0; });
        if (!stopped && whole) {  // otherwise it was only a part of it
            const double flop =
                count_arithmetic(inputs_.family, inputs_.chunks, inputs_.grids, alphas_, layers_).total();
            event.update({{"arithmetic_flop", flop}, {"matrix_rate", rate}, {"times_arithmetic", busy * rate / flop}});
            ratio = fmt::format(": {:.2f} times what its {:.2f} TFLOP take at this machine's {:.0f} GFLOP/s",
                                busy * rate / flop, flop * 1e-12, rate * 1e-9);
        }
        for (const RunTarget& target : targets_)
            target.run->log(event);
        if (stopped) {
            say("stopped on request; every finished layer is saved, start again with --resume\n");
            return;
        }
        const int ranks = resources_.comm.size();
        say("done in {:.1f} s with {} rank{} of {} thread{}{}; peak memory {:.2f} GiB a rank{}\n", end.seconds, ranks,
            plural(ranks), threads_, plural(threads_), ratio, static_cast<double>(end.peak_kib) * 1024 / gibibyte,
            of_gpu);
        say("time: {}\n", times_text(end.times));
    }

    const RunInputs& inputs_;
    const RunResources& resources_;
    const MemoryPlan& memory_;
    int threads_;
    std::int64_t layers_, finished_ = 0, there_ = 0;  // there: not only the first ones
    std::vector<RunTarget> targets_;
    std::vector<AlphaPolicy> alphas_;
};

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
    together(comm, [&] {  // of several, before the first of them is made
        if (comm.rank() != 0 || resume || planned.size() == 1) return;
        for (const PlannedRun& run : planned)
            RunDirectory::require_empty(folder(run));
    });
    std::vector<OpenedRun> opened;
    for (const PlannedRun& run : planned) {
        inputs->settings.alpha = run.alpha;
        opened.push_back(open_run(folder(run), resume, run_settings(*inputs), comm));
    }
    if (comm.rank() == 0) warn_of_settings(*inputs);
    const RunResources resources{*backend, comm, *collectives, memory.residency};
    Pass pass(*inputs, opened, planned, threads, resources, memory);
    if (!pass.is_empty()) return pass.run(stop_after, clock);
    if (comm.rank() == 0)
        for (const OpenedRun& one : opened)
            say("{} is already complete: {} layers\n", one.run.path().string(), inputs->settings.layers);
    return exit_done;
}

}  // namespace fairgptq::commands
