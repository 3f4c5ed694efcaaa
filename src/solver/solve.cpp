// Fair-GPTQ over a stage's modules (method.md "Two solvers, one code path"). Modules of equal alpha are stacked and
// share one factorization; the stack's tiles of 64 rows are dealt to ranks. Whatever decides where a rank goes next
// (the modules, the damping, whether a weight is finite) is the same at all ranks, so none is left waiting in a
// collective.
#include "solver/solve.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>

#include "solver/order.hpp"
#include "solver/row_shares.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

/// Diagonals of H and C at the host, and what follows from them.
struct Diagonals {
    std::vector<float> hessian, covariance;  // covariance is all 0 where there is none
    std::vector<std::uint8_t> dead;          // H_ii = 0 and C_ii = 0

    Diagonals(Backend& backend, const StageProblem& problem)
        : hessian(static_cast<std::size_t>(problem.hessian.cols)), covariance(hessian.size()), dead(hessian.size()) {
        backend.diagonal(problem.hessian, hessian);
        if (!problem.covariance.empty()) backend.diagonal(problem.covariance, covariance);
        for (std::size_t i = 0; i < dead.size(); ++i)
            dead[i] = hessian[i] == 0 && covariance[i] == 0 ? 1 : 0;
    }
    bool any_dead() const { return std::find(dead.begin(), dead.end(), 1) != dead.end(); }
    /// Of H + alpha·C.
    std::vector<double> sum(double alpha) const {
        std::vector<double> result(hessian.size());
        for (std::size_t i = 0; i < result.size(); ++i)
            result[i] = static_cast<double>(hessian[i]) + alpha * static_cast<double>(covariance[i]);
        return result;
    }
    double mean(double alpha) const {
        const std::vector<double> values = sum(alpha);
        return values.empty() ? 0
                              : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
    }
};

/// Sums over one tile of rows: gathered from all ranks and added in tile order, they do not depend on the number of
/// ranks.
struct TileFigures {
    double reconstruction = 0, bias_before = 0, bias_after = 0, shift = 0, norm = 0;
};

/// One rank's rows of the modules of one alpha: device memory for the solve, host memory for what is gathered after it.
struct Share {
    std::int64_t rows, n, groups;
    Buffer weight_buffer, target_buffer, natural_buffer, code_buffer, scale_buffer, zero_buffer, loop_group_buffer;
    MatrixView<float> weights, target,
        natural;                     // [rows, n]: W; targets, then Q, in loop order; scratch in the matrix's order
    MatrixView<std::uint8_t> codes;  // [rows, n] in loop order
    MatrixView<float> scales;        // [rows, groups]
    MatrixView<std::uint8_t> zeros;  // [rows, groups]

    std::vector<TileFigures> figures;
    std::vector<double> column_errors;  // [tiles][n]
    std::vector<float> host_target;     // [rows][n], if kept

    Share(Backend& backend, std::int64_t row_count, std::int64_t tiles, std::int64_t cols, std::int64_t group_count)
        : rows(row_count),
          n(cols),
          groups(group_count),
          figures(static_cast<std::size_t>(tiles)),
          column_errors(static_cast<std::size_t>(tiles * cols)) {
        const auto elements = static_cast<std::size_t>(rows * n);
        const auto group_elements = static_cast<std::size_t>(rows * groups);
        weight_buffer = backend.allocate(elements * sizeof(float));
        target_buffer = backend.allocate(elements * sizeof(float));
        natural_buffer = backend.allocate(elements * sizeof(float));
        code_buffer = backend.allocate(elements);
        scale_buffer = backend.allocate(group_elements * sizeof(float));
        zero_buffer = backend.allocate(group_elements);
        loop_group_buffer = backend.allocate(static_cast<std::size_t>(n) * sizeof(std::int32_t));
        weights = weight_buffer.matrix<float>(rows, n);
        target = target_buffer.matrix<float>(rows, n);
        natural = natural_buffer.matrix<float>(rows, n);
        codes = code_buffer.matrix<std::uint8_t>(rows, n);
        scales = scale_buffer.matrix<float>(rows, groups);
        zeros = zero_buffer.matrix<std::uint8_t>(rows, groups);
    }
};

