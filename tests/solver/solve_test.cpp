#include "solver/solve.hpp"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>

#include "comm/together.hpp"
#include "random_problem.hpp"
#include "solver/order.hpp"
#include "support_files/thread_ranks.hpp"

namespace fairgptq {
namespace {

using testing::objective;
using testing::RandomProblem;

const std::unique_ptr<Backend> backend = make_backend("cpu");

ModuleSolution solve(RandomProblem& problem, const SolverSettings& settings, double alpha) {
    return solve_stage(*backend, *make_single_rank(), problem.stage(alpha), settings).front();
}

SolverSettings settings_of(SolverKind kind, std::int64_t group_size = 64) {
    SolverSettings settings;
    settings.kind = kind;
    settings.grid.group_size = group_size;
    return settings;
}

/// Everything but the seconds.
bool same(const ModuleSolution& a, const ModuleSolution& b) {
    return a.codes == b.codes && a.scales == b.scales && a.zeros == b.zeros && a.group_index == b.group_index &&
           a.reconstruction == b.reconstruction && a.bias_before == b.bias_before && a.bias_after == b.bias_after &&
           a.shift_norm == b.shift_norm && a.damp_used == b.damp_used && a.column_sensitivity == b.column_sensitivity &&
           a.target == b.target;
}

TEST(Solve, JointIsNotAboveTheReferenceInItsObjective) {
    int problems = 0;
    int not_above = 0;
    for (unsigned seed = 0; seed < 60; ++seed)
        for (const double alpha : {0.1, 0.5, 2.0}) {
            RandomProblem problem(64, 128, seed, 2 + seed % 7);
            const SolverKind other = seed % 2 == 0 ? SolverKind::reference : SolverKind::reference_first_order;
            ++problems;
            not_above += objective(solve(problem, settings_of(SolverKind::joint), alpha)) <=
                                 objective(solve(problem, settings_of(other), alpha))
                             ? 1
                             : 0;
        }
    EXPECT_GE(not_above, 0.95 * problems) << not_above << " of " << problems;
    RecordProperty("not_above", not_above);
}

TEST(Solve, WithoutTheBiasTermAllSolversAreGptq) {
    RandomProblem problem(70, 256, 1);
    for (const std::int64_t group_size : {std::int64_t{128}, std::int64_t{256}, std::int64_t{-1}}) {
        const ModuleSolution joint = solve(problem, settings_of(SolverKind::joint, group_size), 0);
        EXPECT_TRUE(same(joint, solve(problem, settings_of(SolverKind::reference, group_size), 0)));
        EXPECT_TRUE(same(joint, solve(problem, settings_of(SolverKind::reference_first_order, group_size), 0)));
        EXPECT_EQ(joint.shift_norm, 0);
        // Without C at all, too.
        StageProblem without = problem.stage(0);
        without.covariance = {};
        const ModuleSolution plain =
            solve_stage(*backend, *make_single_rank(), without, settings_of(SolverKind::joint, group_size)).front();
        EXPECT_EQ(plain.codes, joint.codes);
        EXPECT_EQ(plain.reconstruction, joint.reconstruction);
        EXPECT_EQ(plain.bias_before, 0);
    }
}

TEST(Solve, AVerySmallAlphaIsNearlyGptq) {
    RandomProblem problem(64, 128, 2);
    const ModuleSolution gptq = solve(problem, settings_of(SolverKind::joint), 0);
    const ModuleSolution almost = solve(problem, settings_of(SolverKind::joint), 1e-9);
    const auto differing = std::inner_product(gptq.codes.begin(), gptq.codes.end(), almost.codes.begin(), 0,
                                              std::plus<>(), std::not_equal_to<>());
    EXPECT_LE(differing, 0.001 * static_cast<double>(gptq.codes.size()));  // ties
    EXPECT_NEAR(almost.reconstruction, gptq.reconstruction, 0.01 * gptq.reconstruction);
}

TEST(Solve, GptqBeatsRoundingToNearestAndBiasFallsWithAlpha) {
    RandomProblem problem(64, 256, 3);
    RandomProblem uncorrelated = problem;
    for (std::int64_t i = 0; i < problem.n; ++i)
        for (std::int64_t j = 0; j < problem.n; ++j)
            if (i != j) uncorrelated.hessian[i * problem.n + j] = 0;
    const ModuleSolution nearest = solve(uncorrelated, settings_of(SolverKind::joint), 0);
    const ModuleSolution gptq = solve(problem, settings_of(SolverKind::joint), 0);
    // The nearest rounding's error, measured by the whole Hessian.
    double error = 0;
    std::vector<double> difference(static_cast<std::size_t>(problem.n));
    for (std::int64_t r = 0; r < problem.rows; ++r) {
        for (std::int64_t i = 0; i < problem.n; ++i) {
            const std::int64_t group = r * nearest.groups + nearest.group_index[i];
            difference[i] =
                problem.weights[r * problem.n + i] -
                nearest.scales[group] * static_cast<float>(nearest.codes[r * problem.n + i] - nearest.zeros[group]);
        }
        for (std::int64_t i = 0; i < problem.n; ++i)
            for (std::int64_t j = 0; j < problem.n; ++j)
                error += difference[i] * static_cast<double>(problem.hessian[i * problem.n + j]) * difference[j];
    }
    EXPECT_LT(gptq.reconstruction, error);

    double last = gptq.bias_after;
    for (const double alpha : {0.01, 0.1, 1.0}) {
        const ModuleSolution solution = solve(problem, settings_of(SolverKind::joint), alpha);
        EXPECT_LT(solution.bias_after, last);
        // From another order of sums where there is a shift.
        EXPECT_NEAR(solution.bias_before, gptq.bias_before, 1e-6 * gptq.bias_before);
        last = solution.bias_after;
    }
}

TEST(Solve, AReferencesGroupOfAllColumnsIsABlocksUnlessTheRowWasMeant) {
    RandomProblem problem(70, 128, 7);
    StageOptions options;
    options.keep_target = true;
    for (const std::int64_t group_size : {std::int64_t{128}, std::int64_t{-1}}) {
        const SolverSettings settings = settings_of(SolverKind::reference, group_size);
        const ModuleSolution solution =
            solve_stage(*backend, *make_single_rank(), problem.stage(0.5), settings, options).front();
        // What a block begins with is W*; a row's scale is that of W.
        std::vector<float> from = group_size == -1 ? problem.weights : solution.target;
        std::vector<float> scales(70);
        std::vector<std::uint8_t> zeros(70);
        Grid grid = settings.grid;
        grid.group_size = 128;
        backend->find_scales({from.data(), 70, 128}, grid, {scales.data(), 70, 1}, {zeros.data(), 70, 1});
        EXPECT_EQ(solution.group_size, 128);
        EXPECT_EQ(solution.scales, scales) << group_size;
        EXPECT_GT(solution.shift_norm, 0);
    }
}

TEST(Solve, RanksChangeNoBit) {
    // Modules of unequal heights and alphas, one shorter than a tile, none a multiple of one.
    RandomProblem tall(150, 128, 4);
    RandomProblem small(3, 128, 5);
    RandomProblem wide(65, 128, 6);
    for (const SolverKind kind : {SolverKind::joint, SolverKind::reference})
        for (const ColumnOrder order : {ColumnOrder::none, ColumnOrder::activation}) {
            SolverSettings settings = settings_of(kind);
            settings.order = order;
            StageProblem problem = tall.stage(0.1);
            problem.modules = {
                {"q", tall.weight_view(), 0.1}, {"k", small.weight_view(), 0}, {"v", wide.weight_view(), 0.1}};
            StageOptions options;
            options.keep_target = true;
            const auto expected = solve_stage(*backend, *make_single_rank(), problem, settings, options);
            ASSERT_EQ(expected.size(), 3U);
            EXPECT_EQ(expected[1].name, "k");
            EXPECT_EQ(expected[2].rows, 65);
            for (const int ranks : {2, 3, 4, 7}) {  // 7: more than the tiles of either alpha
                SCOPED_TRACE(ranks);
                std::mutex lock;
                testing::run_ranks(ranks, [&](Communicator& comm) {
                    omp_set_num_threads(1);  // the ranks are threads enough
                    const auto result = solve_stage(*backend, comm, problem, settings, options);
                    const std::lock_guard guard(lock);
                    for (std::size_t i = 0; i < expected.size(); ++i)
                        EXPECT_TRUE(same(result[i], expected[i])) << "module " << i << " at rank " << comm.rank();
                });
            }
        }
}

/// A stage for each of four ranks, of different sizes; the third has none.
struct Dealt {
    std::vector<RandomProblem> problems;
    StageProblem stages[4];

