// A stage's modules as they are solved: those of equal alpha and grid are stacked, one's rows below another's, and
// share one factorization.
#pragma once

#include <cstddef>
#include <vector>

#include "solver/gathering.hpp"
#include "solver/record_copies.hpp"
#include "solver/solve.hpp"

namespace fairgptq {

/// A stack's modules, by their places in the problem.
using StackedModules = std::vector<std::size_t>;
std::vector<StackedModules> stacks_of(const StageProblem& problem);

struct SolvedStack {
    StackedModules modules;
    GatheredGrids grids;                    // on the device
    std::vector<ModuleSolution> solutions;  // a module each, without codes, scales and zeros
};

/// solve_stage without its end: nothing is written where Q is wanted.
std::vector<SolvedStack> solve_stacks(Backend& backend, Communicator& comm, DeviceCollectives& collectives,
                                      const StageProblem& problem, const SolverSettings& settings,
                                      const StageOptions& options);

/// That end: Q where the modules want it, their records in `solutions`, in the problem's order.
/// @param records to which codes, scales and zeros are given, if they are wanted
void place(Backend& backend, const StageProblem& problem, std::vector<SolvedStack> stacks, RecordCopies* records,
           std::vector<ModuleSolution>& solutions);

SolverSettings settings_of(const ModuleTask& module, SolverSettings settings);

/// What a module's record has of the module and of its settings.
ModuleSolution record_of(const ModuleTask& module, const SolverSettings& settings);

}  // namespace fairgptq