/// The grids of all ranks' rows, at the host of every rank: those of the stack, in its order.
struct Gathered {
    std::vector<std::uint8_t> codes;  // [rows, n]
    std::vector<float> scales;        // [rows, groups]
    std::vector<std::uint8_t> zeros;  // [rows, groups]
};

class GroupSolver {
  public:
    GroupSolver(Backend& backend, Communicator& comm, DeviceCollectives& collectives, const StageProblem& problem,
                const SolverSettings& settings, const StageOptions& options, const Diagonals& diagonals,
                std::span<const ModuleTask* const> modules)
        : backend_(backend),
          comm_(comm),
          collectives_(collectives),
          problem_(problem),
          settings_(settings),
          options_(options),
          diagonals_(diagonals),
          modules_(modules),
          alpha_(modules.front()->alpha),
          n_(problem.hessian.cols),
          shares_(rows_of(modules), comm.size()) {}

    std::vector<ModuleSolution> solve();

  private:
    static std::vector<std::int64_t> rows_of(std::span<const ModuleTask* const> modules) {
        std::vector<std::int64_t> rows;
        for (const ModuleTask* module : modules)
            rows.push_back(module->weights.rows);
        return rows;
    }
    bool joint() const { return settings_.kind == SolverKind::joint; }
    bool shifts() const { return alpha_ > 0; }
    void spent(Phase phase) const {
        if (options_.clock != nullptr) options_.clock->spent(phase);
    }
    void load(Share& share);
    void invert(double alpha, MatrixView<float> inverse);
    void shift_targets(MatrixView<const float> inverse, Share& share);
    void quantize(MatrixView<const float> inverse, Share& share);
    /// result[segment's tiles].*figure = tile sums of a·M·aᵀ.
    void quadratic_figures(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                           double TileFigures::*figure, Share& share);
    /// For each tile: Σ (a − b)² of every column, [tiles][n]; b may be empty: 0.
    std::vector<double> tile_errors(MatrixView<const float> a, MatrixView<const float> b, const Share& share);
    void begin_gathering(const Share& share, Gathered& all, Exchange& exchange) const;
    void restore_column_order(std::vector<std::uint8_t>& codes) const;
    std::vector<ModuleSolution> gather(const Share& share, Gathered& all);
    template <class T>
    std::vector<std::size_t> bytes_of_ranks(std::int64_t width, bool by_tile) const;
    template <class T>
    std::vector<T> gather_from_ranks(std::span<const T> mine, std::int64_t width, bool by_tile);

    Backend& backend_;
    Communicator& comm_;
    DeviceCollectives& collectives_;
    const StageProblem& problem_;
    SolverSettings settings_;
    StageOptions options_;
    const Diagonals& diagonals_;
    std::span<const ModuleTask* const> modules_;
    double alpha_;
    std::int64_t n_;
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
    for (; damp <= std::max(most, settings_.damp); damp = std::max(10 * damp, smallest_raise)) {
        backend_.combine(problem_.hessian, problem_.covariance, static_cast<float>(alpha),
                         static_cast<float>(damp * mean), plan_.order, inverse);
        if (!backend_.factor_upper(inverse)) continue;
        backend_.invert_upper(inverse);
        damp_used_ = std::max(damp_used_, damp);
        return;
    }
    throw Failure(
        "{}: its Hessian cannot be factored, even damped by {:g} times its mean diagonal; the inputs that it was made "
        "of "
        "are not finite or all zero",
        modules_.front()->name, damp / 10);
}