    Dealt() : problems{{100, 128, 31}, {70, 64, 32}, {1, 64, 33}, {129, 192, 34}} {
        for (const std::size_t rank : {0, 1, 3})
            stages[rank] = problems[rank].stage(0.1);
        stages[0].modules = {{"gate", problems[0].weight_view(), 0.1},
                             {"up", TensorView(problems[0].weight_view()).rows_from(3, 65), 0},
                             {"both", problems[0].weight_view(), 0.1}};
        stages[3].modules.front().grid = Grid{.bits = 8, .group_size = -1, .scale_type = ScaleType::float32};
    }
    /// As a rank has them: H and C of its own alone.
    std::vector<StageProblem> at(int rank, int ranks) const {
        std::vector<StageProblem> all(stages, stages + ranks);
        for (int other = 0; other < ranks; ++other) {
            StageProblem& stage = all[static_cast<std::size_t>(other)];
            if (other != rank) stage.hessian = stage.covariance = {};
        }
        return all;
    }
};

TEST(DealtStages, AreSolvedAsByOneRank) {
    Dealt dealt;
    for (const ColumnOrder order : {ColumnOrder::none, ColumnOrder::activation})
        for (const int ranks : {1, 2, 3, 4}) {
            SCOPED_TRACE(ranks);
            SolverSettings settings = settings_of(SolverKind::joint);
            settings.order = order;
            std::vector<std::vector<ModuleSolution>> expected;
            for (int rank = 0; rank < ranks; ++rank)
                expected.push_back(dealt.stages[rank].modules.empty()
                                       ? std::vector<ModuleSolution>()
                                       : solve_stage(*backend, *make_single_rank(), dealt.stages[rank], settings));
            std::mutex lock;
            testing::run_ranks(ranks, [&](Communicator& comm) {
                omp_set_num_threads(1);
                std::vector<StageProblem> stages = dealt.at(comm.rank(), ranks);
                std::vector<std::vector<float>> values;  // of each module, at this rank
                for (StageProblem& stage : stages)
                    for (ModuleTask& module : stage.modules) {
                        const std::int64_t rows = module.weights.rows, cols = module.weights.cols;
                        std::vector<float>& own = values.emplace_back(static_cast<std::size_t>(rows * cols));
                        module.dequantized = MatrixView<float>(own.data(), rows, cols);
                    }
                const auto found = solve_dealt_stages(*backend, comm, stages, settings);
                const std::lock_guard guard(lock);
                ASSERT_EQ(found.size(), expected.size());
                std::size_t at = 0;
                for (std::size_t rank = 0; rank < expected.size(); ++rank) {
                    ASSERT_EQ(found[rank].size(), expected[rank].size());
                    for (std::size_t i = 0; i < found[rank].size(); ++i) {
                        const ModuleSolution &one = found[rank][i], &other = expected[rank][i];
                        EXPECT_TRUE(same(one, other)) << other.name << " of " << rank << " at " << comm.rank();
                        EXPECT_EQ(one.name, other.name);
                        EXPECT_EQ(one.rows, other.rows);
                        EXPECT_EQ(one.cols, other.cols);
                        EXPECT_EQ(one.groups, other.groups);
                        EXPECT_EQ(one.scales_float32, other.scales_float32);
                        EXPECT_EQ(one.bits, other.bits);
                        EXPECT_EQ(one.group_size, other.group_size);
                        EXPECT_EQ(one.symmetric, other.symmetric);
                        EXPECT_EQ(one.alpha, other.alpha);
                        EXPECT_GT(one.seconds, 0);
                        const std::vector<float>& q = values[at++];
                        for (std::int64_t row = 0; row < one.rows; ++row)
                            for (std::int64_t col = 0; col < one.cols; ++col) {
                                const auto group = row * one.groups + one.group_index[col];
                                const auto code = one.codes[row * one.cols + col] - one.zeros[group];
                                ASSERT_EQ(q[row * one.cols + col], one.scales[group] * static_cast<float>(code));
                            }
                    }
                }
            });
        }
}

TEST(DealtStages, WhatOneRankMeetsEveryRankHears) {
    Dealt dealt;
    dealt.problems[1].weights[40] = std::numeric_limits<float>::infinity();
    testing::run_ranks(3, [&](Communicator& comm) {
        try {
            solve_dealt_stages(*backend, comm, dealt.at(comm.rank(), 3), settings_of(SolverKind::joint));
            ADD_FAILURE() << "accepted an infinite weight";
        } catch (const SharedFailure& failure) {
            EXPECT_EQ(failure.speaker, 1);
            EXPECT_EQ(std::string(failure.what()).find("layer: its weights hold values that are not finite") == 0,
                      comm.rank() == 1);
        }
        EXPECT_THROW(solve_dealt_stages(*backend, comm, dealt.at(comm.rank(), 2), {}), Failure);
    });
}

TEST(Solve, AModuleMayHaveAGridOfItsOwn) {
    RandomProblem first(100, 128, 7);
    RandomProblem second(70, 128, 8);
    SolverSettings settings = settings_of(SolverKind::joint);
    SolverSettings other = settings;
    other.grid.bits = 8;
    other.grid.group_size = -1;
    other.grid.symmetric = !settings.grid.symmetric;
    StageProblem problem = first.stage(0.1);
    problem.modules.push_back({"second", second.weight_view(), 0.1});
    const StageProblem alike = problem;
    problem.modules[1].grid = other.grid;
    const auto mixed = solve_stage(*backend, *make_single_rank(), problem, settings);
    EXPECT_TRUE(same(mixed[0], solve_stage(*backend, *make_single_rank(), alike, settings)[0]));
    EXPECT_TRUE(same(mixed[1], solve_stage(*backend, *make_single_rank(), alike, other)[1]));
    EXPECT_EQ(mixed[1].bits, 8);
    EXPECT_EQ(mixed[1].groups, 1);
    EXPECT_NE(mixed[1].symmetric, mixed[0].symmetric);
    problem.modules[1].grid->bits = 5;
    EXPECT_THROW(solve_stage(*backend, *make_single_rank(), problem, settings), InvalidInput);
}

TEST(Solve, AModuleDoesNotDependOnTheOthersOfItsStage) {
    RandomProblem first(100, 128, 7);
    RandomProblem second(70, 128, 8);
    StageProblem problem = first.stage(0.1);
    problem.modules.push_back({"second", second.weight_view(), 0.1});
    const auto together = solve_stage(*backend, *make_single_rank(), problem, settings_of(SolverKind::joint));
    problem.modules.erase(problem.modules.begin());
    const auto alone = solve_stage(*backend, *make_single_rank(), problem, settings_of(SolverKind::joint));
    EXPECT_TRUE(same(together[1], alone[0]));
}

TEST(Solve, EqualDiagonalsKeepTheOrder) {
    RandomProblem problem(64, 256, 9);
    // Columns by descending diagonal already: ordering changes nothing.
    for (std::int64_t i = 0; i < problem.n; ++i)
        problem.hessian[i * problem.n + i] = 1000 - static_cast<float>(i / 4);
    const ModuleSolution none = solve(problem, settings_of(SolverKind::joint), 0);
    for (const ColumnOrder order : {ColumnOrder::activation, ColumnOrder::group}) {
        SolverSettings settings = settings_of(SolverKind::joint);
        settings.order = order;
        EXPECT_TRUE(same(none, solve(problem, settings, 0)));
    }
}

TEST(Solve, OrderDecidesTheGroups) {
    RandomProblem problem(64, 256, 10);
    SolverSettings settings = settings_of(SolverKind::joint);
    const auto group_index = [&] { return solve(problem, settings, 0.1).group_index; };
    const std::vector<std::int32_t> neighbours = group_index();
    for (std::int64_t i = 0; i < problem.n; ++i)
        EXPECT_EQ(neighbours[i], i / 64);
    settings.order = ColumnOrder::group;
    EXPECT_EQ(group_index(), neighbours);
    settings.order = ColumnOrder::activation;
    const std::vector<std::int32_t> scrambled = group_index();
    EXPECT_NE(scrambled, neighbours);
    for (std::int32_t group = 0; group < 4; ++group)
        EXPECT_EQ(std::count(scrambled.begin(), scrambled.end(), group), 64);
    settings.static_groups = true;
    EXPECT_EQ(group_index(), neighbours);
}

TEST(Solve, TheReferenceOrdersByHJointByItsOwnHessian) {
    RandomProblem problem(8, 64, 11);
    for (std::int64_t i = 0; i < problem.n; ++i) {
        problem.hessian[i * problem.n + i] = 500 + static_cast<float>(i);
        problem.covariance[i * problem.n + i] = 500 - 2 * static_cast<float>(i);
    }
    SolverSettings settings = settings_of(SolverKind::reference, 32);
    settings.order = ColumnOrder::activation;
    EXPECT_EQ(solve(problem, settings, 1).group_index[0], 1);  // the smallest of diag(H) comes last
    settings.kind = SolverKind::joint;
    EXPECT_EQ(solve(problem, settings, 1).group_index[0], 0);  // the largest of diag(H + C) comes first
}

TEST(Solve, StaticGroupsTakeTheTargetsScales) {
    RandomProblem problem(64, 128, 12);
    SolverSettings settings = settings_of(SolverKind::joint, 32);
    settings.static_groups = true;
    StageOptions options;
    options.keep_target = true;
    ModuleSolution none = solve_stage(*backend, *make_single_rank(), problem.stage(0.1), settings, options).front();
    for (std::int64_t r = 0; r < problem.rows; ++r)
        for (std::int64_t g = 0; g < none.groups; ++g) {
            float largest = 0;
            for (std::int64_t i = 0; i < 32; ++i)
                largest = std::max(largest, std::fabs(none.target[r * 128 + g * 32 + i]));
            EXPECT_EQ(none.scales[r * none.groups + g], to_float(to_half((largest - -largest) / 15)));
        }
    settings.order = ColumnOrder::activation;
    const ModuleSolution ordered = solve(problem, settings, 0.1);
    // The same targets up to rounding: their ordering changed the order of sums.
    for (std::size_t i = 0; i < none.scales.size(); ++i)
        EXPECT_NEAR(ordered.scales[i], none.scales[i], 0.002F * none.scales[i]);
    EXPECT_NE(ordered.codes, none.codes);
}

TEST(Solve, DampingRisesUntilTheHessianFactors) {
    RandomProblem problem(8, 64, 13);
    std::fill(problem.hessian.begin(), problem.hessian.end(), 2.0F);  // of rank 1
    SolverSettings settings = settings_of(SolverKind::joint);
    settings.damp = 1e-9;
    const ModuleSolution solution = solve(problem, settings, 0);
    EXPECT_GT(solution.damp_used, 1e-8);
    EXPECT_LT(solution.damp_used, 1e-3);
    settings.damp = 0;
    EXPECT_GT(solve(problem, settings, 0).damp_used, 0);
    settings.damp = 0.01;
    EXPECT_EQ(solve(problem, settings, 0).damp_used, 0.01);
    // No damping helps against an indefinite matrix; every rank says so.
    problem.hessian[1] = problem.hessian[64] = 1e12F;
    testing::run_ranks(
        2, [&](Communicator& comm) { EXPECT_THROW(solve_stage(*backend, comm, problem.stage(0), settings), Failure); });
}

TEST(Solve, DeadColumnsBecomeZero) {
    RandomProblem problem(64, 128, 14);
    const auto clear = [&](std::vector<float>& matrix, std::int64_t column) {
        for (std::int64_t i = 0; i < problem.n; ++i)
            matrix[i * problem.n + column] = matrix[column * problem.n + i] = 0;
    };
    for (const std::int64_t column : {5, 77}) {
        clear(problem.hessian, column);
        if (column == 5) clear(problem.covariance, column);
    }
    for (const SolverKind kind : {SolverKind::joint, SolverKind::reference, SolverKind::reference_first_order}) {
        const ModuleSolution solution = solve(problem, settings_of(kind), 0.1);
        bool column_77_is_zero = true;
        for (std::int64_t r = 0; r < problem.rows; ++r) {
            EXPECT_EQ(solution.codes[r * 128 + 5], solution.zeros[r * solution.groups]);
            column_77_is_zero =
                column_77_is_zero && solution.codes[r * 128 + 77] == solution.zeros[r * solution.groups + 1];
        }
        EXPECT_FALSE(column_77_is_zero);  // H knows nothing of it, C does
        EXPECT_EQ(solution.damp_used, 0.01);
    }
    std::fill(problem.hessian.begin(), problem.hessian.end(), 0.0F);
    std::fill(problem.covariance.begin(), problem.covariance.end(), 0.0F);
    const ModuleSolution nothing = solve(problem, settings_of(SolverKind::joint), 0.1);
    EXPECT_EQ(std::count(nothing.codes.begin(), nothing.codes.end(), 8), std::ssize(nothing.codes));
}

TEST(Solve, RecordsHoldWhatTheirNamesSay) {
    RandomProblem problem(70, 128, 15);
    StageOptions options;
    options.keep_target = true;
    const double alpha = 0.3;
    const ModuleSolution solution =
        solve_stage(*backend, *make_single_rank(), problem.stage(alpha), settings_of(SolverKind::joint), options)
            .front();
    double before = 0, after = 0, reconstruction = 0, shift = 0, norm = 0;
    std::vector<double> errors(128);
    for (std::int64_t r = 0; r < problem.rows; ++r) {
        std::vector<double> w(128), q(128);
        for (std::int64_t i = 0; i < 128; ++i) {
            const std::int64_t group = r * solution.groups + solution.group_index[i];
            w[i] = problem.weights[r * 128 + i];
            q[i] = solution.scales[group] * static_cast<float>(solution.codes[r * 128 + i] - solution.zeros[group]);
            shift += std::pow(solution.target[r * 128 + i] - w[i], 2);
            norm += w[i] * w[i];
            errors[i] += std::pow(w[i] - q[i], 2);
        }
        for (std::int64_t i = 0; i < 128; ++i)
            for (std::int64_t j = 0; j < 128; ++j) {
                const double h = problem.hessian[i * 128 + j];
                const double c = problem.covariance[i * 128 + j];
                before += w[i] * c * w[j];
                after += q[i] * c * q[j];
                reconstruction += (w[i] - q[i]) * h * (w[j] - q[j]);
            }
    }
    // float32 products of 128 terms that partly cancel.
    EXPECT_NEAR(solution.bias_before, before, 1e-4 * before);
    EXPECT_NEAR(solution.bias_after, after, 1e-4 * before);
    EXPECT_NEAR(solution.reconstruction, reconstruction, 1e-4 * reconstruction);
    EXPECT_NEAR(solution.shift_norm, std::sqrt(shift / norm), 1e-5);
    for (std::int64_t i = 0; i < 128; ++i)
        EXPECT_NEAR(solution.column_sensitivity[i], problem.covariance[i * 129] * std::sqrt(errors[i]),
                    1e-5 * problem.covariance[i * 129]);
    EXPECT_EQ(solution.alpha, alpha);
    EXPECT_EQ(solution.damp_used, 0.01);
}

TEST(Solve, TheTargetMinimisesTheObjective) {
    // ∂J/∂Q = 2(Q − W)(H + λI) + 2αQC is 0 at W*. Damped by all of H's mean diagonal, so that a wrong λ shows.
    RandomProblem problem(4, 64, 16);
    StageOptions options;
    options.keep_target = true;
    SolverSettings settings = settings_of(SolverKind::joint);
    settings.damp = 1;
    const double alpha = 10;
    const ModuleSolution solution =
        solve_stage(*backend, *make_single_rank(), problem.stage(alpha), settings, options).front();
    double mean = 0;
    for (std::int64_t i = 0; i < 64; ++i)
        mean += problem.hessian[i * 65] / 64.0;
    for (std::int64_t r = 0; r < 4; ++r)
        for (std::int64_t j = 0; j < 64; ++j) {
            double gradient =
                settings.damp * mean * (solution.target[r * 64 + j] - static_cast<double>(problem.weights[r * 64 + j]));
            double size = 0;
            for (std::int64_t i = 0; i < 64; ++i) {
                const double t = solution.target[r * 64 + i];
                const double pull =
                    (t - static_cast<double>(problem.weights[r * 64 + i])) * problem.hessian[i * 64 + j];
                const double bias = alpha * t * problem.covariance[i * 64 + j];
                gradient += pull + bias;
                size += std::fabs(pull) + std::fabs(bias);
            }
            // Products of 64 terms, through triangular factors of condition 10.
            EXPECT_NEAR(gradient, 0, 64 * 0x1p-24 * 10 * size);
        }
}

TEST(Solve, UnusableInputIsRefusedByName) {
    RandomProblem problem(64, 96, 17);
    const auto message = [&](const StageProblem& stage, const SolverSettings& settings) -> std::string {
        try {
            solve_stage(*backend, *make_single_rank(), stage, settings);
        } catch (const std::runtime_error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_NE(message(problem.stage(0.1), settings_of(SolverKind::joint, 64)).find("32, or -1"), std::string::npos);
    EXPECT_NE(message(problem.stage(0.1), settings_of(SolverKind::joint, 48)).find("--group-size"), std::string::npos);
    EXPECT_NE(message(problem.stage(-1), settings_of(SolverKind::joint, 32)).find("layer: alpha is -1"),
              std::string::npos);
    StageProblem without = problem.stage(0.1);
    without.covariance = {};
    EXPECT_NE(message(without, settings_of(SolverKind::joint, 32)).find("--alpha 0"), std::string::npos);
    SolverSettings bits = settings_of(SolverKind::joint, 32);
    bits.grid.bits = 5;
    EXPECT_NE(message(problem.stage(0), bits).find("--bits"), std::string::npos);
    // One bad weight, at one of the ranks: all ranks name the module.
    problem.weights[40] = std::numeric_limits<float>::infinity();
    testing::run_ranks(2, [&](Communicator& comm) {
        try {
            solve_stage(*backend, comm, problem.stage(0), settings_of(SolverKind::joint, 32));
            ADD_FAILURE() << "accepted an infinite weight";
        } catch (const Failure& error) {
            EXPECT_NE(std::string(error.what()).find("layer"), std::string::npos);
        }
    });
}

TEST(Solve, DeviceMemoryIsPlanned) {
    const std::size_t one = solver_bytes(4096, 4096, 1, 128, false);
    // H⁻¹'s factor, three copies of the weights, the codes.
    EXPECT_GT(one, 4096U * 4096U * (4 + 12 + 1));
    EXPECT_LT(one, 4096U * 4096U * (4 + 12 + 2));
    EXPECT_LT(solver_bytes(4096, 4096, 4, 128, false), one / 2);
    EXPECT_EQ(solver_bytes(4096, 4096, 1, 128, true), one - std::size_t{4096} * 4096 * 4);
    EXPECT_EQ(solver_bytes(64, 4096, 4, 128, false), solver_bytes(64, 4096, 1, 128, false));
}

}  // namespace
}  // namespace fairgptq
