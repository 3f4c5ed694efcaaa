// Every family against what transformers computes: logits and the inputs of every stage, several sequences end to end.
#include <gtest/gtest.h>

#include <algorithm>

#include "model/model_runner.hpp"
#include "support/hdf5.hpp"

namespace fairgptq {
namespace {

/// A model with what transformers computes from it.
struct OracleCase {
    std::string name;
    std::filesystem::path folder;
    bool shared = false;  // not part of the project
    friend void PrintTo(const OracleCase& one, std::ostream* out) { *out << one.name; }
};

std::vector<OracleCase> oracle_cases() {
    std::vector<OracleCase> cases;
    for (const char* name : {"llama", "llama31_sharded", "mistral", "qwen2", "qwen3", "opt"})
        cases.push_back({name, std::filesystem::path(FAIRGPTQ_SHARED_DIR) / "reference/models" / name, true});
    // Those that make_oracles.py makes.
    for (const char* name : {"llama_yarn",
                             "smollm3",
                             "granite",
                             "phi3",
                             "phi3_longrope",
                             "phi4_mini",
                             "olmo2",
                             "olmo3",
                             "gemma",
                             "gemma2",
                             "gemma3",
                             "gemma3_with_pictures",
                             "mistral_with_pictures",
                             "ministral3_with_pictures",
                             "qwen25_with_pictures",
                             "qwen3_with_pictures",
                             "qwen3_5_with_pictures",
                             "qwen3_5_moe_with_pictures",
                             "exaone4",
                             "seed_oss",
                             "mixtral",
                             "qwen3_moe",
                             "olmoe",
                             "qwen2_moe",
                             "glm4_moe",
                             "dots1",
                             "minimax_m2",
                             "deepseek_v2",
                             "deepseek_v3",
                             "glm4_moe_lite",
                             "youtu",
                             "glm",
                             "glm4",
                             "ernie4_5",
                             "ernie4_5_moe",
                             "qwen3_5",
                             "qwen3_5_moe",
                             "qwen3_next",
                             "lfm2"})
        cases.push_back({name, std::filesystem::path(FAIRGPTQ_TESTS_DIR) / "model/oracles" / name});
    return cases;
}

class Oracle : public ::testing::TestWithParam<OracleCase> {};

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
    const auto& [name, folder, shared] = GetParam();
    if (shared && !std::filesystem::exists(folder)) GTEST_SKIP() << "the reference model " << folder << " is not here";
    Family family = read_family(folder);
    // The program that made the shared ones had converted its models to their stored type and back, rotary frequencies
    // included: with these unrounded it differs by up to 5e-4 of the largest value (measured in float64).
    ModelConfig& config = family.config;
    if (shared) config.rope.frequency_type = config.window_rope.frequency_type = config.weight_type();
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
    for (const std::string& linear : expected.names())
        expect_close(inputs.at(linear), expected.read<float>(linear, 2), linear);
}

INSTANTIATE_TEST_SUITE_P(Families, Oracle, ::testing::ValuesIn(oracle_cases()),
                         [](const auto& parameter) { return parameter.param.name; });

}  // namespace
}  // namespace fairgptq