/// W at this rank, dead columns set to 0. @throws Failure, at every rank, if a weight at any rank is not finite
void GroupSolver::load(Share& share) {
    std::vector<std::int32_t> natural(static_cast<std::size_t>(n_));
    std::iota(natural.begin(), natural.end(), 0);
    std::int64_t bad = -1;
    for (const RowShares::Segment& segment : shares_.segments_of(comm_.rank())) {
        const MatrixView<float> rows = share.weights.rows_from(segment.offset, segment.rows);
        const TensorView weights = modules_[segment.module]->weights.rows_from(segment.first_row, segment.rows);
        backend_.gather_columns(weights, natural, {}, rows);
        // x − x is 0 for finite x only.
        const std::int64_t tiles = (rows.rows + RowShares::tile_rows - 1) / RowShares::tile_rows;
        std::vector<double> differences(static_cast<std::size_t>(tiles * n_));
        backend_.column_errors(rows, rows, differences);
        if (bad < 0 && std::any_of(differences.begin(), differences.end(), [](double value) { return value != 0; }))
            bad = static_cast<std::int64_t>(segment.module);
        if (diagonals_.any_dead()) backend_.gather_columns(weights, natural, diagonals_.dead, rows);
    }
    spent(Phase::columns);
    bad = comm_.all_reduce_max(bad);
    spent(Phase::exchange);
    if (bad >= 0)
        throw Failure("{}: its weights hold values that are not finite", modules_[static_cast<std::size_t>(bad)]->name);
}

void GroupSolver::quadratic_figures(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                                    double TileFigures::*figure, Share& share) {
    for (const RowShares::Segment& segment : shares_.segments_of(comm_.rank())) {
        std::vector<double> sums(
            static_cast<std::size_t>((segment.rows + RowShares::tile_rows - 1) / RowShares::tile_rows));
        backend_.quadratic_forms(matrix.rows_from(segment.offset, segment.rows), symmetric, sums);
        for (std::size_t tile = 0; tile < sums.size(); ++tile)
            share.figures[static_cast<std::size_t>(segment.first_tile) + tile].*figure = sums[tile];
    }
}

std::vector<double> GroupSolver::tile_errors(MatrixView<const float> a, MatrixView<const float> b, const Share& share) {
    std::vector<double> errors(share.figures.size() * static_cast<std::size_t>(n_));
    for (const RowShares::Segment& segment : shares_.segments_of(comm_.rank())) {
        const std::int64_t tiles = (segment.rows + RowShares::tile_rows - 1) / RowShares::tile_rows;
        backend_.column_errors(a.rows_from(segment.offset, segment.rows),
                               b.empty() ? b : b.rows_from(segment.offset, segment.rows),
                               std::span(errors).subspan(static_cast<std::size_t>(segment.first_tile * n_),
                                                         static_cast<std::size_t>(tiles * n_)));
    }
    return errors;
}

/// share.target −= αWC(…)⁻¹, and how far that is.
void GroupSolver::shift_targets(MatrixView<const float> inverse, Share& share) {
    for (const RowShares::Segment& segment : shares_.segments_of(comm_.rank()))
        backend_.shift_target(share.weights.rows_from(segment.offset, segment.rows), problem_.covariance,
                              static_cast<float>(alpha_), inverse, plan_.order,
                              share.target.rows_from(segment.offset, segment.rows));
    backend_.gather_columns(share.target, plan_.inverse, {}, share.natural);
    const std::vector<double> shift = tile_errors(share.natural, share.weights, share);
    const std::vector<double> norm = tile_errors(share.weights, {}, share);
    for (std::size_t tile = 0; tile < share.figures.size(); ++tile) {
        const auto begin = static_cast<std::ptrdiff_t>(tile) * n_;
        share.figures[tile].shift = std::accumulate(shift.begin() + begin, shift.begin() + begin + n_, 0.0);
        share.figures[tile].norm = std::accumulate(norm.begin() + begin, norm.begin() + begin + n_, 0.0);
    }
}

