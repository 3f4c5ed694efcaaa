#include "backend/scatter.hpp"

#include <numeric>

#include "backends.hpp"

namespace fairgptq::testing {
namespace {

class ScatterTest : public BackendTest {};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(ScatterTest);

/// The first of so many, in disorder.
std::vector<std::int32_t> distinct_ids(std::int64_t count, std::int64_t tokens) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::mt19937(5));
    ids.resize(static_cast<std::size_t>(count));
    return ids;
}

TEST_P(ScatterTest, FollowsTheDefinition) {
    for (const std::int64_t rows : {0, 1, 5, 255, 256, 257})
        for (const std::int64_t cols : {0, 1, 7, 8, 9, 576, 2040, 2048, 2056}) {
            if (rows > 5 && cols > 9) continue;  // enough is enough
            for (const std::int64_t tokens : {rows, 2 * rows + 1}) {
                const HostMatrix x = rounded(random_matrix(rows, cols, 1));
                const HostMatrix y = rounded(random_matrix(tokens, cols, 2));
                const std::vector<float> factors = random_matrix(1, rows, 3).values;
                const std::vector<std::int32_t> ids = distinct_ids(rows, tokens);
                const DeviceMatrix inputs = upload(x);
                const DeviceMatrix output = upload(y);
                backend->scatter_rows(inputs.view, ids, factors, output.view);
                const HostMatrix sum = download(output.view);
                std::vector<double> expected(y.values.begin(), y.values.end());
                std::vector<double> bounds(expected.size(), 0);  // a row that is not named keeps its bits
                for (std::int64_t row = 0; row < rows; ++row)
                    for (std::int64_t col = 0; col < cols; ++col) {
                        const auto r = static_cast<std::size_t>(row);
                        const auto place = static_cast<std::size_t>(ids[r] * cols + col);
                        const double product = static_cast<double>(factors[r]) * static_cast<double>(x(row, col));
                        const double before = expected[place];
                        expected[place] += product;
                        // A product and a sum in float32, and one rounding to the type; float16's smallest steps.
                        bounds[place] = 2 * float32_roundoff * (std::fabs(product) + std::fabs(before)) +
                                        unit_roundoff(type) * std::fabs(expected[place]) + 1e-7;
                    }
                for (std::size_t i = 0; i < expected.size(); ++i)
                    ASSERT_NEAR(sum.values[i], expected[i], bounds[i]) << rows << " x " << cols << ", element " << i;
                EXPECT_EQ(download(inputs.view).values, x.values) << "inputs are only read";
            }
        }
}

TEST_P(ScatterTest, RowsBeyondTheOutputAreRefused) {
    const DeviceMatrix inputs = device_matrix(1, 4, type);
    const DeviceMatrix output = device_matrix(5, 4, type);
    const std::vector<float> factors{1};
    for (const std::int32_t id : {-1, 5}) {
        const std::vector<std::int32_t> ids{id};
        EXPECT_THROW(backend->scatter_rows(inputs.view, ids, factors, output.view), Failure);
    }
}

TEST_P(ScatterTest, SizesThatDisagreeAreRefused) {
    const DeviceMatrix inputs = device_matrix(2, 4, type);
    const DeviceMatrix output = device_matrix(5, 4, type);
    const DeviceMatrix narrow = device_matrix(5, 3, type);
    const std::vector<std::int32_t> one{0}, two{0, 1};
    const std::vector<float> factor{1}, factors{1, 1};
    EXPECT_THROW(backend->scatter_rows(inputs.view, one, factor, output.view), Failure);
    EXPECT_THROW(backend->scatter_rows(inputs.view, one, factors, output.view), Failure);
    EXPECT_THROW(backend->scatter_rows(inputs.view, two, factor, output.view), Failure);
    EXPECT_THROW(backend->scatter_rows(inputs.view, two, factors, narrow.view), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
