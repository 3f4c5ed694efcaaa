// Scores of real (tiny) models against the logits that Hugging Face transformers computes.
#include "eval/model_scorer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "backend/cpu/backend.hpp"
#include "support/hdf5.hpp"

namespace fairgptq {
namespace {

class ModelScorerOracle : public ::testing::TestWithParam<const char*> {};

TEST_P(ModelScorerOracle, AgreesWithTheModelsOwnLogits) {
    const std::filesystem::path folder = std::filesystem::path(FAIRGPTQ_SHARED_DIR) / "reference/models" / GetParam();
    if (!std::filesystem::exists(folder)) GTEST_SKIP() << "the reference models are not at " << folder;
    const h5::File file = h5::File::open(folder / "oracle.h5");
    const ChunkTokens chunk{file.root().read<std::int32_t>("token_ids", 1),
                            file.root().read<std::int64_t>("offsets", 1)};
    const std::vector<float> logits = file.root().read<float>("logits", 2);
    const std::int64_t vocabulary = file.root().shape("logits")[1];

    // Every second token that has a successor is scored.
    ScoredRows rows;
    for (std::size_t sequence = 0; sequence + 1 < chunk.offsets.size(); ++sequence)
        for (std::int64_t token = chunk.offsets[sequence]; token + 1 < chunk.offsets[sequence + 1]; token += 2) {
            rows.rows.push_back(static_cast<std::int32_t>(token));
            rows.targets.push_back(chunk.ids[token + 1]);
        }
    CpuBackend backend;
    const Family family = describe_family(read_config(folder));
    const Checkpoint checkpoint(folder);
    ModelScorer scorer({backend, family, checkpoint, {}});
    const auto scores = scorer.score(std::span(&chunk, 1), std::span(&rows, 1));
    ASSERT_EQ(scores.size(), 1U);
    ASSERT_EQ(scores[0].log_probabilities.size(), rows.rows.size());
    ASSERT_EQ(scores[0].greedy.size(), rows.rows.size());

    // Logits agree to 2e-4 of the largest (the project's bound); a log-probability moves by at most twice a logit's
    // error.
    double largest = 0;
    for (const float logit : logits)
        largest = std::max<double>(largest, std::abs(logit));
    for (std::size_t i = 0; i < rows.rows.size(); ++i) {
        const float* row = logits.data() + rows.rows[i] * vocabulary;
        double sum = 0;
        for (std::int64_t token = 0; token < vocabulary; ++token)
            sum += std::exp(static_cast<double>(row[token]));
        EXPECT_NEAR(scores[0].log_probabilities[i], row[rows.targets[i]] - std::log(sum), 2 * 2e-4 * largest)
            << "row " << rows.rows[i];
        // Where another token is better or worse by more than both logits may be off.
        const double best = *std::max_element(row, row + vocabulary);
        if (best - row[rows.targets[i]] > 4e-4 * largest) {
            EXPECT_EQ(scores[0].greedy[i], 0);
        }
    }

    // No chunk, no work: a rank beyond the number of chunks.
    EXPECT_TRUE(scorer.score({}, {}).empty());
    // The weights that a run puts in place of the layer's are the ones that count.
    const auto change = [&](LayerWeights& layer) {
        for (auto& [name, linear] : layer.linears)
            backend.zero(linear.weight.data, static_cast<std::size_t>(linear.weight.rows * linear.weight.cols) * 4);
    };
    ModelScorer changed({backend, family, checkpoint, {change}});
    EXPECT_NE(changed.score(std::span(&chunk, 1), std::span(&rows, 1)), scores);
}
INSTANTIATE_TEST_SUITE_P(Families, ModelScorerOracle,
                         ::testing::Values("llama", "llama31_sharded", "mistral", "opt", "qwen2", "qwen3"),
                         [](const auto& family) { return std::string(family.param); });

}  // namespace
}  // namespace fairgptq
