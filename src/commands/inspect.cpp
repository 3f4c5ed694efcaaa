// `fairgptq inspect`: settings, progress and per-module figures of a run.
#include "run/inspect.hpp"

#include <fmt/format.h>

#include <cxxopts.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "run/sweep_folder.hpp"
#include "support/error.hpp"
#include "support/json.hpp"
#include "support/say.hpp"

namespace fairgptq::commands {

int inspect(int argc, char** argv, Communicator&) {
    cxxopts::Options options("fairgptq inspect",
                             "Shows settings, progress and figures of a run, or what the runs of a sweep came to");
    options.positional_help("RUN");
    options.add_options()                                                      //
        ("run", "run directory, or a sweep's", cxxopts::value<std::string>())  //
        ("json", "as JSON")                                                    //
        ("h,help", "show this");
    options.parse_positional({"run"});
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    if (parsed->count("run") == 0) throw InvalidInput("the run directory is missing: fairgptq inspect RUN");
    const std::filesystem::path folder = (*parsed)["run"].as<std::string>();
    const bool json = flag(*parsed, "json");
    if (const auto runs = runs_of_sweep(folder, "run.json"); !runs.empty()) {
        nlohmann::ordered_json reports = nlohmann::ordered_json::array();
        for (const std::filesystem::path& run : runs)
            try {
                nlohmann::ordered_json report = inspect_json(RunDirectory::open(run));
                if (!json) report["modules"].clear();  // of many runs and experts they would fill the memory
                reports.push_back(std::move(report));
            } catch (const InvalidInput& problem) {
                warn("{}", problem.what());
            }
        if (reports.empty()) throw InvalidInput("{} has no run that can be read", folder.string());
        const nlohmann::ordered_json all{{"sweep", folder.string()}, {"runs", reports}};
        fmt::print("{}\n", json ? json_text(all, 2) : inspect_sweep_text(folder.string(), reports));
        return exit_done;
    }
    const auto report = inspect_json(RunDirectory::open(folder));
    fmt::print("{}\n", json ? json_text(report, 2) : inspect_text(report));
    return exit_done;
}

}  // namespace fairgptq::commands
