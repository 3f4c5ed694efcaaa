// The solver against what the authors' own program computed (../shared/reference/fair_gptq_official.h5).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "backend/backends.hpp"
#include "solver/solve.hpp"
#include "support/hdf5.hpp"

namespace fairgptq {
namespace {

const std::filesystem::path official = std::filesystem::path(FAIRGPTQ_SHARED_DIR) / "reference/fair_gptq_official.h5";

/// tr(E H Eᵀ) of E = W − Q, in float64.
double reconstruction(const std::vector<float>& weights, const std::vector<float>& quantized,
                      const std::vector<float>& hessian, std::int64_t rows, std::int64_t n) {
    double sum = 0;
    std::vector<double> error(static_cast<std::size_t>(n));
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t i = 0; i < n; ++i)
            error[i] = static_cast<double>(weights[r * n + i]) - static_cast<double>(quantized[r * n + i]);
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j < n; ++j)
                sum += error[i] * static_cast<double>(hessian[i * n + j]) * error[j];
    }
    return sum;
}

class Official : public ::testing::TestWithParam<std::string> {};
FAIRGPTQ_ON_BACKENDS(Official);

TEST_P(Official, EveryCaseIsReproduced) {
    if (!std::filesystem::exists(official)) GTEST_SKIP() << "the authors' results are not at " << official;
    const h5::File file = h5::File::open(official);
    const auto backend = make_backend(GetParam());
    const auto on_device = [&](const std::vector<float>& values) {
        Buffer buffer = backend->allocate(values.size() * sizeof(float));
        backend->copy_to_device(buffer.data(), values.data(), buffer.bytes());
        return buffer;
    };
    const auto comm = make_single_rank();
    for (const std::string& name : file.root().names()) {
        SCOPED_TRACE(name);
        const h5::Group group = file.root().group(name);
        std::vector<float> weights = group.read<float>("W", 2);
        std::vector<float> hessian = group.read<float>("H", 2);
        std::vector<float> covariance = group.read<float>("alphaC", 2);
        const std::int64_t rows = group.integer("rows");
        const std::int64_t n = group.integer("cols");
        const double alpha = group.number("alpha");
        if (alpha > 0)
            for (float& value : covariance)
                value = static_cast<float>(value / alpha);

        SolverSettings settings;
        settings.kind = group.integer("sum_hessians") != 0 ? SolverKind::reference : SolverKind::reference_first_order;
        settings.grid.bits = static_cast<int>(group.integer("bits"));
        settings.grid.group_size = group.integer("group_size");
        settings.grid.symmetric = group.number("sym") != 0;
        settings.grid.scale_type = ScaleType::float32;
        settings.order = group.has_attribute("desc_act") && group.number("desc_act") != 0 ? ColumnOrder::activation
                                                                                          : ColumnOrder::none;
        settings.damp = group.number("damp");
        const Buffer device_weights = on_device(weights);
        const Buffer device_hessian = on_device(hessian);
        const Buffer device_covariance = on_device(covariance);
        const StageProblem problem{device_hessian.matrix<const float>(n, n),
                                   device_covariance.matrix<const float>(n, n),
                                   {{name, device_weights.matrix<float>(rows, n), alpha}}};
        const ModuleSolution solution = solve_stage(*backend, *comm, problem, settings).front();

        const std::vector<float> expected = group.read<float>("Q", 2);
        const std::vector<float> scale = group.read<float>("scale", 2);
        const std::vector<float> zero = group.read<float>("zero", 2);
        EXPECT_EQ(solution.group_index, group.read<std::int32_t>("g_idx", 1));
        std::vector<float> quantized(expected.size());
        float largest = 0;
        for (const float value : expected)
            largest = std::max(largest, std::fabs(value));
        std::int64_t equal = 0;
        for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t i = 0; i < n; ++i) {
                const std::int64_t g = r * solution.groups + solution.group_index[i];
                float& value = quantized[r * n + i];
                value = solution.scales[g] * static_cast<float>(solution.codes[r * n + i] - solution.zeros[g]);
                equal += std::fabs(value - expected[r * n + i]) <= 1e-5F * largest ? 1 : 0;
            }
        }
        const double share = static_cast<double>(equal) / static_cast<double>(rows * n);
        EXPECT_GE(share, 0.985);
        RecordProperty(name, std::to_string(share));

        // Scales of groups that begin in the first 128 columns depend on no rounding before them.
        for (std::int64_t g = 0; g * solution.group_size < std::min<std::int64_t>(n, 128); ++g) {
            for (std::int64_t r = 0; r < rows; ++r) {
                const std::int64_t at = r * solution.groups + g;
                EXPECT_NEAR(solution.scales[at], scale[at], 1e-5F * largest) << "row " << r << " group " << g;
                EXPECT_EQ(static_cast<float>(solution.zeros[at]), zero[at]) << "row " << r << " group " << g;
            }
        }
        const double ours = reconstruction(weights, quantized, hessian, rows, n);
        const double theirs = reconstruction(weights, expected, hessian, rows, n);
        EXPECT_NEAR(ours, theirs, 0.005 * theirs);
        EXPECT_NEAR(solution.reconstruction, ours, 1e-4 * ours);
    }
}

}  // namespace
}  // namespace fairgptq
