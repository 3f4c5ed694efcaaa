// `fairgptq quantize`: one run.
#include <cxxopts.hpp>

#include "commands/command.hpp"
#include "commands/run_session.hpp"

namespace fairgptq::commands {

int quantize(int argc, char** argv, Communicator& comm) {
    return make_runs({.name = "quantize",
                      .summary = "Quantizes a model with Fair-GPTQ, a checkpoint after every layer",
                      .out = "run directory to make (or to go on with)",
                      .resume = "go on with the run directory if it exists",
                      .add_options = {},
                      .runs =
                          [](const cxxopts::ParseResult&, const RunInputs& inputs) {
                              return std::vector<PlannedRun>{{{}, inputs.settings.alpha}};
                          }},
                     argc, argv, comm);
}

}  // namespace fairgptq::commands
