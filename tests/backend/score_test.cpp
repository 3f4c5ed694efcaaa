#include "backend/score.hpp"

#include "backends.hpp"
#include "reference/score.hpp"

namespace fairgptq::testing {
namespace {

class ScoreTest : public BackendTest {
  protected:
    std::vector<float> scores(const HostMatrix& logits, const std::vector<std::int32_t>& targets) const {
        const DeviceMatrix device_logits = upload(logits);
        std::vector<float> result(targets.size());
        backend->token_log_probabilities(device_logits.view, targets, result);
        return result;
    }
};
FAIRGPTQ_ON_BACKENDS(ScoreTest);

TEST_P(ScoreTest, MatchesLogSoftmax) {
    // Around the block of 512 entries whose sum is float32.
    for (const std::int64_t vocabulary : {1, 2, 511, 512, 513, 5000})
        for (const float size : {1.0F, 30.0F, 1000.0F}) {
            const HostMatrix logits = rounded(random_matrix(4, vocabulary, 1, size));
            std::vector<std::int32_t> targets;
            for (std::int64_t row = 0; row < 4; ++row)
                targets.push_back(static_cast<std::int32_t>(row * 37 % vocabulary));
            const std::vector<float> result = scores(logits, targets);
            for (std::int64_t row = 0; row < 4; ++row) {
                const auto index = static_cast<std::size_t>(row);
                const double expected = reference::token_log_probability(logits.view(), row, targets[index]);
                double largest = 0;
                for (std::int64_t i = 0; i < vocabulary; ++i)
                    largest = std::max(largest, std::fabs(static_cast<double>(logits(row, i))));
                // Differences from the largest logit are rounded by u of 2·largest; exp (8u) and a float32 sum of at
                // most 512 terms give the logarithm's argument a relative error; the result is rounded once.
                const double bound = (2 * largest + 8 + 512 + std::fabs(expected)) * float32_roundoff;
                ASSERT_NEAR(result[index], expected, bound) << vocabulary << " entries of size " << size;
            }
        }
}

TEST_P(ScoreTest, NoTokens) {
    EXPECT_TRUE(scores(HostMatrix(0, 5), {}).empty());
}

TEST_P(ScoreTest, WhatDoesNotFitIsRefused) {
    EXPECT_THROW(scores(HostMatrix(1, 5), {5}), InvalidInput);
    EXPECT_THROW(scores(HostMatrix(1, 5), {-1}), InvalidInput);
    EXPECT_THROW(scores(HostMatrix(2, 5), {0}), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
