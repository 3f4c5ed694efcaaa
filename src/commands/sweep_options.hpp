// --alphas: shared by sweep and plan.
#pragma once

#include <cxxopts.hpp>
#include <vector>

#include "commands/run_options.hpp"

namespace fairgptq::commands {

void add_sweep_options(cxxopts::Options& options);

/// The values of --alphas in the order given.
/// @throws InvalidInput if it is not a list of different numbers of 0 or more, or --alpha is there, too
std::vector<double> read_alphas(const cxxopts::ParseResult& parsed);

/// The runs that one pass makes of them.
/// @throws InvalidInput if the inputs are sequential: then no statistics could be shared
std::vector<AlphaSettings> sweep_settings(const std::vector<double>& alphas, const RunInputs& inputs);

}  // namespace fairgptq::commands
