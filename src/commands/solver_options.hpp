// The solver's options: the same words for every command that solves.
#pragma once

#include <cxxopts.hpp>
#include <nlohmann/json_fwd.hpp>

#include "solver/settings.hpp"

namespace fairgptq::commands {

/// Adds --alpha and everything that SolverSettings holds.
void add_solver_options(cxxopts::Options& options);

/// @throws InvalidInput naming the option whose value cannot be used
SolverSettings read_solver_settings(const cxxopts::ParseResult& parsed);
/// --alpha. @throws InvalidInput unless it is 0 or more
double read_alpha(const cxxopts::ParseResult& parsed);

/// Every setting by name, for a run's record.
nlohmann::json to_json(const SolverSettings& settings);

}  // namespace fairgptq::commands