/// share.target: targets in, dequantized values out, both in loop order.
void GroupSolver::quantize(MatrixView<const float> inverse, Share& share) {
    const Grid& grid = settings_.grid;
    ColumnProblem columns{
        share.target, inverse,      grid,       ScaleMoment::group_start, share.loop_group_buffer.as<std::int32_t>(),
        share.codes,  share.scales, share.zeros};
    if (!joint() && grid.group_size == n_) {
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

std::vector<ModuleSolution> GroupSolver::solve() {
    const auto started = std::chrono::steady_clock::now();
    settings_.grid.group_size = resolve_group_size(settings_.grid.group_size, n_, modules_.front()->name);
    plan_ = plan_columns(diagonals_.sum(joint() ? alpha_ : 0), settings_.order, settings_.grid.group_size,
                         settings_.static_groups);
    Share share(backend_, shares_.rows_of(comm_.rank()), shares_.tiles_of(comm_.rank()), n_,
                n_ / settings_.grid.group_size);
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
            invert(alpha_, inverse);
            spent(Phase::factor);
            shift_targets(inverse, share);
            spent(Phase::columns);
        }
        invert(joint() ? alpha_ : 0, inverse);
        spent(Phase::factor);
        if (settings_.kind != SolverKind::reference && shifts()) shift_targets(inverse, share);
        if (options_.keep_target) {
            backend_.gather_columns(share.target, plan_.inverse, {}, share.natural);
            share.host_target.resize(static_cast<std::size_t>(share.rows * n_));
            backend_.copy_to_host(share.host_target.data(), share.natural.data,
                                  share.host_target.size() * sizeof(float));
        }
        quantize(inverse, share);
        spent(Phase::columns);
    }
    // What all ranks need of each other travels while the figures are computed.
    Gathered all;
    Exchange exchange(collectives_);
    begin_gathering(share, all, exchange);
    spent(Phase::exchange);

    if (settings_.order == ColumnOrder::none) {
        std::swap(share.target, share.natural);
    } else {
        backend_.gather_columns(share.target, plan_.inverse, {}, share.natural);
    }
    if (!problem_.covariance.empty()) {
        quadratic_figures(share.weights, problem_.covariance, &TileFigures::bias_before, share);
        quadratic_figures(share.natural, problem_.covariance, &TileFigures::bias_after, share);
        share.column_errors = tile_errors(share.weights, share.natural, share);
    }
    backend_.subtract(share.weights, share.natural, share.natural);
    quadratic_figures(share.natural, problem_.hessian, &TileFigures::reconstruction, share);
    spent(Phase::figures);

    exchange.finish();
    std::vector<ModuleSolution> solutions = gather(share, all);
    spent(Phase::exchange);
    const auto spent =
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - started);
    const auto slowest = static_cast<double>(comm_.all_reduce_max(spent.count())) * 1e-6;
    std::int64_t rows = 0;
    for (const ModuleTask* module : modules_)
        rows += module->weights.rows;
    for (ModuleSolution& solution : solutions)
        solution.seconds = rows == 0 ? 0 : slowest * static_cast<double>(solution.rows) / static_cast<double>(rows);
    return solutions;
}

/// Bytes of each rank's rows (or tiles), `width` elements each.
template <class T>
std::vector<std::size_t> GroupSolver::bytes_of_ranks(std::int64_t width, bool by_tile) const {
    std::vector<std::size_t> sizes;
    for (int rank = 0; rank < comm_.size(); ++rank)
        sizes.push_back(static_cast<std::size_t>((by_tile ? shares_.tiles_of(rank) : shares_.rows_of(rank)) * width) *
                        sizeof(T));
    return sizes;
}

/// Rows (or tiles) of all ranks end to end: those of the stack, in its order.
template <class T>
std::vector<T> GroupSolver::gather_from_ranks(std::span<const T> mine, std::int64_t width, bool by_tile) {
    const std::vector<std::size_t> sizes = bytes_of_ranks<T>(width, by_tile);
    std::vector<T> all(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}) / sizeof(T));
    comm_.all_gather(std::as_bytes(mine), std::as_writable_bytes(std::span(all)), sizes);
    return all;
}

