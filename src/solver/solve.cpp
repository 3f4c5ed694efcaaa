// Fair-GPTQ over a stage's modules (docs/method.md "Solvers"). Modules of equal alpha and grid are stacked and
// share one factorization, which ranks compute together; the stack's tiles of 64 rows are dealt to them. Whatever
// decides where a rank goes next (the modules, the damping, whether a weight is finite) is the same at all ranks, so
// none is left waiting in a collective.
#include "solver/solve.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "solver/diagonals.hpp"
#include "solver/gathering.hpp"
#include "solver/order.hpp"
#include "solver/rank_peers.hpp"
#include "solver/record_copies.hpp"
#include "solver/row_shares.hpp"
#include "solver/share.hpp"
#include "solver/stacks.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

class GroupSolver {
  public:
    GroupSolver(Backend& backend, Communicator& comm, DeviceCollectives& collectives, const StageProblem& problem,
                const SolverSettings& settings, const StageOptions& options, const Diagonals& diagonals,
                const StackedModules& stack)
        : backend_(backend),
          comm_(comm),
          collectives_(collectives),
          problem_(problem),
          settings_(settings),
          options_(options),
          diagonals_(diagonals),
          stack_(stack),
          modules_(tasks_of(problem, stack)),
          alpha_(modules_.front()->alpha),
          n_(problem.hessian.cols),
          shares_(rows_of(modules_), comm.size()) {}

    SolvedStack solve();

  private:
    static std::vector<const ModuleTask*> tasks_of(const StageProblem& problem, const StackedModules& stack) {
        std::vector<const ModuleTask*> tasks;
        for (const std::size_t module : stack)
            tasks.push_back(&problem.modules[module]);
        return tasks;
    }
    static std::vector<std::int64_t> rows_of(std::span<const ModuleTask* const> modules) {
        std::vector<std::int64_t> rows;
        for (const ModuleTask* module : modules)
            rows.push_back(module->weights.rows);
        return rows;
    }
    bool joint() const { return settings_.kind == SolverKind::joint; }
    bool shifts() const { return alpha_ > 0; }
    void enter(Phase phase) const {
        if (options_.clock != nullptr) options_.clock->enter(phase);
    }
    void load(Share& share);
    void invert(double alpha, MatrixView<float> inverse);
    void shift_targets(MatrixView<const float> inverse, Share& share);
    void quantize(MatrixView<const float> inverse, Share& share);
    double slowest_since(std::chrono::steady_clock::time_point started) const;
    void measure(Share& share);
    void restore_column_order(Share& share);
    std::vector<ModuleSolution> describe(Share& share, double seconds);

    Backend& backend_;
    Communicator& comm_;
    DeviceCollectives& collectives_;
    const StageProblem& problem_;
    SolverSettings settings_;
    StageOptions options_;
    const Diagonals& diagonals_;
    StackedModules stack_;
    std::vector<const ModuleTask*> modules_;
    double alpha_;
    std::int64_t n_;
    bool whole_rows_ = false;  // what the reference solvers do with a group of all columns depends on how it was said
    RowShares shares_;
    ColumnPlan plan_;
    double damp_used_ = 0;
};

/// R of H + alpha·C + λI in the plan's order, λ = damp · mean diagonal (of H alone in `joint`); damp rises tenfold
/// until it factors.
void GroupSolver::invert(double alpha, MatrixView<float> inverse) {
    constexpr double smallest_raise = 1e-6;  // less than that float32 does not feel
    constexpr double most = 10;
    const double mean = diagonals_.mean(joint() ? 0 : alpha);
    double damp = settings_.damp;
    RankPeers peers(backend_, comm_, collectives_,
                    [&](bool travel) { enter(travel ? Phase::exchange : Phase::factor); });
    for (; damp <= std::max(most, settings_.damp); damp = std::max(10 * damp, smallest_raise)) {
        backend_.combine(problem_.hessian, problem_.covariance, static_cast<float>(alpha),
                         static_cast<float>(damp * mean), plan_.order, inverse);
        if (!backend_.factor_upper(inverse, peers)) continue;
        backend_.invert_upper(inverse, peers);
        damp_used_ = std::max(damp_used_, damp);
        return;
    }
    throw Failure(
        "{}: its Hessian cannot be factored, even damped by {:g} times its mean diagonal; the inputs that it was made "
        "of are not finite or all zero",
        modules_.front()->name, damp / 10);
}

