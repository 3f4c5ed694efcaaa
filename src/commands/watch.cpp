// `fairgptq watch`: a live run's progress, from its log; of a failed one, also which files are there.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cxxopts.hpp>
#include <fstream>
#include <iterator>
#include <optional>
#include <thread>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "run/run_directory.hpp"
#include "run/run_lock.hpp"
#include "run/status.hpp"

namespace fairgptq::commands {
namespace {

std::string read_log(const std::filesystem::path& file) {
    std::error_code ignored;
    std::ifstream in(file, std::ios::binary);
    if (!in || !std::filesystem::is_regular_file(file, ignored))
        throw InvalidInput("{} cannot be read: give the folder of a run that has begun (quantize --out)",
                           file.string());
    return {std::istreambuf_iterator<char>(in), {}};
}

/// Of a run that failed or died: the last layer that it logged may not have reached the disk.
std::int64_t layers_on_disk(const std::filesystem::path& run, std::int64_t layers) {
    std::int64_t there = 0;
    std::error_code ignored;
    for (std::int64_t layer = 0; layer < layers; ++layer)
        if (std::filesystem::exists(RunDirectory::layer_path(run, layer), ignored)) ++there;
    return there;
}

/// Whether the job that holds a run's lock is gone: a process of this machine that is no more, or one of another whose
/// heartbeat has stood still between looks.
class Holder {
  public:
    explicit Holder(std::filesystem::path run) : run_(std::move(run)) {}
    /// @returns who it was, if it is gone
    std::optional<std::string> gone() {
        const std::optional<RunLock::Look> look = RunLock::look(run_);
        const auto now = Clock::now();
        if (!look || look->beat != beat_) changed_ = now;
        beat_ = look ? look->beat : "";
        // Thrice what takes a lock over, as a network file system may show this host what has been.
        if (!look || !(look->gone || now - changed_ > 3 * RunLock::Timing().stale)) return std::nullopt;
        return look->holder;
    }

  private:
    using Clock = std::chrono::steady_clock;
    std::filesystem::path run_;
    std::string beat_;
    Clock::time_point changed_ = Clock::now();
};

RunStatus status_of(const std::filesystem::path& file, const std::string& log, double age, Holder& holder) {
    const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    try {
        RunStatus status = read_status(log, now, age);
        if (status.state == RunState::running || status.state == RunState::stalled) {
            const std::optional<std::string> gone = holder.gone();
            if (gone && read_log(file) == log) {  // it did not end well meanwhile
                status.state = RunState::dead;
                status.message = fmt::format("{} is gone without a word", *gone);
            }
        }
        if (status.state == RunState::failed || status.state == RunState::dead)
            status.finished = layers_on_disk(file.parent_path(), status.layers);
        return status;
    } catch (const InvalidInput& problem) {
        throw InvalidInput("{}: {}", file.string(), problem.what());
    }
}

int exit_code_of(RunState state) {
    return state == RunState::done ? exit_done : state == RunState::stopped ? exit_stopped : exit_failed;
}

}  // namespace

int watch(int argc, char** argv, Communicator&) {
    cxxopts::Options options("fairgptq watch",
                             "Shows a run's progress until it ends (exit code 0 done, 75 stopped, 1 failed or dead)");
    options.positional_help("RUN");
    options.add_options()                                                                      //
        ("run", "run directory", cxxopts::value<std::string>())                                //
        ("once", "show it once (exit code 0)")                                                 //
        ("interval", "seconds between two looks", cxxopts::value<Real>()->default_value("2"))  //
        ("h,help", "show this");
    options.parse_positional({"run"});
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    if (parsed->count("run") == 0) throw InvalidInput("the run directory is missing: fairgptq watch RUN");
    const double interval = real(*parsed, "interval");
    if (!(interval >= 0.01 && interval <= 86400))
        throw InvalidInput("--interval must be from 0.01 to 86400 seconds, not {}", interval);
    const std::filesystem::path run = (*parsed)["run"].as<std::string>();
    const std::filesystem::path file = run / "log.jsonl";

    using Clock = std::chrono::steady_clock;  // how long the log has stood still does not depend on anybody's clock
    const bool terminal = ::isatty(STDOUT_FILENO) == 1;
    std::string log = read_log(file);
    Holder holder(run);
    RunStatus status = status_of(file, log, -1, holder);
    const double age_at_first = status.age;
    auto grown = Clock::now();
    double age_when_grown = age_at_first;
    std::int64_t lines_shown = 0;
    for (bool first = true;; first = false) {
        if (!first) {
            std::this_thread::sleep_for(std::chrono::duration<double>(interval));
            std::string now = read_log(file);
            const bool changed = now != log;
            if (changed) {
                log = std::move(now);
                grown = Clock::now();
                age_when_grown = 0;
            }
            const RunState before = status.state;
            status = status_of(file, log, age_when_grown + std::chrono::duration<double>(Clock::now() - grown).count(),
                               holder);
            if (!terminal && !changed && status.state == before) continue;  // in a file, a line for every change
        }
        const std::string text = status_text(run.string(), status);
        if (terminal && lines_shown > 0) fmt::print("\033[{}A\033[J", lines_shown);
        fmt::print("{}", text);
        std::fflush(stdout);
        lines_shown = std::count(text.begin(), text.end(), '\n');
        if (flag(*parsed, "once")) return exit_done;
        if (status.state != RunState::running && status.state != RunState::stalled) return exit_code_of(status.state);
    }
}

}  // namespace fairgptq::commands
