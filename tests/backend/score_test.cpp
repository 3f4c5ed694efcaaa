#include "backend/score.hpp"

#include <algorithm>

#include "backends.hpp"
#include "reference/score.hpp"

namespace fairgptq::testing {
namespace {

class ScoreTest : public BackendTest {
  protected:
    std::vector<float> scores(const HostMatrix& logits, const std::vector<std::int32_t>& targets) const {
        const DeviceMatrix device_logits = upload(logits);
        std::vector<float> result(targets.size());
        backend->token_log_probabilities(device_logits.view, targets, result, {});
        return result;
    }
    std::vector<std::int32_t> best(const HostMatrix& logits) const {
        const DeviceMatrix device_logits = upload(logits);
        const auto rows = static_cast<std::size_t>(logits.rows);
        std::vector<float> scores(rows);
        std::vector<std::int32_t> result(rows, -1);
        backend->token_log_probabilities(device_logits.view, std::vector<std::int32_t>(rows, 0), scores, result);
        return result;
    }
};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(ScoreTest);

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

TEST_P(ScoreTest, FindsTheMostProbableToken) {
    for (const std::int64_t vocabulary : {1, 2, 511, 512, 513, 1024, 5000}) {
        const HostMatrix logits = rounded(random_matrix(6, vocabulary, 2));
        const std::vector<std::int32_t> result = best(logits);
        for (std::int64_t row = 0; row < logits.rows; ++row)
            EXPECT_EQ(result[static_cast<std::size_t>(row)], reference::most_probable_token(logits.view(), row));
    }
}

TEST_P(ScoreTest, TakesTheFirstOfEqualTokens) {
    // Equal largest entries within a block of 512, in two blocks, and everywhere.
    HostMatrix logits(3, 1200, -2);
    logits(0, 40) = logits(0, 41) = logits(0, 90) = 1;
    logits(1, 700) = logits(1, 1199) = 3;
    EXPECT_EQ(best(logits), (std::vector<std::int32_t>{40, 700, 0}));
}

TEST_P(ScoreTest, NoTokens) {
    EXPECT_TRUE(scores(HostMatrix(0, 5), {}).empty());
    EXPECT_TRUE(best(HostMatrix(0, 5)).empty());
}

TEST_P(ScoreTest, WhatDoesNotFitIsRefused) {
    EXPECT_THROW(scores(HostMatrix(1, 5), {5}), InvalidInput);
    EXPECT_THROW(scores(HostMatrix(1, 5), {-1}), InvalidInput);
    EXPECT_THROW(scores(HostMatrix(2, 5), {0}), Failure);
    const DeviceMatrix logits = upload(HostMatrix(2, 5));
    std::vector<float> result(2);
    std::vector<std::int32_t> short_best(1);
    EXPECT_THROW(backend->token_log_probabilities(logits.view, std::vector<std::int32_t>{0, 0}, result, short_best),
                 Failure);
}

}  // namespace
}  // namespace fairgptq::testing
