// Forward passes of every form of model against plain loops, on models that the test makes itself.
#include "model/forward.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/model_runner.hpp"
#include "model/tiny_models.hpp"

namespace fairgptq {
namespace {

using testing::TinyModel;
using testing::TinyModelCase;

/// float32 against float64, of the largest value: a sum of `wide` products loses up to wide · 2^-24 of the sum of their
/// sizes, which is about sqrt(wide) times the sum itself for random numbers; four such sums a layer follow each other,
/// and the head.
double tolerance(const Family& family) {
    const auto wide = static_cast<double>(Decoder::widest_input(family));
    return static_cast<double>(4 * family.config.layers + 1) * wide * std::sqrt(wide) * 0x1p-24;
}

void expect_close(const std::vector<float>& values, const reference::Rows& expected, double tolerance,
                  const std::string& what) {
    ASSERT_FALSE(expected.empty());
    const std::size_t cols = expected[0].size();
    ASSERT_EQ(values.size(), expected.size() * cols) << what;
    double largest = 0, error = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_TRUE(std::isfinite(values[i])) << what << " at " << i;
        const double right = expected[i / cols][i % cols];
        largest = std::max(largest, std::abs(right));
        error = std::max(error, std::abs(static_cast<double>(values[i]) - right));
    }
    EXPECT_LE(error, tolerance * largest) << what;
}

/// What the reference makes of each sequence by itself, one after another.
reference::Transformer::Result expected_of(const reference::Transformer& model, const ChunkTokens& chunk) {
    reference::Transformer::Result all;
    for (std::size_t s = 0; s + 1 < chunk.offsets.size(); ++s) {
        const std::span<const std::int32_t> ids(chunk.ids);
        const auto one = model.run(ids.subspan(static_cast<std::size_t>(chunk.offsets[s]),
                                               static_cast<std::size_t>(chunk.offsets[s + 1] - chunk.offsets[s])));
        all.logits.insert(all.logits.end(), one.logits.begin(), one.logits.end());
        for (const auto& [name, rows] : one.inputs)
            all.inputs[name].insert(all.inputs[name].end(), rows.begin(), rows.end());
    }
    return all;
}

class Forward : public ::testing::TestWithParam<TinyModelCase> {
  protected:
    std::unique_ptr<Backend> backend_ = make_backend("cpu");
};

TEST_P(Forward, AgreesWithPlainLoops) {
    const TinyModel model(GetParam());
    const Checkpoint checkpoint(model.path());
    check_tensors(model.family(), checkpoint);
    const ChunkTokens chunk{model.random_tokens(33, 1), {0, 1, 6, 8, 24, 32, 33}};
    const auto expected = expected_of(model.reference(), chunk);
    const double allowed = tolerance(model.family());

    const auto inputs = testing::stage_inputs(*backend_, model.family(), checkpoint, chunk);
    int stages = 0;
    for (std::int64_t layer = 0; layer < model.config().layers; ++layer)
        stages += model.family().stage_count(layer);
    EXPECT_EQ(std::ssize(inputs), stages);
    for (const auto& [name, values] : inputs)
        expect_close(values, expected.inputs.at(name), allowed, name);
    const std::vector<ChunkTokens> chunks{chunk};
    expect_close(testing::all_logits({*backend_, model.family(), checkpoint, {}}, chunks), expected.logits, allowed,
                 "logits");
}

TEST_P(Forward, ComputesASharedPrefixOnce) {
    // Rows 0 … 6 begin the sequences of rows 7 … 8, 9 and 10 … 14; rows 15 … 17 are a sequence by themselves.
    const TinyModel model(GetParam());
    const Checkpoint checkpoint(model.path());
    const ChunkTokens chunk{model.random_tokens(18, 6), {0, 7, 9, 10, 15, 18}, {{}, {0, 7}, {0, 7}, {0, 7}, {}}};
    ChunkTokens written_out{{}, {0}};
    std::vector<std::int64_t> rows;  // of the shared chunk, one for each token written out
    for (std::size_t s = 0; s + 1 < chunk.offsets.size(); ++s) {
        for (std::int64_t row = chunk.prefixes[s].begin; row < chunk.prefixes[s].end; ++row)
            rows.push_back(row);
        for (std::int64_t row = chunk.offsets[s]; row < chunk.offsets[s + 1]; ++row)
            rows.push_back(row);
        written_out.offsets.push_back(static_cast<std::int64_t>(rows.size()));
    }
    for (const std::int64_t row : rows)
        written_out.ids.push_back(chunk.ids[static_cast<std::size_t>(row)]);
    const auto vocabulary = static_cast<std::size_t>(model.config().vocab_size);
    const std::vector<ChunkTokens> chunks{chunk};
    const std::vector<float> shared = testing::all_logits({*backend_, model.family(), checkpoint, {}}, chunks);
    std::vector<float> found;
    for (const std::int64_t row : rows)
        found.insert(found.end(), shared.begin() + row * static_cast<std::int64_t>(vocabulary),
                     shared.begin() + (row + 1) * static_cast<std::int64_t>(vocabulary));
    expect_close(found, expected_of(model.reference(), written_out).logits, tolerance(model.family()), "logits");
}

INSTANTIATE_TEST_SUITE_P(Families, Forward, ::testing::ValuesIn(testing::tiny_model_cases()),
                         [](const auto& parameter) { return parameter.param.name; });

class ForwardOfLlama : public ::testing::Test {
  protected:
    const TinyModel model_{{"llama", testing::tiny_llama_config()}};
    const Checkpoint checkpoint_{model_.path()};
    const std::unique_ptr<Backend> backend_ = make_backend("cpu");
    ForwardModel forward(std::function<void(LayerWeights&)> override_layer = {}) {
        return {*backend_, model_.family(), checkpoint_, {std::move(override_layer)}};
    }
};

TEST_F(ForwardOfLlama, DoesNotDependOnTheCutIntoChunks) {
    const ChunkTokens all{model_.random_tokens(40, 2), {0, 3, 4, 15, 20, 39, 40}};
    const auto expected = expected_of(model_.reference(), all).logits;
    for (const std::int64_t budget : {1, 5, 19, 39, 40, 41}) {
        const auto chunks = cut_into_chunks(all.ids, all.offsets, budget);
        expect_close(testing::all_logits(forward(), chunks), expected, tolerance(model_.family()),
                     "chunks of " + std::to_string(budget));
    }
}

TEST_F(ForwardOfLlama, MakesLogitsOfMoreTokensThanFitAtOnce) {
    std::vector<std::int64_t> offsets{0};
    while (offsets.back() < 2 * Decoder::max_logit_rows + 20)
        offsets.push_back(offsets.back() + 20);
    const std::vector<ChunkTokens> chunk{{model_.random_tokens(offsets.back(), 3), offsets}};
    expect_close(testing::all_logits(forward(), chunk), expected_of(model_.reference(), chunk[0]).logits,
                 tolerance(model_.family()), "logits");
}

TEST_F(ForwardOfLlama, RunsNoChunksAtAll) {
    std::vector<std::int64_t> layers;
    run_model(
        forward(), {}, [](const FinishedChunk&) { FAIL() << "there is no chunk"; },
        [&](std::int64_t layer) { layers.push_back(layer); });
    EXPECT_EQ(layers, (std::vector<std::int64_t>{0, 1}));
}

TEST_F(ForwardOfLlama, UsesOverriddenWeights) {
    // The override scales one linear of one layer; the reference gets the same change in its tensors.
    TinyModel changed({"llama", testing::tiny_llama_config()});
    for (float& value : changed.tensors().at("model.layers.1.mlp.down_proj.weight").values)
        value *= -2;
    const std::vector<ChunkTokens> chunk{{model_.random_tokens(12, 4), {0, 5, 12}}};
    const auto scale = [](LayerWeights& layer) {
        if (layer.layer != 1) return;
        const MatrixView<float> weight = layer.linears.at("mlp.down_proj").weight.float32();
        for (std::int64_t row = 0; row < weight.rows; ++row)
            for (std::int64_t col = 0; col < weight.cols; ++col)
                weight(row, col) *= -2;
    };
    expect_close(testing::all_logits(forward(scale), chunk), expected_of(changed.reference(), chunk[0]).logits,
                 tolerance(model_.family()), "logits");
}

TEST_F(ForwardOfLlama, RefusesTokensBeyondTheVocabulary) {
    for (const std::int32_t id : {-1, 50}) {
        const std::vector<ChunkTokens> chunk{{{3, id}, {0, 2}}};
        testing::expect_refused([&] { run_model(forward(), chunk, [](const FinishedChunk&) {}); },
                                {"token id " + std::to_string(id), "50"});
    }
}

TEST(ForwardOfOpt, RefusesSequencesBeyondItsPositions) {
    const TinyModel model({"opt", testing::tiny_opt_config()});
    const Checkpoint checkpoint(model.path());
    const auto backend = make_backend("cpu");
    const auto run = [&](std::int64_t length) {
        const std::vector<ChunkTokens> chunk{{model.random_tokens(length, 5), {0, length}}};
        run_model({*backend, model.family(), checkpoint, {}}, chunk, [](const FinishedChunk&) {});
    };
    EXPECT_NO_THROW(run(16));
    testing::expect_refused([&] { run(17); }, {"17 tokens", "16 positions"});
}

// Whichever experts are run at once, the rest of the layer finds what it would have found.
TEST(Decoder, FirstHalvesOfSeveralExpertsMayComeBeforeTheirSecond) {
    nlohmann::json config = testing::tiny_llama_config();
    config.update({{"architectures", {"Qwen3MoeForCausalLM"}},
                   {"model_type", "qwen3_moe"},
                   {"num_experts", 5},
                   {"num_experts_per_tok", 2},
                   {"moe_intermediate_size", 24},
                   {"norm_topk_prob", true}});
    const TinyModel model({"experts", config});
    const Family& family = model.family();
    const Checkpoint checkpoint(model.path());
    const auto backend = make_backend("cpu");
    const OuterWeights outer = read_outer(*backend, family, checkpoint);
    const LayerWeights layer = read_layer(*backend, family, checkpoint, 0);
    const std::int64_t tokens = 50, hidden_size = family.config.hidden_size;
    const ChunkTokens chunk{model.random_tokens(tokens, 3), {0, 20, tokens}};
    const std::int64_t widest = Decoder::widest_input(family);
    const auto hidden_after = [&](std::int64_t at_once, std::int64_t of_token) {
        Decoder decoder(*backend, family, tokens, at_once);
        const Buffer hidden = backend->allocate(static_cast<std::size_t>(tokens * hidden_size) * 4);
        const Buffer inputs = backend->allocate(static_cast<std::size_t>(tokens * of_token) * 4);
        ChunkState state{hidden.tensor(DType::float32, tokens, hidden_size),
                         inputs.tensor(DType::float32, tokens, widest), chunk.offsets};
        state.room = tokens * of_token;
        decoder.embed(outer, chunk, state);
        decoder.begin_layer(layer, state);
        decoder.run_stage(0, layer, state);
        decoder.run_stage(1, layer, state);
        for (std::int64_t first = 0; first < 5; first += at_once)
            for (const int half : {0, 1})
                for (std::int64_t expert = first; expert < std::min<std::int64_t>(first + at_once, 5); ++expert)
                    decoder.run_stage(static_cast<int>(2 + 2 * expert) + half, layer, state);
        const float* values = hidden.as<const float>();
        return std::vector<float>(values, values + tokens * hidden_size);
    };
    const std::vector<float> expected = hidden_after(1, widest);
    for (const std::int64_t at_once : {2, 3, 5, 8})
        EXPECT_EQ(hidden_after(at_once, Decoder::inputs_of_token(family, at_once)), expected) << at_once;
    EXPECT_EQ(Decoder::inputs_of_token(family, 8), Decoder::inputs_of_token(family, 2));
    EXPECT_THROW(hidden_after(5, widest), Failure);
}

TEST(Decoder, AllocatesWhatItSays) {
    // Counted by hand: heads 4 · 8 = 32 or gate 40; key 16 or up 40; value 16; hidden 24.
    const TinyModel model({"llama", testing::tiny_llama_config()});
    EXPECT_EQ(Decoder::widest_input(model.family()), 40);
    EXPECT_EQ(Decoder::scratch_bytes(model.family(), 1000, DType::float32), 4U * 1000 * (40 + 40 + 16));
    EXPECT_EQ(Decoder::scratch_bytes(model.family(), 1000, DType::bfloat16), 2U * 1000 * (40 + 40 + 16));
    EXPECT_EQ(Decoder::scratch_bytes(model.family(), 1, DType::float32), 4U * (256 * 24 + 40 + 16));
}

}  // namespace
}  // namespace fairgptq
