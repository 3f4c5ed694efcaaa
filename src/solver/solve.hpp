// Fair-GPTQ for the modules of one stage: those that share a Hessian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "comm/communicator.hpp"
#include "comm/device_collectives.hpp"
#include "solver/settings.hpp"
#include "support/phase_clock.hpp"

namespace fairgptq {

struct ModuleTask {
    std::string name;    // "self_attn.q_proj", for messages and records
    TensorView weights;  // W [rows, cols] on the device
    double alpha = 0;    // weight of the bias term for this module; 0 is GPTQ
    /// Device memory for Q [rows, cols], rounded to its type; may be that of the weights. Not written if it is empty.
    TensorView dequantized = {};
    std::optional<Grid> grid = {};  // in place of the settings'
};

struct StageProblem {
    MatrixView<const float> hessian;     // H [cols, cols] = (2/N)·XᵀX
    MatrixView<const float> covariance;  // C [cols, cols] = (2/P)·DᵀD, or empty where the calibration has no pairs
    std::vector<ModuleTask> modules;
};

/// A quantized linear and its record. Host memory, the same at every rank that keeps its grids.
struct ModuleSolution {
    std::string name;
    std::int64_t rows = 0, cols = 0, groups = 0;
    int bits = 4;
    std::int64_t group_size = 128;
    bool symmetric = true;
    bool scales_float32 = false;            // scales need more than float16 (--scale-dtype f32)
    std::vector<std::uint8_t> codes;        // [rows, cols], one a byte, natural column order
    std::vector<float> scales;              // [rows, groups], representable in the chosen scale type
    std::vector<std::uint8_t> zeros;        // [rows, groups]
    std::vector<std::int32_t> group_index;  // [cols]
    double alpha = 0;
    double damp_used = 0;
    double reconstruction = 0;  // tr((W−Q)H(W−Q)ᵀ)
    double bias_before = 0;     // tr(WCWᵀ)
    double bias_after = 0;      // tr(QCQᵀ)
    double shift_norm = 0;      // ‖W*−W‖ / ‖W‖
    double seconds =
        0;  // its share of the slowest rank's solve (or of the only one's), without what travels afterwards
    std::vector<float> column_sensitivity;  // [cols]: C_jj · ‖error of column j‖
    std::vector<float> target;              // W* [rows, cols]; only if StageOptions::keep_target
};

/// The numbers of a module's record, by their names in files.
inline constexpr std::array<std::pair<const char*, double ModuleSolution::*>, 7> module_figures{{
    {"alpha", &ModuleSolution::alpha},
    {"damp_used", &ModuleSolution::damp_used},
    {"reconstruction", &ModuleSolution::reconstruction},
    {"bias_before", &ModuleSolution::bias_before},
    {"bias_after", &ModuleSolution::bias_after},
    {"shift_norm", &ModuleSolution::shift_norm},
    {"seconds", &ModuleSolution::seconds},
}};

/// A module's sizes, without contents. @throws InvalidInput as resolve_group_size does
ModuleSolution record_of(const std::string& name, std::int64_t rows, std::int64_t cols, const Grid& grid);

/// Q [rows, cols]: scales · (codes − zeros).
std::vector<float> dequantized(const ModuleSolution& module);

class RecordCopies;

struct StageOptions {
    bool keep_target = false;
    PhaseClock* clock = nullptr;               // gets the time of factor, columns, figures and exchange
    DeviceCollectives* collectives = nullptr;  // of comm's ranks; by default through the host
    std::span<std::byte> scratch =
        {};                           // device memory to work in; where it is large enough, a matrix less is allocated
    bool keep_grids = true;           // codes, scales and zeros in the solutions
    RecordCopies* records = nullptr;  // brings them, when it is told to finish(); by default they are there at once
};

/// Solves every module of a stage. Modules of equal alpha and grid share one factorization; rows are dealt to ranks in
/// tiles of 64, so that a row's result does not depend on the number of ranks; codes and scales are gathered at every
/// rank. If a Hessian does not factor, damping is raised tenfold (a few times); damp_used says what it took.
/// @throws InvalidInput if the group size does not divide a module's width, naming the module and the sizes that do;
/// Failure naming the module if no damping makes the Hessian factor, or a weight is not finite
/// Source: Fair-GPTQ (arXiv 2509.15206), GPTQ (arXiv 2210.17323); docs/method.md "Solvers".
std::vector<ModuleSolution> solve_stage(Backend& backend, Communicator& comm, const StageProblem& problem,
                                        const SolverSettings& settings, const StageOptions& options = {});

/// As many stages as there are ranks, each solved by one of them, so that nothing of a factorization travels: what
/// solve_stage gives, byte for byte (but for the seconds, which are that rank's, and targets, which are not kept).
/// @param problems each rank's own, in rank order, with the same modules at every rank; H and C of one's own alone are
/// read. One without modules is none.
/// @returns solutions of each, in rank order
/// @throws SharedFailure, with the sentence of what solve_stage would throw
std::vector<std::vector<ModuleSolution>> solve_dealt_stages(Backend& backend, Communicator& comm,
                                                            std::span<const StageProblem> problems,
                                                            const SolverSettings& settings,
                                                            const StageOptions& options = {});

/// @throws InvalidInput naming the module if a size disagrees with H's, or its alpha cannot be used
void check(const StageProblem& problem);

/// The group size for a row of `cols` inputs (−1 resolved). @throws InvalidInput as solve_stage says
std::int64_t resolve_group_size(std::int64_t group_size, std::int64_t cols, const std::string& module);

/// Bytes of device memory that solve_stage allocates at one rank, for `plan`; operations' own scratch is not in it, nor
/// the grids of all ranks, nor what parts of factors go through (rank_peers.hpp).
/// @param lent whether StageOptions::scratch is large enough for a matrix of cols · cols
std::size_t solver_bytes(std::int64_t rows, std::int64_t cols, std::int64_t ranks, std::int64_t group_size, bool lent);

/// Codes, scales and zeros of a module.
std::size_t grid_bytes(std::int64_t rows, std::int64_t cols, std::int64_t group_size);

/// Rows of a stage of `rows` that one rank solves, at most.
std::int64_t rows_of_rank(std::int64_t rows, std::int64_t ranks);

}  // namespace fairgptq
