// Looks the command up, turns exceptions into messages and exit codes.
#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <thread>

#include "backend/backend.hpp"
#include "backend/cpu/blas_core.hpp"
#include "comm/nccl_calls.hpp"
#include "commands/command.hpp"
#include "commands/options.hpp"
#include "support/launcher.hpp"
#include "support/problem.hpp"
#include "support/restart.hpp"
#include "support/say.hpp"

namespace {
using namespace fairgptq;

struct Entry {
    std::string_view name;
    commands::Function function;
    bool uses_ranks;  // otherwise one process does it all, without MPI
    std::string_view summary;
};

constexpr std::array entries{
    Entry{"quantize", commands::quantize, true, "quantize a model, a checkpoint after every layer *"},
    Entry{"sweep", commands::sweep, true, "the same with several values of alpha in one pass, a run for each *"},
    Entry{"watch", commands::watch, false, "a live run's progress, from its log"},
    Entry{"export", commands::export_model, false, "write a finished run as a model that other programs load"},
    Entry{"eval", commands::eval, true, "ability and bias of a model or a run *"},
    Entry{"compare", commands::compare, false, "reports side by side, and which differences are more than noise"},
    Entry{"diverge", commands::diverge, true, "how soon a run leaves the original's greedy continuations *"},
    Entry{"logits", commands::logits, false, "logits of a token file's text"},
    Entry{"plan", commands::plan, false, "memory and time that a run will need"},
    Entry{"inspect", commands::inspect, false, "settings, progress and figures of a run"},
    Entry{"solve", commands::solve, false, "quantize one matrix"},
    Entry{"bench", commands::bench, false, "each kernel's rate, as a share of this machine's matrix-product rate"},
};

void print_usage(std::FILE* stream) {
    fmt::print(stream, "fairgptq {}: quantizes large language models with Fair-GPTQ\n\n", FAIRGPTQ_VERSION);
    for (const Entry& entry : entries)
        fmt::print(stream, "  fairgptq {:<10} {}\n", entry.name, entry.summary);
    fmt::print(stream, "\n* on as many ranks as mpirun or srun starts; the others are one process each\n");
    fmt::print(stream, "fairgptq COMMAND --help shows a command's options.\n");
}

/// A message may quote a damaged file: its control characters must not reach a terminal.
std::string one_line(std::string text) {
    std::replace_if(
        text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
    return text;
}

void complain(const std::string& said, int rank = -1) {
    say("fairgptq: {}{}\n", rank < 0 ? "" : fmt::format("rank {}: ", rank), one_line(said));
}

/// What all ranks meet at once (a file system that goes, say) is said once, as far as a pause can have it so: each rank
/// gives those before it time to say it and to end the job.
void let_lower_ranks_speak(const Communicator& comm) {
    if (comm.rank() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1500 + 500 * std::min(comm.rank(), 5)));
}

/// Runs a command to its exit code. Failures that all ranks share end quietly; one that a rank meets alone ends the
/// job.
int run(const Entry& entry, int argc, char** argv, Communicator& comm) {
    try {
        return entry.function(argc, argv, comm);
    } catch (const SharedFailure& failure) {
        if (comm.rank() == failure.speaker) complain(failure.what(), failure.speaker != 0 ? comm.rank() : -1);
        return failure.exit_code;
    } catch (const std::exception&) {
        const Problem problem = current_problem();
        let_lower_ranks_speak(comm);
        complain(problem.message, comm.size() > 1 ? comm.rank() : -1);
        // The other ranks may be waiting for this one in a collective: end them all.
        if (comm.size() > 1) comm.abort(problem.exit_code);
        return problem.exit_code;
    }
}

/// A descriptor that was closed would be the next file's that is opened, and what is printed would go into it.
void keep_standard_streams_apart() {
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF)
            (void)::open(stream == STDOUT_FILENO ? "/dev/full" : "/dev/null", O_RDWR);
}

/// A result that did not reach its reader is a failure.
int after_output(int code) {
    if (code != exit_done || (std::fflush(stdout) == 0 && std::ferror(stdout) == 0)) return code;
    complain("what was to be printed cannot be written");
    return exit_failed;
}

}  // namespace

int main(int argc, char** argv) {
    restart_for_libraries(argv, better_blas_core());
    keep_standard_streams_apart();
    std::signal(SIGXFSZ, SIG_IGN);  // a file larger than ulimit -f allows is a failed write like any other
    // Malloc, too, gives large blocks back at once (pages.hpp): otherwise it would keep pieces of up to 32 MiB.
    ::mallopt(M_MMAP_THRESHOLD, 4 << 20);
    if (argc < 2) {
        print_usage(stderr);
        return exit_invalid;
    }
    const std::string_view name = argv[1];
    if (name == "--help" || name == "-h" || name == "help") {
        print_usage(stdout);
        return after_output(exit_done);
    }
    if (name == "--version") {
        fmt::print("fairgptq {} ({}), OpenBLAS kernels {}\n", FAIRGPTQ_VERSION,
                   !built_with_cuda()  ? "CPU"
                   : built_with_nccl() ? "CPU, CUDA, NCCL"
                                       : "CPU, CUDA",
                   blas_core());
        return after_output(exit_done);
    }
    for (const Entry& entry : entries) {
        if (entry.name != name) continue;
        spdlog::set_default_logger(spdlog::stderr_color_mt("fairgptq"));
        spdlog::set_pattern("fairgptq: %^%l%$: %v");
        try {
            if (!entry.uses_ranks && launcher_ranks() > 1)
                throw InvalidInput("{} is the work of one process, not of {}: start it without mpirun", name,
                                   launcher_ranks());
            // Who reads along may go; hours of work go on.
            if (entry.uses_ranks) std::signal(SIGPIPE, SIG_IGN);
            const auto comm = entry.uses_ranks ? make_communicator(&argc, &argv) : make_single_rank();
            if (comm->rank() != 0) spdlog::set_level(spdlog::level::err);
            return after_output(run(entry, argc - 1, argv + 1, *comm));
        } catch (const std::exception&) {
            const Problem problem = current_problem();
            complain(problem.message);
            return problem.exit_code;
        }
    }
    say("fairgptq: there is no command '{}'; fairgptq --help lists them\n", name);
    return exit_invalid;
}
