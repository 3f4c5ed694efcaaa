// `fairgptq quantize`: checks everything a user can get wrong before any work, then hands over to the pipeline.
#include "pipeline/quantize.hpp"

#include <fmt/format.h>
#include <sys/resource.h>

#include <cxxopts.hpp>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "commands/run_options.hpp"
#include "commands/solver_options.hpp"
#include "model/family.hpp"
#include "model/safetensors.hpp"
#include "model/weights.hpp"
#include "pipeline/arithmetic.hpp"
#include "run/run_directory.hpp"
#include "run/run_lock.hpp"
#include "run/stop_signal.hpp"
#include "solver/solve.hpp"
#include "support/checksum.hpp"

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

/// What --resume finds: an existing run, or a new one. Rank 0 holds its lock.
struct OpenedRun {
    std::unique_ptr<RunLock> lock;
    RunDirectory run;
    std::int64_t finished;
};

OpenedRun open_run(const std::filesystem::path& out, bool resume, const nlohmann::json& settings, Communicator& comm) {
    // Rank 0 makes or repairs; the others only look, after it is done.
    std::int64_t finished = 0;
    std::unique_ptr<RunLock> lock;
    together(comm, [&] {
        if (comm.rank() != 0) return;
        if (!RunDirectory::begun(out)) RunDirectory::require_empty(out);  // no lock in a folder of other things
        lock = RunLock::acquire(out);
        if (resume && RunDirectory::begun(out)) {
            const RunDirectory run = RunDirectory::resume(out, settings);
            finished = run.finished_layers(true);
        } else {
            RunDirectory::create(out, settings);
        }
    });
    finished = comm.all_reduce_max(finished);
    // Every rank compares: one that read another model or token file (a stale copy on its node) must not take part.
    std::optional<RunDirectory> run;
    together(comm, [&] { run = RunDirectory::resume(out, settings); });
    return {std::move(lock), std::move(*run), finished};
}

void report_end(const RunDirectory& run, const Arithmetic& arithmetic, double rate, std::int64_t finished,
                double seconds, int threads, Communicator& comm) {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const std::int64_t peak_kib = comm.all_reduce_max(usage.ru_maxrss);
    if (comm.rank() != 0) return;
    const double gib = static_cast<double>(peak_kib) / (1 << 20);
    nlohmann::json event{{"event", "done"}, {"seconds", seconds}, {"peak_rss_kib", peak_kib}};
    std::string ratio;
    if (finished == 0) {  // a resumed run did only a part of the arithmetic
        const double times = seconds * rate / arithmetic.total();
        event.update({{"arithmetic_flop", arithmetic.total()}, {"matrix_rate", rate}, {"times_arithmetic", times}});
        ratio = fmt::format(": {:.2f} times what its {:.2f} TFLOP take at this machine's {:.0f} GFLOP/s", times,
                            arithmetic.total() * 1e-12, rate * 1e-9);
    }
    run.log(event);
    fmt::print(stderr, "done in {:.1f} s with {} rank{} of {} thread{}{}; peak memory {:.2f} GiB a rank\n", seconds,
               comm.size(), comm.size() == 1 ? "" : "s", threads, threads == 1 ? "" : "s", ratio, gib);
}

/// Reads every tensor once, ranks sharing the work. @returns one hash of all
std::string hash_weights(const Checkpoint& checkpoint, Communicator& comm) {
    std::vector<std::uint64_t> mine;
    together(comm, [&] { mine = hash_tensors(checkpoint, comm.rank(), comm.size()); });
    std::vector<std::uint64_t> all(mine.size() * static_cast<std::size_t>(comm.size()));
    const std::vector<std::size_t> sizes(static_cast<std::size_t>(comm.size()), mine.size() * sizeof(std::uint64_t));
    comm.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)), sizes);
    for (std::size_t i = 0; i < all.size(); ++i)
        mine[i % mine.size()] |= all[i];
    return hash_of(std::as_bytes(std::span(mine)));
}

}  // namespace

int quantize(int argc, char** argv, Communicator& comm) {
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
        if (parsed->count("stop-after-layers") > 0) {
            stop_after = (*parsed)["stop-after-layers"].as<std::int64_t>();
            if (stop_after < 1) throw InvalidInput("--stop-after-layers must be at least 1, not {}", stop_after);
        }
        inputs.emplace(read_run_inputs(*parsed));
        backend = make_backend((*parsed)["device"].as<std::string>());
    });
    if (!inputs) return exit_done;
    inputs->weights_hash = hash_weights(inputs->checkpoint, comm);
    const auto [lock, run, finished] = open_run(out, resume, run_settings(*inputs), comm);
    const std::int64_t layers = inputs->settings.layers;
    if (finished == layers) {
        if (comm.rank() == 0) fmt::print(stderr, "{} is already complete: {} layers\n", out.string(), layers);
        return exit_done;
    }
    if (comm.rank() == 0) {
        run.log({{"event", "start"},
                 {"ranks", comm.size()},
                 {"threads", threads},
                 {"device", backend->name()},
                 {"version", FAIRGPTQ_VERSION},
                 {"finished_layers", finished}});
        fmt::print(stderr, "{} {} layers with {} calibration tokens and {} pair columns in {} chunks, {} rank{}\n",
                   finished > 0 ? fmt::format("resuming after layer {} of", finished) : "quantizing", layers,
                   inputs->chunks.hessian_tokens, inputs->chunks.pair_columns, inputs->chunks.all.size(), comm.size(),
                   comm.size() == 1 ? "" : "s");
    }
    const double rate = measure_matrix_rate(*backend, comm);
    Progress progress(layers, comm.rank() == 0);
    const Outcome outcome = quantize_model(inputs->settings, inputs->family, inputs->checkpoint, inputs->chunks, run,
                                           finished, stop_after, *backend, comm, progress);
    progress.close();
    if (outcome == Outcome::stopped) {
        if (comm.rank() == 0) {
            run.log({{"event", "stopped"}, {"seconds", progress.seconds()}});
            fmt::print(stderr, "stopped on request; every finished layer is saved, start again with --resume\n");
        }
        return exit_stopped;
    }
    const AlphaPolicy alpha(inputs->settings.alpha, inputs->family);
    report_end(run, count_arithmetic(inputs->family, inputs->chunks, alpha, layers, comm.size()), rate, finished,
               progress.seconds(), threads, comm);
    return exit_done;
}

}  // namespace fairgptq::commands