/// W at this rank, dead columns set to 0. @throws Failure, at every rank, if a weight at any rank is not finite
void GroupSolver::load(Share& share) {
    std::vector<std::int32_t> natural(static_cast<std::size_t>(n_));
    std::iota(natural.begin(), natural.end(), 0);
    const auto gather = [&](std::span<const std::uint8_t> dead) {
        for (const RowShares::Segment& segment : shares_.segments_of(comm_.rank()))
            backend_.gather_columns(modules_[segment.module]->weights.rows_from(segment.first_row, segment.rows),
                                    natural, dead, share.weights.rows_from(segment.offset, segment.rows));
    };
    gather({});
    std::int64_t bad = share.figures.module_not_finite(share.weights);
    if (diagonals_.any_dead()) gather(diagonals_.dead);
    enter(Phase::exchange);
    bad = comm_.all_reduce_max(bad);
    enter(Phase::columns);
    if (bad >= 0)
        throw Failure("{}: its weights hold values that are not finite", modules_[static_cast<std::size_t>(bad)]->name);
}

/// share.target −= αWC(…)⁻¹, how far that is, and the bias before, which comes with it.
void GroupSolver::shift_targets(MatrixView<const float> inverse, Share& share) {
    share.figures.take(&TileFigures::bias_before, [&](const RowShares::Segment& segment, std::span<double> bias) {
        backend_.shift_target(share.weights.rows_from(segment.offset, segment.rows), problem_.covariance,
                              static_cast<float>(alpha_), inverse, plan_.order,
                              share.target.rows_from(segment.offset, segment.rows), bias);
    });
    backend_.gather_columns(share.target, plan_.inverse, {}, share.natural);
    share.figures.shift(share.weights, share.natural);
}

/// share.target: targets in, dequantized values out, both in loop order.
void GroupSolver::quantize(MatrixView<const float> inverse, Share& share) {
    const Grid& grid = settings_.grid;
    ColumnProblem columns{
        share.target, inverse,      grid,       ScaleMoment::group_start, share.loop_group_buffer.as<std::int32_t>(),
        share.codes,  share.scales, share.zeros};
    if (!joint() && whole_rows_) {
        columns.scale_moment = ScaleMoment::given;  // a whole row's scale comes from the weights before the shift
        backend_.find_scales(share.weights, grid, share.scales, share.zeros);
    } else if (settings_.static_groups) {
        columns.scale_moment = ScaleMoment::given;
        backend_.gather_columns(share.target, plan_.inverse, {}, share.natural);
        backend_.find_scales(share.natural, grid, share.scales, share.zeros);
    } else if (!joint()) {
        columns.scale_moment = ScaleMoment::block_start;
    }
    backend_.copy_to_device(share.loop_group_buffer.data(), plan_.loop_group.data(),
                            plan_.loop_group.size() * sizeof(std::int32_t));
    backend_.quantize_columns(columns);
}

SolvedStack GroupSolver::solve() {
    const auto started = std::chrono::steady_clock::now();
    whole_rows_ = settings_.grid.group_size == -1;
    settings_.grid.group_size = resolve_group_size(settings_.grid.group_size, n_, modules_.front()->name);
    plan_ = plan_columns(diagonals_.sum(joint() ? alpha_ : 0), settings_.order, settings_.grid.group_size,
                         settings_.static_groups);
    Share share(backend_, shares_, comm_.rank(), n_, n_ / settings_.grid.group_size);
    load(share);
    backend_.gather_columns(share.weights, plan_.order, {}, share.target);

    {
        const std::size_t bytes = static_cast<std::size_t>(n_ * n_) * sizeof(float);
        const bool lent = options_.scratch.size() >= bytes;
        const Buffer buffer = lent ? Buffer() : backend_.allocate(bytes);
        const MatrixView<float> inverse(lent ? reinterpret_cast<float*>(options_.scratch.data()) : buffer.as<float>(),
                                        n_, n_);
        // `joint` shifts and rounds by the same Hessian, and so does the first-order reference; the reference's differ.
        if (settings_.kind == SolverKind::reference && shifts()) {
            enter(Phase::factor);
            invert(alpha_, inverse);
            enter(Phase::columns);
            shift_targets(inverse, share);
        }
        enter(Phase::factor);
        invert(joint() ? alpha_ : 0, inverse);
        enter(Phase::columns);
        if (settings_.kind != SolverKind::reference && shifts()) shift_targets(inverse, share);
        if (options_.keep_target) {
            share.kept_target = backend_.allocate(static_cast<std::size_t>(share.rows * n_) * sizeof(float));
            backend_.gather_columns(share.target, plan_.inverse, {}, share.kept_target.matrix<float>(share.rows, n_));
        }
        quantize(inverse, share);
        restore_column_order(share);
    }
    // What all ranks need of each other travels while the figures are computed.
    enter(Phase::exchange);
    GatheredGrids grids;
    Exchange exchange(collectives_);
    grids = begin_gathering(backend_, shares_, share, exchange);
    enter(Phase::figures);
    measure(share);

    enter(Phase::exchange);
    exchange.finish();
    std::vector<ModuleSolution> solutions = describe(share, slowest_since(started));
    return {stack_, std::move(grids), std::move(solutions)};
}

