// The solver on a GPU against the solver on the CPU, on the same problems. Rounding is greedy: a tie that falls the
// other way sends what follows another way, too, so single codes may differ, and objectives hardly.
#include <gtest/gtest.h>

#include <cmath>

#include "random_problem.hpp"
#include "solver/solve.hpp"
#include "support_files/thread_ranks.hpp"

namespace fairgptq {
namespace {

using testing::RandomProblem;

/// A random problem on a device.
class DeviceProblem {
  public:
    DeviceProblem(Backend& backend, const RandomProblem& problem)
        : backend_(backend),
          rows_(problem.rows),
          n_(problem.n),
          weights_(on_device(problem.weights)),
          hessian_(on_device(problem.hessian)),
          covariance_(on_device(problem.covariance)) {}
    StageProblem stage(double alpha) const {
        return {hessian_.matrix<const float>(n_, n_),
                covariance_.matrix<const float>(n_, n_),
                {{"the matrix", weights_.matrix<float>(rows_, n_), alpha}}};
    }

  private:
    Buffer on_device(const std::vector<float>& values) {
        Buffer buffer = backend_.allocate(values.size() * sizeof(float));
        backend_.copy_to_device(buffer.data(), values.data(), buffer.bytes());
        return buffer;
    }
    Backend& backend_;
    std::int64_t rows_, n_;
    Buffer weights_, hessian_, covariance_;
};

ModuleSolution solve(Backend& backend, const RandomProblem& problem, const SolverSettings& settings, double alpha) {
    return solve_stage(backend, *make_single_rank(), DeviceProblem(backend, problem).stage(alpha), settings, {true})
        .front();
}

double objective(const ModuleSolution& solution) {
    return solution.reconstruction + solution.alpha * solution.bias_after;
}

class CudaSolve : public ::testing::Test {
  protected:
    void SetUp() override {
        try {
            cuda = make_backend("cuda");
        } catch (const InvalidInput& error) {
            GTEST_SKIP() << "not tested on a GPU: " << error.what();
        }
        cpu = make_backend("cpu");
    }
    std::unique_ptr<Backend> cuda, cpu;
};

std::vector<SolverSettings> every_kind_of_settings() {
    std::vector<SolverSettings> all;
    for (const SolverKind kind : {SolverKind::joint, SolverKind::reference, SolverKind::reference_first_order})
        for (const ColumnOrder order : {ColumnOrder::none, ColumnOrder::activation, ColumnOrder::group})
            for (const std::int64_t group : {std::int64_t{64}, std::int64_t{256}, std::int64_t{-1}})
                for (const bool symmetric : {true, false}) {
                    SolverSettings settings;
                    settings.kind = kind;
                    settings.order = order;
                    settings.grid.group_size = group;
                    settings.grid.symmetric = symmetric;
                    settings.static_groups = order == ColumnOrder::activation && symmetric;
                    settings.grid.scale_search = order == ColumnOrder::group ? ScaleSearch::mse : ScaleSearch::none;
                    all.push_back(settings);
                }
    return all;
}

TEST_F(CudaSolve, ObjectivesAreTheCpus) {
    // Several blocks and panels of columns, several tiles of rows.
    for (const auto& [rows, n] : {std::pair{70, 256}, std::pair{70, 1280}}) {
        const RandomProblem problem(rows, n, 3);
        for (const SolverSettings& settings : every_kind_of_settings()) {
            SCOPED_TRACE(fmt::format("{} x {}, {}, order {}, groups of {}, symmetric {}", rows, n,
                                     to_string(settings.kind), to_string(settings.order), settings.grid.group_size,
                                     settings.grid.symmetric));
            for (const double alpha : {0.0, 0.5}) {
                const ModuleSolution found = solve(*cuda, problem, settings, alpha);
                const ModuleSolution expected = solve(*cpu, problem, settings, alpha);
                EXPECT_NEAR(objective(found), objective(expected), 0.005 * objective(expected));
                EXPECT_NEAR(found.bias_before, expected.bias_before, 1e-4 * expected.bias_before);
                EXPECT_NEAR(found.shift_norm, expected.shift_norm, 1e-3 * expected.shift_norm);
                EXPECT_EQ(found.damp_used, expected.damp_used);
                EXPECT_EQ(found.group_index, expected.group_index);
                std::size_t same = 0;
                for (std::size_t i = 0; i < found.codes.size(); ++i)
                    same += found.codes[i] == expected.codes[i] ? 1 : 0;
                EXPECT_GE(static_cast<double>(same), 0.97 * static_cast<double>(found.codes.size()));
            }
        }
    }
}

TEST_F(CudaSolve, TheSameRunTwiceGivesTheSameBytes) {
    const RandomProblem problem(200, 1280, 4);
    const auto bytes = [&] {
        const std::unique_ptr<Backend> fresh = make_backend("cuda");
        const ModuleSolution found = solve(*fresh, problem, {}, 0.5);
        return std::tuple(found.codes, found.scales, found.zeros, found.target, found.reconstruction, found.bias_after,
                          found.column_sensitivity);
    };
    EXPECT_EQ(bytes(), bytes());
}

TEST_F(CudaSolve, ARowsResultDoesNotDependOnTheRowsBesideIt) {
    const RandomProblem all(256, 640, 5);
    const ModuleSolution whole = solve(*cuda, all, {}, 0.5);
    for (const std::int64_t first : {0, 64, 192}) {
        RandomProblem part = all;
        part.rows = 64;
        part.weights.assign(all.weights.begin() + first * all.n, all.weights.begin() + (first + 64) * all.n);
        const ModuleSolution alone = solve(*cuda, part, {}, 0.5);
        EXPECT_TRUE(std::equal(alone.codes.begin(), alone.codes.end(), whole.codes.begin() + first * all.n));
        EXPECT_TRUE(std::equal(alone.target.begin(), alone.target.end(), whole.target.begin() + first * all.n));
    }
}

TEST_F(CudaSolve, AHessianThatDoesNotFactorIsDampedFurther) {
    RandomProblem problem(64, 128, 6);
    for (std::int64_t i = 0; i < 128; ++i)
        for (std::int64_t j = 0; j < 128; ++j)
            problem.hessian[static_cast<std::size_t>(i * 128 + j)] = 1;  // of rank 1
    SolverSettings settings;
    settings.damp = 0;
    const ModuleSolution found = solve(*cuda, problem, settings, 0);
    const ModuleSolution expected = solve(*cpu, problem, settings, 0);
    EXPECT_GT(found.damp_used, 0);
    EXPECT_LE(found.damp_used, 10 * expected.damp_used);
}

}  // namespace
}  // namespace fairgptq
