// One matrix by itself, from file to file: what `fairgptq solve` and the public header do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "solver/solve.hpp"

namespace fairgptq {

/// Host memory, row-major.
struct MatrixCase {
    std::int64_t rows = 0, cols = 0;
    std::vector<float> weights;     // [rows, cols]
    std::vector<float> hessian;     // [cols, cols]
    std::vector<float> covariance;  // [cols, cols], or empty
};

/// Reads W with H and C, or with X, the inputs of pairs, from which the backend computes both (docs/files.md "One
/// matrix").
/// @throws InvalidInput naming file and dataset if one is missing, or check_case refuses it
MatrixCase read_case(const std::filesystem::path& file, Backend& backend);

/// @param where what the message begins with
/// @throws InvalidInput if shapes disagree, a number is not finite, or H or C is not symmetric or has a negative
/// diagonal
void check_case(const MatrixCase& matrix_case, const std::string& where);

/// One rank solves it; the solution holds its target.
ModuleSolution solve_case(Backend& backend, const MatrixCase& matrix_case, const std::string& name, double alpha,
                          const SolverSettings& settings);

/// @throws Failure if the file cannot be written
void write_result(const std::filesystem::path& file, const ModuleSolution& solution);

}  // namespace fairgptq
