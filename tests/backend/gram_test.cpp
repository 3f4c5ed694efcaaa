#include "backend/gram.hpp"

#include "backends.hpp"
#include "reference/products.hpp"
#include "threads.hpp"

namespace fairgptq::testing {
namespace {

class GramTest : public BackendTest {
  protected:
    /// sum + XᵀX, downloaded
    std::vector<double> accumulate(const HostMatrix& x, const std::vector<double>& sum) const {
        const DeviceMatrix inputs = upload(x);
        const DeviceMatrix scratch = device_matrix(x.cols, x.cols, DType::float32);
        const Buffer packed = upload_vector(sum);
        backend->accumulate_gram(inputs.view, scratch.view.float32(), {packed.as<double>(), x.cols});
        return download_vector<double>(packed);
    }
};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(GramTest);

std::vector<double> packed_zeros(std::int64_t size) {
    return std::vector<double>(static_cast<std::size_t>(PackedLower<double>::elements(size)));
}

struct GramSize {
    std::int64_t tokens = 0;
    std::int64_t features = 0;
};

// Around one tile of at most 384 columns, two, three, and around 2048, where tiles grow to 768.
const std::vector<GramSize> gram_sizes{{0, 0},   {0, 5},    {1, 1},     {3, 2},   {1, 17},   {40, 383}, {7, 384},
                                       {5, 385}, {33, 400}, {1000, 20}, {3, 769}, {1, 2047}, {2, 2048}, {1, 2305}};

TEST_P(GramTest, WholeNumbersAreExact) {
    for (const auto& [tokens, features] : gram_sizes) {
        const HostMatrix x = integer_matrix(tokens, features, 1);
        std::vector<double> sum = packed_zeros(features);
        for (std::size_t i = 0; i < sum.size(); ++i)
            sum[i] = static_cast<double>(i % 11) + 0.5;
        const std::vector<double> result = accumulate(x, sum);
        const reference::Matrix expected = reference::gram(x.view());
        std::size_t index = 0;
        for (std::int64_t i = 0; i < features; ++i)
            for (std::int64_t j = 0; j <= i; ++j, ++index)
                ASSERT_EQ(result[index], sum[index] + expected(i, j))
                    << tokens << "x" << features << ": " << i << "," << j;
    }
}

TEST_P(GramTest, RoundingStaysWithinTheBoundOfASum) {
    constexpr std::int64_t tokens = 700;
    constexpr std::int64_t features = 200;
    const HostMatrix x = rounded(random_matrix(tokens, features, 2));
    const std::vector<double> result = accumulate(x, packed_zeros(features));
    const reference::Matrix expected = reference::gram(x.view());
    // A float32 sum of n products is off by at most n·u·Σ|products|.
    const reference::Matrix size = reference::gram(magnitudes(x).view());
    std::size_t index = 0;
    for (std::int64_t i = 0; i < features; ++i)
        for (std::int64_t j = 0; j <= i; ++j, ++index)
            ASSERT_NEAR(result[index], expected(i, j), tokens * float32_roundoff * size(i, j)) << i << "," << j;
}

TEST_P(GramTest, FinishScalesAndFillsBothTriangles) {
    for (const std::int64_t size : {0, 1, 63, 64, 65, 200}) {
        std::vector<double> sum = packed_zeros(size);
        for (std::size_t i = 0; i < sum.size(); ++i)
            sum[i] = 1.0 / static_cast<double>(i + 3);
        const Buffer packed = upload_vector(sum);
        const DeviceMatrix gram = device_matrix(size, size, DType::float32);
        backend->finish_gram({packed.as<const double>(), size}, 0.7, gram.view.float32());
        const HostMatrix result = download(gram.view);
        std::size_t index = 0;
        for (std::int64_t i = 0; i < size; ++i)
            for (std::int64_t j = 0; j <= i; ++j, ++index) {
                ASSERT_EQ(result(i, j), static_cast<float>(0.7 * sum[index])) << i << "," << j;
                ASSERT_EQ(result(j, i), result(i, j)) << i << "," << j;
            }
    }
}

TEST_P(GramTest, ThreadsChangeNothing) {
    const HostMatrix x = rounded(random_matrix(300, 600, 3));
    EXPECT_TRUE(same_for_any_threads([&] { return accumulate(x, packed_zeros(x.cols)); }));
}

TEST_P(GramTest, SizesThatDisagreeAreRefused) {
    const DeviceMatrix inputs = device_matrix(4, 5, type);
    const DeviceMatrix scratch = device_matrix(5, 5, DType::float32);
    const Buffer sum = upload_vector(packed_zeros(6));
    EXPECT_THROW(backend->accumulate_gram(inputs.view, scratch.view.float32(), {sum.as<double>(), 6}), Failure);
    EXPECT_THROW(backend->accumulate_gram(inputs.view, scratch.view.float32().rows_from(0, 4), {sum.as<double>(), 5}),
                 Failure);
    EXPECT_THROW(backend->finish_gram({sum.as<const double>(), 6}, 1, scratch.view.float32()), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
