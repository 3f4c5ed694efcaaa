// `fairgptq inspect`: settings, progress and per-module figures of a run.
#include "run/inspect.hpp"

#include <fmt/format.h>

#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "support/json.hpp"

namespace fairgptq::commands {

int inspect(int argc, char** argv, Communicator&) {
    cxxopts::Options options("fairgptq inspect", "Shows settings, progress and figures of a run");
    options.positional_help("RUN");
    options.add_options()                                        //
        ("run", "run directory", cxxopts::value<std::string>())  //
        ("json", "as JSON")                                      //
        ("h,help", "show this");
    options.parse_positional({"run"});
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    if (parsed->count("run") == 0) throw InvalidInput("the run directory is missing: fairgptq inspect RUN");
    const auto report = inspect_json(RunDirectory::open((*parsed)["run"].as<std::string>()));
    fmt::print("{}\n", flag(*parsed, "json") ? json_text(report, 2) : inspect_text(report));
    return exit_done;
}

}  // namespace fairgptq::commands
