// `fairgptq sweep`: one calibration pass, a run for every α.
#include <cxxopts.hpp>

#include "commands/command.hpp"
#include "commands/run_session.hpp"
#include "commands/sweep_options.hpp"
#include "run/sweep_folder.hpp"

namespace fairgptq::commands {

int sweep(int argc, char** argv, Communicator& comm) {
    return make_runs({.name = "sweep",
                      .summary = "Quantizes a model with several values of alpha in one pass over the calibration "
                                 "data; each is a run of its own, DIR/alpha_VALUE",
                      .out = "folder for the runs, made or gone on with",
                      .resume = "go on with the runs that exist",
                      .add_options = add_sweep_options,
                      .runs =
                          [](const cxxopts::ParseResult& parsed, const RunInputs& inputs) {
                              std::vector<PlannedRun> runs;
                              for (const AlphaSettings& alpha : sweep_settings(read_alphas(parsed), inputs))
                                  runs.push_back({name_in_sweep(alpha.alpha), alpha});
                              return runs;
                          }},
                     argc, argv, comm);
}

}  // namespace fairgptq::commands
