#include "backend/pair_differences.hpp"

#include <algorithm>
#include <array>

#include "backends.hpp"
#include "reference/pair_differences.hpp"

namespace fairgptq::testing {
namespace {

TEST(PairColumnsAmong, KeepsWhatIsThereOfBothSentences) {
    const std::vector<PairColumn> columns{{2, 1, 7, 1}, {2, 1, 8, 1}, {0, 1, 7, 1},
                                          {0, 5, 5, 5}, {0, 2, 5, 5}, {4, 1, 9, 1}};
    const auto among = [&](const std::vector<std::int32_t>& rows) {
        std::vector<std::array<std::int32_t, 4>> found;
        for (const PairColumn& column : pair_columns_among(columns, rows))
            found.push_back({column.first0, column.count0, column.first1, column.count1});
        return found;
    };
    using Found = std::vector<std::array<std::int32_t, 4>>;
    EXPECT_EQ(among({2, 3, 7, 9}), (Found{{0, 1, 2, 1}, {0, 2, 2, 2}}));
    EXPECT_EQ(among({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}),
              (Found{{2, 1, 7, 1}, {2, 1, 8, 1}, {0, 1, 7, 1}, {0, 5, 5, 5}, {0, 2, 5, 5}, {4, 1, 9, 1}}));
    EXPECT_EQ(among({}), Found());
    EXPECT_EQ(among({0, 1, 2, 3, 4}), Found());
    EXPECT_EQ(among({9}), Found());
}

class PairDifferencesTest : public BackendTest {
  protected:
    HostMatrix differences(const HostMatrix& x, const std::vector<PairColumn>& columns) const {
        const DeviceMatrix inputs = upload(x);
        const DeviceMatrix result = device_matrix(static_cast<std::int64_t>(columns.size()), x.cols, DType::float32, 2);
        backend->pair_differences(inputs.view, columns, result.view.float32());
        return download(result.view);
    }
};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(PairDifferencesTest);

TEST_P(PairDifferencesTest, AlignedTokensAreSubtractedWithOneRounding) {
    // Around the block of 256 features.
    for (const std::int64_t features : {0, 1, 255, 256, 257, 600}) {
        const HostMatrix x = rounded(random_matrix(9, features, 1));
        const std::vector<PairColumn> columns{{0, 1, 8, 1}, {8, 1, 0, 1}, {3, 1, 3, 1}, {2, 1, 5, 1}};
        const HostMatrix result = differences(x, columns);
        for (std::int64_t pair = 0; pair < result.rows; ++pair)
            for (std::int64_t col = 0; col < features; ++col) {
                const PairColumn& column = columns[static_cast<std::size_t>(pair)];
                ASSERT_EQ(result(pair, col), x(column.first0, col) - x(column.first1, col));
            }
    }
}

TEST_P(PairDifferencesTest, MeansOfSentences) {
    const HostMatrix x = rounded(random_matrix(40, 300, 2));
    const std::vector<PairColumn> columns{{0, 12, 12, 13}, {25, 1, 26, 14}, {0, 20, 20, 20}, {0, 40, 0, 40}};
    // Each mean is a float32 sum of at most 40 numbers and a division, and the difference rounds once more.
    const reference::Matrix expected = reference::pair_differences(x.view(), columns);
    double largest = 0;
    for (const float value : x.values)
        largest = std::max(largest, std::fabs(static_cast<double>(value)));
    const double bound = 2 * (40 + 2) * float32_roundoff * largest;
    expect_near(differences(x, columns), expected, [&](std::int64_t, std::int64_t) { return bound; });
}

TEST_P(PairDifferencesTest, NoPairs) {
    EXPECT_TRUE(differences(HostMatrix(3, 4), {}).values.empty());
}

TEST_P(PairDifferencesTest, TokensOutsideTheChunkAreRefused) {
    const HostMatrix x(4, 3);
    for (const PairColumn& column : {PairColumn{0, 5, 0, 1}, PairColumn{4, 1, 0, 1}, PairColumn{0, 1, -1, 1},
                                     PairColumn{0, 0, 0, 1}, PairColumn{0, 1, 3, 2}, PairColumn{0, 1, 1, 2147483647}})
        EXPECT_THROW(differences(x, {column}), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