/// Seconds of the slowest rank.
double GroupSolver::slowest_since(std::chrono::steady_clock::time_point started) const {
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - started);
    return static_cast<double>(comm_.all_reduce_max(took.count())) * 1e-6;
}

/// share.target: dequantized values in loop order; it and share.natural are used up.
void GroupSolver::measure(Share& share) {
    if (settings_.order == ColumnOrder::none) {
        std::swap(share.target, share.natural);
    } else {
        backend_.gather_columns(share.target, plan_.inverse, {}, share.natural);
    }
    if (!problem_.covariance.empty()) {
        if (!shifts()) share.figures.quadratic_forms(share.weights, problem_.covariance, &TileFigures::bias_before);
        share.figures.quadratic_forms(share.natural, problem_.covariance, &TileFigures::bias_after);
        share.column_errors = share.figures.column_errors(share.weights, share.natural, modules_.size());
    }
    backend_.subtract(share.weights, share.natural, share.natural);
    share.figures.quadratic_forms(share.natural, problem_.hessian, &TileFigures::reconstruction);
}

/// Codes travel in the matrix's order. share.natural is used up.
void GroupSolver::restore_column_order(Share& share) {
    if (settings_.order == ColumnOrder::none) return;
    const MatrixView<std::uint8_t> natural(reinterpret_cast<std::uint8_t*>(share.natural.data), share.rows, n_);
    backend_.gather_codes(share.codes, plan_.inverse, natural);
    backend_.copy_on_device(share.codes.data, natural.data, static_cast<std::size_t>(share.rows * n_));
}

/// The modules' records, without their grids.
/// @param seconds of the whole group, of which each module has its rows' part
std::vector<ModuleSolution> GroupSolver::describe(Share& share, double seconds) {
    const auto gather_all = [&](SharedBy by, const auto& mine, std::int64_t width) {
        return gather_from_ranks(comm_, shares_, by, std::span(mine), width);
    };
    std::vector<float> target;
    if (options_.keep_target) {
        std::vector<float> mine(static_cast<std::size_t>(share.rows * n_));
        backend_.copy_to_host(mine.data(), share.kept_target.data(), mine.size() * sizeof(float));
        target = gather_all(SharedBy::rows, std::as_const(mine), n_);
    }
    const auto tiles = gather_all(SharedBy::tiles, share.figures.tiles(), 1);
    const auto columns = static_cast<std::size_t>(n_);
    std::vector<double>& column_errors = share.column_errors;
    column_errors.resize(modules_.size() * columns);  // 0 where there is no C for them to weigh in
    if (!problem_.covariance.empty()) comm_.all_reduce_sum(column_errors);
    std::int64_t all_rows = 0;
    for (const ModuleTask* module : modules_)
        all_rows += module->weights.rows;
    const double seconds_of_row = seconds / static_cast<double>(std::max<std::int64_t>(all_rows, 1));
    std::vector<ModuleSolution> solutions;
    std::int64_t row = 0;
    std::int64_t tile = 0;
    for (std::size_t i = 0; i < modules_.size(); ++i) {
        ModuleSolution solution = record_of(*modules_[i], settings_);
        solution.group_index = plan_.group_index;
        solution.damp_used = damp_used_;
        solution.seconds = seconds_of_row * static_cast<double>(solution.rows);
        if (!target.empty())
            solution.target.assign(target.begin() + row * n_, target.begin() + (row + solution.rows) * n_);
        const std::int64_t count = RowShares::tiles_in(solution.rows);
        put_figures(std::span(tiles).subspan(tile, count), std::span(column_errors).subspan(i * columns, columns),
                    diagonals_.covariance, solution);
        tile += count;
        row += solution.rows;
        solutions.push_back(std::move(solution));
    }
    return solutions;
}

}  // namespace

SolverSettings settings_of(const ModuleTask& module, SolverSettings settings) {
    settings.grid = module.grid.value_or(settings.grid);
    return settings;
}