void GroupSolver::begin_gathering(const Share& share, Gathered& all, Exchange& exchange) const {
    const auto begin = [&]<class T>(MatrixView<T> mine, std::vector<T>& gathered) {
        const std::vector<std::size_t> sizes = bytes_of_ranks<T>(mine.cols, false);
        gathered.resize(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}) / sizeof(T));
        const std::span<const T> values(mine.data, static_cast<std::size_t>(mine.rows * mine.cols));
        exchange.all_gather(std::as_bytes(values), std::as_writable_bytes(std::span(gathered)), sizes);
    };
    begin(share.codes, all.codes);
    begin(share.scales, all.scales);
    begin(share.zeros, all.zeros);
}

/// Codes travel in the order of the loop, and go back to the matrix's.
void GroupSolver::restore_column_order(std::vector<std::uint8_t>& codes) const {
    if (settings_.order == ColumnOrder::none) return;
    const auto rows = static_cast<std::int64_t>(codes.size()) / n_;
#pragma omp parallel
    {
        std::vector<std::uint8_t> in_loop_order(static_cast<std::size_t>(n_));
#pragma omp for schedule(static)
        for (std::int64_t row = 0; row < rows; ++row) {
            std::uint8_t* values = codes.data() + row * n_;
            std::copy(values, values + n_, in_loop_order.begin());
            for (std::int64_t i = 0; i < n_; ++i)
                values[plan_.order[i]] = in_loop_order[i];
        }
    }
}

std::vector<ModuleSolution> GroupSolver::gather(const Share& share, Gathered& all) {
    restore_column_order(all.codes);
    const auto target = options_.keep_target ? gather_from_ranks(std::span<const float>(share.host_target), n_, false)
                                             : std::vector<float>();
    const auto figures = gather_from_ranks(std::span<const TileFigures>(share.figures), 1, true);
    const auto column_errors = gather_from_ranks(std::span<const double>(share.column_errors), n_, true);

    std::vector<ModuleSolution> solutions;
    std::int64_t row = 0;
    std::int64_t tile = 0;
    const auto slice = [&row](const auto& values, std::int64_t width, std::int64_t rows) {
        if (values.empty()) return std::decay_t<decltype(values)>();
        return std::decay_t<decltype(values)>(values.begin() + row * width, values.begin() + (row + rows) * width);
    };
    for (const ModuleTask* module : modules_) {
        ModuleSolution solution;
        solution.name = module->name;
        solution.rows = module->weights.rows;
        solution.cols = n_;
        solution.groups = share.groups;
        solution.bits = settings_.grid.bits;
        solution.group_size = settings_.grid.group_size;
        solution.symmetric = settings_.grid.symmetric;
        solution.scales_float32 = settings_.grid.scale_type == ScaleType::float32;
        solution.codes = slice(all.codes, n_, solution.rows);
        solution.scales = slice(all.scales, share.groups, solution.rows);
        solution.zeros = slice(all.zeros, share.groups, solution.rows);
        solution.target = slice(target, n_, solution.rows);
        solution.group_index = plan_.group_index;
        solution.alpha = alpha_;
        solution.damp_used = damp_used_;

        TileFigures sums;
        std::vector<double> errors(static_cast<std::size_t>(n_));
        for (std::int64_t last = tile + (solution.rows + RowShares::tile_rows - 1) / RowShares::tile_rows; tile < last;
             ++tile) {
            const TileFigures& one = figures[static_cast<std::size_t>(tile)];
            sums.reconstruction += one.reconstruction;
            sums.bias_before += one.bias_before;
            sums.bias_after += one.bias_after;
            sums.shift += one.shift;
            sums.norm += one.norm;
            for (std::int64_t c = 0; c < n_; ++c)
                errors[c] += column_errors[tile * n_ + c];
        }
        solution.reconstruction = sums.reconstruction;
        solution.bias_before = sums.bias_before;
        solution.bias_after = sums.bias_after;
        solution.shift_norm = sums.norm > 0 ? std::sqrt(sums.shift / sums.norm) : 0;
        solution.column_sensitivity.resize(static_cast<std::size_t>(n_));
        for (std::int64_t c = 0; c < n_; ++c)
            solution.column_sensitivity[c] =
                static_cast<float>(static_cast<double>(diagonals_.covariance[c]) * std::sqrt(errors[c]));
        solutions.push_back(std::move(solution));
        row += solutions.back().rows;
    }
    return solutions;
}

