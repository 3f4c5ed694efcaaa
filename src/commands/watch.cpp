// `fairgptq watch`: a live run's progress, from its log; of a failed one, also which files are there.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cxxopts.hpp>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "run/run_directory.hpp"
#include "run/run_lock.hpp"
#include "run/status.hpp"
#include "run/sweep_folder.hpp"

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

/// One run, from look to look.
class Watched {
  public:
    explicit Watched(const std::filesystem::path& run)
        : file_(run / "log.jsonl"), log_(read_log(file_)), holder_(run), status_(read(-1)), age_(status_.age) {}

    void look() {
        std::string now = read_log(file_);
        if (now != log_) {
            log_ = std::move(now);
            grown_ = Clock::now();
            age_ = 0;
        }
        status_ = read(age_ + std::chrono::duration<double>(Clock::now() - grown_).count());
    }
    const RunStatus& status() const { return status_; }
    bool is_over() const { return status_.state != RunState::running && status_.state != RunState::stalled; }

  private:
    RunStatus read(double age) {
        const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
        try {
            RunStatus status = read_status(log_, now, age);
            if (status.state == RunState::running || status.state == RunState::stalled) {
                const std::optional<std::string> gone = holder_.gone();
                if (gone && read_log(file_) == log_) {  // it did not end well meanwhile
                    status.state = RunState::dead;
                    status.message = fmt::format("{} is gone without a word", *gone);
                }
            }
            if (status.state == RunState::failed || status.state == RunState::dead)
                status.finished = layers_on_disk(file_.parent_path(), status.layers);
            return status;
        } catch (const InvalidInput& problem) {
            throw InvalidInput("{}: {}", file_.string(), problem.what());
        }
    }

    using Clock = std::chrono::steady_clock;  // how long the log has stood still does not depend on anybody's clock
    std::filesystem::path file_;
    std::string log_;
    Holder holder_;
    RunStatus status_;
    double age_;  // when the log was last seen to grow
    Clock::time_point grown_ = Clock::now();
};

/// Runs, one or a sweep's, from look to look.
class Watch {
  public:
    explicit Watch(std::filesystem::path folder) : folder_(std::move(folder)) {
        sweep_ = !runs_of_sweep(folder_, "log.jsonl").empty();
        look();
    }

    void look() {
        std::vector<std::filesystem::path> there;
        if (sweep_) there = runs_of_sweep(folder_, "log.jsonl");  // some begin late
        if (there.empty()) there.push_back(folder_);
        std::erase_if(runs_, [&](const auto& run) { return std::ranges::find(there, run.first) == there.end(); });
        for (const std::filesystem::path& path : there) {
            const auto [run, first] = runs_.try_emplace(path, path);
            if (!first) run->second.look();
        }
    }
    bool is_over() const {
        return std::ranges::all_of(runs_, [](const auto& run) { return run.second.is_over(); });
    }
    /// Of several the worst.
    RunState state() const {
        return first_of({RunState::failed, RunState::dead, RunState::stalled, RunState::running, RunState::stopped,
                         RunState::done})
            .second.status()
            .state;
    }
    /// Of several the one that goes on, and is behind; what has gone wrong after it. One that others are ahead of, in a
    /// sweep that goes on, logs nothing until they meet.
    std::string text() const {
        const auto& [path, shown] = first_of({RunState::running, RunState::stalled, RunState::failed, RunState::dead,
                                              RunState::stopped, RunState::done});
        if (!sweep_) return status_text(path.string(), shown.status());
        std::string text = status_text(path.string(), shown.status());
        std::map<std::string, std::vector<std::string>> others;  // by state
        for (const auto& [other, run] : runs_)
            if (other != path) others[name_of(run.status().state)].push_back(other.filename().string());
        for (const auto& [state, names] : others)
            text += fmt::format("  {}: {}\n", state, fmt::join(names, ", "));
        return text;
    }
    /// What text() says but for how long ago that was.
    std::string news() const {
        std::string news;
        for (const auto& [path, run] : runs_)
            news += fmt::format("{} {} {} ", path.string(), name_of(run.status().state), run.status().finished);
        return news;
    }

  private:
    using Run = std::pair<const std::filesystem::path, Watched>;
    /// The first run of the first state that one has; of several the one that is behind.
    const Run& first_of(std::initializer_list<RunState> order) const {
        const auto rank = [&](const Run& run) {
            return std::pair(std::ranges::find(order, run.second.status().state) - order.begin(),
                             run.second.status().finished);
        };
        return *std::ranges::min_element(runs_, {}, rank);
    }

    std::filesystem::path folder_;
    bool sweep_ = false;
    std::map<std::filesystem::path, Watched> runs_;
};

int exit_code_of(RunState state) {
    return state == RunState::done ? exit_done : state == RunState::stopped ? exit_stopped : exit_failed;
}

}  // namespace

int watch(int argc, char** argv, Communicator&) {
    cxxopts::Options options(
        "fairgptq watch",
        "Shows the progress of a run, or of a sweep, until it ends (exit code 0 done, 75 stopped, 1 "
        "failed or dead)");
    options.positional_help("RUN");
    options.add_options()                                                                      //
        ("run", "run directory, or a sweep's", cxxopts::value<std::string>())                  //
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
    Watch watched(run);
    const bool terminal = ::isatty(STDOUT_FILENO) == 1;
    std::int64_t lines_shown = 0;
    std::string news = watched.news();
    for (bool first = true;; first = false) {
        if (!first) {
            std::this_thread::sleep_for(std::chrono::duration<double>(interval));
            watched.look();
            const std::string now = watched.news();
            if (!terminal && now == news) continue;  // in a file, a line for every change
            news = now;
        }
        const std::string text = watched.text();
        if (terminal && lines_shown > 0) fmt::print("\033[{}A\033[J", lines_shown);
        fmt::print("{}", text);
        std::fflush(stdout);
        lines_shown = std::count(text.begin(), text.end(), '\n');
        if (flag(*parsed, "once")) return exit_done;
        if (watched.is_over()) return exit_code_of(watched.state());
    }
}

}  // namespace fairgptq::commands