ModuleSolution record_of(const std::string& name, std::int64_t rows, std::int64_t cols, const Grid& grid) {
    ModuleSolution solution;
    solution.name = name;
    solution.rows = rows;
    solution.cols = cols;
    solution.group_size = resolve_group_size(grid.group_size, cols, name);
    solution.groups = cols / solution.group_size;
    solution.bits = grid.bits;
    solution.symmetric = grid.symmetric;
    solution.scales_float32 = grid.scale_type == ScaleType::float32;
    return solution;
}
ModuleSolution record_of(const ModuleTask& module, const SolverSettings& settings) {
    ModuleSolution solution = record_of(module.name, module.weights.rows, module.weights.cols, settings.grid);
    solution.alpha = module.alpha;
    return solution;
}

std::vector<float> dequantized(const ModuleSolution& module) {
    std::vector<float> values(module.codes.size());
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < module.rows; ++row) {
        for (std::int64_t col = 0; col < module.cols; ++col) {
            const std::int64_t group = row * module.groups + module.group_index[col];
            const std::int64_t at = row * module.cols + col;
            values[at] = module.scales[group] * static_cast<float>(module.codes[at] - module.zeros[group]);
        }
    }
    return values;
}

std::vector<StackedModules> stacks_of(const StageProblem& problem) {
    std::vector<StackedModules> stacks;
    for (std::size_t i = 0; i < problem.modules.size(); ++i) {
        const auto equal = [&](const StackedModules& stack) {
            const ModuleTask &one = problem.modules[stack.front()], &other = problem.modules[i];
            return one.alpha == other.alpha && one.grid == other.grid;
        };
        const auto found = std::ranges::find_if(stacks, equal);
        if (found == stacks.end())
            stacks.push_back({i});
        else
            found->push_back(i);
    }
    return stacks;
}

std::vector<SolvedStack> solve_stacks(Backend& backend, Communicator& comm, DeviceCollectives& collectives,
                                      const StageProblem& problem, const SolverSettings& settings,
                                      const StageOptions& options) {
    if (options.clock != nullptr) options.clock->enter(Phase::columns);
    check(problem);
    for (const ModuleTask& module : problem.modules)
        check(settings_of(module, settings));
    const Diagonals diagonals(backend, problem);
    std::vector<SolvedStack> solved;
    for (const StackedModules& stack : stacks_of(problem)) {
        const SolverSettings own = settings_of(problem.modules[stack.front()], settings);
        solved.push_back(GroupSolver(backend, comm, collectives, problem, own, options, diagonals, stack).solve());
    }
    return solved;
}

void place(Backend& backend, const StageProblem& problem, std::vector<SolvedStack> stacks, RecordCopies* records,
           std::vector<ModuleSolution>& solutions) {
    solutions.resize(problem.modules.size());
    for (SolvedStack& stack : stacks) {
        const std::vector<std::int32_t>& group_index = stack.solutions.front().group_index;
        Buffer on_device;
        std::int64_t row = 0;
        std::vector<std::string> names;
        for (std::size_t i = 0; i < stack.modules.size(); ++i) {
            const ModuleTask& module = problem.modules[stack.modules[i]];
            const std::int64_t rows = module.weights.rows;
            if (!module.dequantized.empty()) {
                if (on_device.bytes() == 0) {
                    on_device = backend.allocate(group_index.size() * sizeof(std::int32_t));
                    backend.copy_to_device(on_device.data(), group_index.data(), on_device.bytes());
                }
                backend.dequantize(stack.grids.codes.rows_from(row, rows), stack.grids.scales.rows_from(row, rows),
                                   stack.grids.zeros.rows_from(row, rows), on_device.as<const std::int32_t>(),
                                   module.dequantized);
            }
            row += rows;
            names.push_back(module.name);
        }
        if (records != nullptr) records->begin(std::move(stack.grids), std::move(names));
        for (std::size_t i = 0; i < stack.modules.size(); ++i)
            solutions[stack.modules[i]] = std::move(stack.solutions[i]);
    }
}

std::vector<ModuleSolution> solve_stage(Backend& backend, Communicator& comm, const StageProblem& problem,
                                        const SolverSettings& settings, const StageOptions& options) {
    const auto through_host = make_host_collectives(backend, comm);
    DeviceCollectives& collectives = options.collectives != nullptr ? *options.collectives : *through_host;
    RecordCopies at_once(backend);
    RecordCopies* records = options.records != nullptr ? options.records : &at_once;
    std::vector<SolvedStack> stacks = solve_stacks(backend, comm, collectives, problem, settings, options);
    if (options.clock != nullptr) options.clock->enter(Phase::columns);
    std::vector<ModuleSolution> solutions;
    place(backend, problem, std::move(stacks), options.keep_grids ? records : nullptr, solutions);
    at_once.finish(solutions);
    return solutions;
}

}  // namespace fairgptq