void check_problem(const StageProblem& problem) {
    const std::int64_t n = problem.hessian.cols;
    if (problem.hessian.rows != n) throw InvalidInput("H is {} x {}; it must be square", problem.hessian.rows, n);
    if (!problem.covariance.empty() && (problem.covariance.rows != n || problem.covariance.cols != n))
        throw InvalidInput("C is {} x {}; it must be {} x {}, as H is", problem.covariance.rows,
                           problem.covariance.cols, n, n);
    for (const ModuleTask& module : problem.modules) {
        if (module.weights.cols != n)
            throw InvalidInput("{} has {} input columns, and its Hessian {}; they must agree", module.name,
                               module.weights.cols, n);
        if (!std::isfinite(module.alpha) || module.alpha < 0)
            throw InvalidInput("{}: alpha is {}; it must be 0 or more", module.name, module.alpha);
        if (module.alpha > 0 && problem.covariance.empty())
            throw InvalidInput("{}: alpha is {}, and there are no pairs to take bias from; give pairs, or --alpha 0",
                               module.name, module.alpha);
    }
}

}  // namespace

std::int64_t resolve_group_size(std::int64_t group_size, std::int64_t cols, const std::string& module) {
    if (group_size == -1) return cols;
    if (group_size > 0 && cols % group_size == 0) return group_size;
    std::string fitting;
    for (const std::int64_t size : {32, 64, 128, 256})
        if (cols % size == 0) fitting += fmt::format("{}, ", size);
    throw InvalidInput("{}: --group-size {} does not divide its {} input columns; {}-1 (the whole row) would", module,
                       group_size, cols, fitting.empty() ? "" : fitting + "or ");
}

std::vector<ModuleSolution> solve_stage(Backend& backend, Communicator& comm, const StageProblem& problem,
                                        const SolverSettings& settings, const StageOptions& options) {
    check(settings);
    check_problem(problem);
    const Diagonals diagonals(backend, problem);
    const auto through_host = make_host_collectives(backend, comm);
    DeviceCollectives& collectives = options.collectives != nullptr ? *options.collectives : *through_host;
    std::vector<ModuleSolution> solutions(problem.modules.size());
    std::vector<bool> solved(problem.modules.size());
    for (std::size_t first = 0; first < problem.modules.size(); ++first) {
        if (solved[first]) continue;
        std::vector<std::size_t> members;
        std::vector<const ModuleTask*> modules;
        for (std::size_t i = first; i < problem.modules.size(); ++i) {
            if (problem.modules[i].alpha != problem.modules[first].alpha) continue;
            solved[i] = true;
            members.push_back(i);
            modules.push_back(&problem.modules[i]);
        }
        std::vector<ModuleSolution> group =
            GroupSolver(backend, comm, collectives, problem, settings, options, diagonals, modules).solve();
        for (std::size_t i = 0; i < members.size(); ++i)
            solutions[members[i]] = std::move(group[i]);
    }
    return solutions;
}

std::int64_t rows_of_rank(std::int64_t rows, std::int64_t ranks) {
    const std::int64_t tiles = (rows + RowShares::tile_rows - 1) / RowShares::tile_rows;
    return std::min(rows, (tiles + ranks - 1) / ranks * RowShares::tile_rows);
}

std::size_t solver_bytes(std::int64_t rows, std::int64_t cols, std::int64_t ranks, const SolverSettings& settings,
                         bool lent) {
    const std::int64_t groups =
        settings.grid.group_size > 0 ? (cols + settings.grid.group_size - 1) / settings.grid.group_size : 1;
    constexpr std::int64_t real = sizeof(float);
    const std::int64_t per_row = cols * (3 * real + 1) + groups * (real + 1);
    return static_cast<std::size_t>(rows_of_rank(rows, ranks) * per_row + (lent ? 0 : cols * cols * real) +
                                    cols * static_cast<std::int64_t>(sizeof(std::int32_t)));
}

}  // namespace fairgptq
