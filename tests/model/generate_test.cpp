// Greedy continuations with a KV cache against plain loops that run the whole sequence anew for every token.
#include "model/generate.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/tiny_models.hpp"

namespace fairgptq {
namespace {

using testing::TinyModel;
using testing::TinyModelCase;

std::vector<std::vector<std::int32_t>> expected_of(const TinyModel& model,
                                                   const std::vector<std::vector<std::int32_t>>& prompts,
                                                   std::int64_t tokens) {
    const auto reference = model.reference();
    std::vector<std::vector<std::int32_t>> all;
    for (const std::vector<std::int32_t>& prompt : prompts) {
        std::vector<std::int32_t> sequence = prompt;
        for (std::int64_t token = 0; token < tokens; ++token) {
            const auto last = reference.run(sequence).logits.back();
            sequence.push_back(static_cast<std::int32_t>(std::max_element(last.begin(), last.end()) - last.begin()));
        }
        all.emplace_back(sequence.begin() + static_cast<std::ptrdiff_t>(prompt.size()), sequence.end());
    }
    return all;
}

class Generate : public ::testing::TestWithParam<TinyModelCase> {
  protected:
    std::unique_ptr<Backend> backend_ = make_backend("cpu");
};

TEST_P(Generate, ContinuesAsPlainLoopsDo) {
    // Logits of random weights lie far further apart than float32 rounds.
    const TinyModel model(GetParam());
    const Checkpoint checkpoint(model.path());
    std::vector<std::vector<std::int32_t>> prompts;
    for (const int length : {1, 5, 3, 6})
        prompts.push_back(model.random_tokens(length, static_cast<unsigned>(length)));
    const ForwardModel forward{*backend_, model.family(), checkpoint, {}};
    const auto expected = expected_of(model, prompts, 9);
    double progress = 0;
    EXPECT_EQ(generate_greedily(forward, prompts, 9, [&](double share) { progress = share; }), expected);
    EXPECT_EQ(progress, 1);
    for (const std::int64_t batch_tokens : {1, 20, 25})  // one prompt at a time, one or two
        EXPECT_EQ(generate_greedily(forward, prompts, 9, {}, 1, batch_tokens), expected) << batch_tokens;
    // Kept where they fit; where a thousand million ranks share the memory, read anew for each token.
    for (const int sharing : {1, 1'000'000'000}) {
        std::int64_t seen = 0;
        const ForwardModel counted{*backend_, model.family(), checkpoint, {[&](LayerWeights&) { ++seen; }}};
        EXPECT_EQ(generate_greedily(counted, prompts, 9, {}, sharing), expected);
        // Their share of what is free holds no batch of two prompts, either.
        EXPECT_EQ(seen, model.family().config.layers * (sharing == 1 ? 1 : 9 * std::ssize(prompts)));
    }
}

INSTANTIATE_TEST_SUITE_P(Families, Generate, ::testing::ValuesIn(testing::tiny_model_cases()),
                         [](const auto& parameter) { return parameter.param.name; });

TEST(GenerateNothing, OfNoPromptsOrNoTokensIsNothing) {
    const TinyModel model({"llama", testing::tiny_llama_config()});
    const Checkpoint checkpoint(model.path());
    const auto backend = make_backend("cpu");
    const ForwardModel forward{*backend, model.family(), checkpoint, {}};
    EXPECT_TRUE(generate_greedily(forward, {}, 3).empty());
    const std::vector<std::vector<std::int32_t>> prompts{{1, 2}};
    EXPECT_EQ(generate_greedily(forward, prompts, 0), (std::vector<std::vector<std::int32_t>>(1)));
}

}  // namespace
}  // namespace fairgptq
