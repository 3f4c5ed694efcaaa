// Every family against what transformers computes: logits and the inputs of every stage, several sequences end to end.
#include <gtest/gtest.h>

#include <algorithm>

#include "model/model_runner.hpp"
#include "support/hdf5.hpp"

namespace fairgptq {
namespace {

class Oracle : public ::testing::TestWithParam<const char*> {};

/// The contract: every value within 2e-4 of the largest.
void expect_close(const std::vector<float>& values, const std::vector<float>& expected, const std::string& what) {
    ASSERT_EQ(values.size(), expected.size()) << what;
    float largest = 0, error = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_TRUE(std::isfinite(values[i])) << what << " at " << i;
        largest = std::max(largest, std::abs(expected[i]));
        error = std::max(error, std::abs(values[i] - expected[i]));
    }
    EXPECT_LE(error, 2e-4F * largest) << what;
}

TEST_P(Oracle, AgreesInLogitsAndStageInputs) {
    const std::filesystem::path folder = std::filesystem::path(FAIRGPTQ_SHARED_DIR) / "reference/models" / GetParam();
    if (!std::filesystem::exists(folder)) GTEST_SKIP() << "the reference model " << folder << " is not here";
    ModelConfig config = read_config(folder);
    // The program that made the oracles had converted its models to their stored type and back, rotary frequencies
    // included: with these unrounded it differs from the oracles by up to 5e-4 of the largest value (measured in
    // float64).
    config.rope.frequency_type = config.weight_type();
    const Family family = describe_family(config);
    const Checkpoint checkpoint(folder);
    check_tensors(family, checkpoint);
    const h5::File file = h5::File::open(folder / "oracle.h5");
    const std::vector<ChunkTokens> chunk{
        {file.root().read<std::int32_t>("token_ids", 1), file.root().read<std::int64_t>("offsets", 1)}};
    const auto backend = make_backend("cpu");

    expect_close(testing::all_logits({*backend, family, checkpoint, {}}, chunk), file.root().read<float>("logits", 2),
                 "logits");
    const auto inputs = testing::stage_inputs(*backend, family, checkpoint, chunk[0]);
    const h5::Group expected = file.root().group("inputs");
    ASSERT_EQ(expected.names().size(), inputs.size());
    for (const std::string& name : expected.names())
        expect_close(inputs.at(name), expected.read<float>(name, 2), name);
}

INSTANTIATE_TEST_SUITE_P(Families, Oracle,
                         ::testing::Values("llama", "llama31_sharded", "mistral", "qwen2", "qwen3", "opt"),
                         [](const auto& parameter) { return std::string(parameter.param); });

}  // namespace
}  // namespace fairgptq
