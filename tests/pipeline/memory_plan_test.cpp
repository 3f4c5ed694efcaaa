// Plans for models that no test can run, against sizes worked out by hand; and what gives way to a smaller device.
#include "pipeline/memory_plan.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "model/model_files.hpp"
#include "pipeline/arithmetic.hpp"
#include "pipeline/calibration_state.hpp"

namespace fairgptq {
namespace {

constexpr std::size_t gib = std::size_t{1} << 30U;

nlohmann::json llama(std::int64_t hidden, std::int64_t intermediate, std::int64_t layers, std::int64_t heads,
                     std::int64_t vocabulary) {
    return {{"architectures", {"LlamaForCausalLM"}},
            {"model_type", "llama"},
            {"dtype", "bfloat16"},
            {"hidden_size", hidden},
            {"intermediate_size", intermediate},
            {"num_hidden_layers", layers},
            {"num_attention_heads", heads},
            {"num_key_value_heads", 8},
            {"vocab_size", vocabulary},
            {"max_position_embeddings", 8192},
            {"rms_norm_eps", 1e-5},
            {"hidden_act", "silu"},
            {"rope_theta", 10000.0},
            {"tie_word_embeddings", false}};
}

/// 128 sequences of 2048 tokens, and pairs of two sentences of 16, or as many times as many of both.
Chunks chunks(std::int64_t times = 1) {
    TokenFile file;
    const auto add = [](Sequences& sequences, std::int64_t length) {
        sequences.ids.resize(sequences.ids.size() + static_cast<std::size_t>(length));
        sequences.offsets.push_back(sequences.tokens());
    };
    for (std::int64_t i = 0; i < 128 * times; ++i)
        add(file.text, 2048);
    for (std::int64_t i = 0; i < 1000 * times; ++i) {
        add(file.stereotype, 16);
        add(file.anti_stereotype, 16);
    }
    return make_chunks(file, HessianSource::both, PairAlignment::position, 8192);
}

struct Model {
    explicit Model(const nlohmann::json& config) {
        const testing::ModelFolder folder;
        folder.write("config.json", config.dump());
        family = describe_family(read_config(folder.path()));
        settings.layers = family.config.layers;
    }
    MemoryPlan plan(const Chunks& work, int ranks, std::optional<double> gibibytes = {}, std::size_t runs = 1) const {
        PlanDevice device{DType::bfloat16, true, {}};
        if (gibibytes) device.limit = static_cast<std::size_t>(*gibibytes * static_cast<double>(gib));
        return plan_memory(family, work, 300000, settings, {settings.solver, modules, family}, ranks, device, runs);
    }
    Family family;
    QuantizeSettings settings;
    ModuleSettings modules = {};
};

std::map<std::string, double> gibibytes_of(const std::vector<MemoryPlan::Item>& items) {
    std::map<std::string, double> found;
    for (const MemoryPlan::Item& item : items)
        found[item.name] = static_cast<double>(item.bytes) / static_cast<double>(gib);
    return found;
}

const Model llama_2_70b(llama(8192, 28672, 80, 64, 32000));
const Model llama_3_70b(llama(8192, 28672, 80, 64, 128256));
const Model llama_405b(llama(16384, 53248, 126, 128, 128256));

TEST(MemoryPlan, OfExpertsIsWhatTheirShapesSay) {
    nlohmann::json config = llama(4096, 14336, 32, 32, 32000);
    config.update({{"architectures", {"MixtralForCausalLM"}},
                   {"model_type", "mixtral"},
                   {"num_local_experts", 8},
                   {"num_experts_per_tok", 2}});
    const MemoryPlan plan = Model(config).plan(chunks(), 1, 80);
    EXPECT_TRUE(plan.fits);
    EXPECT_EQ(plan.spilled_tokens, 0);
    std::map<std::string, double> parts = gibibytes_of(plan.device);
    const double g = static_cast<double>(gib);
    const double n = 14336, hidden = 4096;
    const auto tokens = static_cast<double>(plan.tokens);
    EXPECT_NEAR(parts["sums of H and C"], 2 * n * (n + 1) / 2 * 8 / g, 1e-3);
    EXPECT_NEAR(parts["H and C"], 2 * n * n * 4 / g, 1e-3);
    // The input of all experts, the sum of what they make, and the input of an expert's second half.
    EXPECT_NEAR(parts["stage inputs"], tokens * (2 * hidden + n) * 2 / g, 1e-3);
    const double layer = 2 * hidden * hidden + 2 * 1024 * hidden + 8 * 3 * n * hidden + 8 * hidden;
    EXPECT_NEAR(parts["layer weights, this and the next"], 2 * 2 * layer / g, 1e-3);
    EXPECT_NEAR(parts["forward scratch"], 8192 * (2 * n + 1024 + hidden) * 2 / g, 1e-3);
    EXPECT_NEAR(gibibytes_of(plan.host)["experts of tokens"], tokens * 2 * 16 / g, 1e-6);
    EXPECT_EQ(gibibytes_of(llama_2_70b.plan(chunks(), 1, 80).host).count("experts of tokens"), 0U);
    // Four ranks solve an expert each: what a token's two experts make waits until both are solved, the sums of one
    // stage and H of another are there at once, and codes of four experts come together beside one's own.
    const MemoryPlan dealt = Model(config).plan(chunks(), 4, 80);
    parts = gibibytes_of(dealt.device);
    EXPECT_NEAR(parts["stage inputs"], static_cast<double>(dealt.tokens) * (2 * hidden + 2 * n) * 2 / g, 1e-3);
    EXPECT_NEAR(parts["sums of H and C"], 2 * n * (n + 1) / 2 * 8 / g + n * n * 4 / g, 1e-3);
    EXPECT_NEAR(parts["codes and scales of all ranks"], 5 * 2 * n * hidden * (1 + 5.0 / 128) / g, 1e-3);
    EXPECT_GT(parts["solver"], 2 * n * hidden * 12 / g);
    EXPECT_EQ(dealt.residency.experts_at_once, 4);
    EXPECT_EQ(plan.residency.experts_at_once, 1);
    // Where ranks are dealt runs, they are not dealt experts.
    const MemoryPlan runs = Model(config).plan(chunks(), 4, 80, 5);
    parts = gibibytes_of(runs.device);
    EXPECT_EQ(runs.residency.experts_at_once, 1);
    EXPECT_NEAR(parts["sums of H and C"], 2 * n * (n + 1) / 2 * 8 / g, 1e-3);
    EXPECT_NEAR(parts["stage inputs"], static_cast<double>(runs.tokens) * (2 * hidden + n) * 2 / g, 1e-3);
    // More ranks than experts share each of them.
    parts = gibibytes_of(Model(config).plan(chunks(), 16, 80).device);
    EXPECT_NEAR(parts["sums of H and C"], 2 * n * (n + 1) / 2 * 8 / g, 1e-3);
    EXPECT_LT(parts["solver"], hidden * n * 12 / g);
}

/// GLM-4.5's: three layers without experts, and then an expert that every token reaches.
nlohmann::json glm(std::int64_t experts, std::int64_t per_token) {
    nlohmann::json config = llama(5120, 12288, 92, 96, 151552);
    config.update({{"architectures", {"Glm4MoeForCausalLM"}},
                   {"model_type", "glm4_moe"},
                   {"head_dim", 128},
                   {"attention_bias", true},
                   {"use_qk_norm", true},
                   {"first_k_dense_replace", 3},
                   {"n_routed_experts", experts},
                   {"num_experts_per_tok", per_token},
                   {"moe_intermediate_size", 1536}});
    return config;
}

TEST(MemoryPlan, OfLayersOfTwoKindsIsTheLargerOnes) {
    const MemoryPlan plan = Model(glm(160, 8)).plan(chunks(), 8, 80);
    EXPECT_TRUE(plan.fits);
    std::map<std::string, double> parts = gibibytes_of(plan.device), host = gibibytes_of(plan.host);
    const double g = static_cast<double>(gib);
    const double n = 12288, hidden = 5120, wide = 1536;  // n: of {o}, and of {down} in the first layers
    const auto tokens = static_cast<double>(plan.tokens);
    EXPECT_NEAR(parts["sums of H and C"], 2 * n * (n + 1) / 2 * 8 / g, 1e-3);
    EXPECT_NEAR(parts["H and C"], 2 * n * n * 4 / g, 1e-3);
    // Of eight experts that ranks solve at once, all that a token reaches: more than {down} in the first layers.
    EXPECT_NEAR(parts["stage inputs"], tokens * (2 * hidden + 8 * wide) * 2 / g, 1e-3);
    EXPECT_NEAR(parts["forward scratch"], 8192 * (2 * n + 1024 + hidden) * 2 / g, 1e-3);
    EXPECT_NEAR(host["experts of tokens"], tokens * (8 + 1) * 16 / g, 1e-6);
    const double attention = 2 * n * hidden + 2 * 1024 * hidden;
    const double experts = 161 * 3 * wide * hidden;
    EXPECT_NEAR(parts["layer weights, this and the next"], 2 * 2 * (attention + experts + 160 * hidden) / g, 1e-3);
    EXPECT_NEAR(host["codes and scales, this and the last"], 2 * (attention + experts) * (1 + 5.0 / 128) / g, 1e-3);
    // Two experts and the shared one are less than the MLP of the first layers.
    const MemoryPlan few = Model(glm(2, 1)).plan(chunks(), 8, 80);
    const double dense = 3 * n * hidden;
    EXPECT_NEAR(gibibytes_of(few.device)["layer weights, this and the next"], 2 * 2 * (attention + dense) / g, 1e-3);
    EXPECT_NEAR(gibibytes_of(few.host)["codes and scales, this and the last"],
                2 * (attention + dense) * (1 + 5.0 / 128) / g, 1e-3);
}

TEST(MemoryPlan, OfLatentsIsWhatTheirShapesSay) {
    nlohmann::json config = glm(256, 8);  // and DeepSeek-V3's other sizes
    config.update({{"architectures", {"DeepseekV3ForCausalLM"}},
                   {"model_type", "deepseek_v3"},
                   {"hidden_size", 7168},
                   {"intermediate_size", 18432},
                   {"num_attention_heads", 128},
                   {"num_key_value_heads", 128},
                   {"attention_bias", false},
                   {"head_dim", nullptr},
                   {"moe_intermediate_size", 2048}});
    const MemoryPlan plan = Model(config).plan(chunks(), 8, 141);
    std::map<std::string, double> parts = gibibytes_of(plan.device);
    const double g = static_cast<double>(gib);
    const double hidden = 7168, n = 18432;  // n: of {down} in the first layers
    const auto tokens = static_cast<double>(plan.tokens);
    EXPECT_NEAR(parts["H and C"], 2 * n * n * 4 / g, 1e-3);
    // What eight experts get and give, and what a token's eight keep in between.
    EXPECT_NEAR(parts["stage inputs"], tokens * (2 * hidden + 8 * 2048) * 2 / g, 1e-3);
    // Queries and keys of 128 heads of 192, keys and values as they are made, and what experts get.
    EXPECT_NEAR(parts["forward scratch"], 8192 * (2 * 128 * 192 + 128 * 256 + hidden) * 2 / g, 1e-3);
    const double attention = hidden * (1536 + 576) + 1536 * 128 * 192 + 512 * 128 * 256 + 128 * 128 * hidden;
    const double layer = attention + 257 * 3 * 2048 * hidden + 256 * hidden;
    EXPECT_NEAR(parts["layer weights, this and the next"] / 2, 2 * layer / g, 1e-3);
    // Where there are no experts, latents may need the most room: queries from the hidden state, 512 and 64 of keys.
    nlohmann::json narrow = config;
    narrow.update({{"architectures", {"YoutuForCausalLM"}},
                   {"model_type", "youtu"},
                   {"q_lora_rank", nullptr},
                   {"intermediate_size", 4096},
                   {"num_attention_heads", 16},
                   {"num_key_value_heads", 16}});
    const MemoryPlan small = Model(narrow).plan(chunks(), 8, 141);
    EXPECT_NEAR(gibibytes_of(small.device)["stage inputs"], static_cast<double>(small.tokens) * (7168 + 576) * 2 / g,
                1e-3);
}

TEST(Arithmetic, CountsWhatReachesAnExpert) {
    // One layer more, of those with experts: what two counts differ by.
    const Family family = Model(glm(160, 8)).family;
    const Chunks work = chunks();
    const std::vector<AlphaPolicy> alphas{{{0, "all", "all", {}}, family}};
    const ModuleGrids all({}, {}, family);
    const auto count = [&](std::int64_t layers) { return count_arithmetic(family, work, all, alphas, layers); };
    const Arithmetic first = count(1), three = count(3), four = count(4);
    double tokens = 0;
    for (const Chunk& chunk : work.all)
        tokens += static_cast<double>(chunk.tokens.tokens());
    const double n = 12288, hidden = 5120, wide = 1536;
    const double attention = 2 * n * hidden + 2 * 1024 * hidden;
    EXPECT_NEAR(three.forward / first.forward, 3, 1e-9);
    const double difference = 2 * tokens * (9 * 3 * wide * hidden - 3 * n * hidden);
    EXPECT_NEAR(four.forward - three.forward - first.forward, difference, 1e-6 * first.forward);
    const auto sampled = static_cast<double>(work.hessian_tokens + work.pair_columns);
    const double statistics = sampled * (9 * (hidden * hidden + wide * wide) - (hidden * hidden + n * n));
    EXPECT_NEAR(four.statistics - three.statistics - first.statistics, statistics, 1e-6 * first.statistics);
    EXPECT_GT(first.forward, 2 * tokens * (attention + 3 * n * hidden));  // and attention's own
}

TEST(Arithmetic, LeavesOutWhatIsIgnored) {
    const Family& family = llama_2_70b.family;
    const Chunks work = chunks();
    const std::vector<AlphaPolicy> alphas{{{0, "all", "all", {}}, family}};
    const auto count = [&](const ModuleSettings& modules) {
        return count_arithmetic(family, work, ModuleGrids({}, modules, family), alphas, 4);
    };
    const Arithmetic all = count({}), without = count({{"down_proj", "v_proj"}, {}}),
                     twice = count({{}, {{"*.up_proj", {.bits = 8}}}});
    EXPECT_EQ(without.forward, all.forward);
    const double n = 28672, hidden = 8192;
    const auto sampled = static_cast<double>(work.hessian_tokens + work.pair_columns);
    EXPECT_NEAR(all.statistics - without.statistics, 4 * sampled * n * n, 1e-6 * all.statistics);
    EXPECT_NEAR(all.columns - without.columns, 4 * (hidden * n * n + 1024 * hidden * hidden), 1e-6 * all.columns);
    EXPECT_NEAR(all.factor - without.factor, 4 * 2.0 / 3 * n * n * n, 1e-6 * all.factor);
    EXPECT_NEAR(twice.factor - all.factor, 4 * 2.0 / 3 * hidden * hidden * hidden, 1e-6 * all.factor);
    const auto work_of = [&](const ModuleSettings& modules) {
        return layer_work(family, work, ModuleGrids({}, modules, family), alphas, 4);
    };
    EXPECT_TRUE(work_of({}).empty());
    const std::vector<double> parts = work_of({{"*.layers.2.*"}, {}});
    ASSERT_EQ(parts.size(), 4U);
    EXPECT_EQ(parts[0], 1);
    EXPECT_LT(parts[2], 0.6);
    EXPECT_GT(parts[2], 0);
}

TEST(MemoryPlan, OfModulesWithGridsOfTheirOwn) {
    Model model = llama_2_70b;
    const Chunks work = chunks();
    const auto peak = [&](const ModuleSettings& modules, const char* item) {
        model.modules = modules;
        return gibibytes_of(model.plan(work, 8).device)[item];
    };
    const double all = peak({}, "solver");
    EXPECT_LT(peak({{"gate_proj", "up_proj"}, {}}, "solver"), 0.6 * all);
    EXPECT_EQ(peak({{"*.layers.0.mlp.up_proj"}, {}}, "solver"), all);  // other layers have one
    EXPECT_GT(peak({{}, {{"*.layers.7.mlp.up_proj", {.group_size = 32}}}}, "solver"), all);
    const double g = static_cast<double>(gib);
    EXPECT_NEAR(peak({{"down_proj"}, {}}, "H and C"), 2.0 * 8192 * 8192 * 4 / g, 1e-3);
    EXPECT_NEAR(peak({{"*.layers.0.mlp.down_proj"}, {}}, "H and C"), 2.0 * 28672 * 28672 * 4 / g, 1e-3);
    EXPECT_GT(peak({{}, {{"*.layers.7.*", {.group_size = 32}}}}, "codes and scales of all ranks"),
              peak({}, "codes and scales of all ranks"));
}

TEST(MemoryPlan, OfA70BModelIsWhatItsShapesSay) {
    const Chunks work = chunks();
    const MemoryPlan plan = llama_2_70b.plan(work, 8, 80);
    EXPECT_TRUE(plan.fits);
    EXPECT_EQ(plan.spilled_tokens, 0);
    EXPECT_EQ(plan.residency.weights, ReadAhead::to_device);
    std::map<std::string, double> parts = gibibytes_of(plan.device);
    const double g = static_cast<double>(gib);
    const double n = 28672, hidden = 8192;
    EXPECT_NEAR(parts["sums of H and C"], 2 * n * (n + 1) / 2 * 8 / g, 1e-3);
    EXPECT_NEAR(parts["H and C"], 2 * n * n * 4 / g, 1e-3);
    // Query and output, key and value, gate and up and down; twice, two bytes each.
    const double layer = 2 * hidden * hidden + 2 * 1024 * hidden + 3 * n * hidden;
    EXPECT_NEAR(parts["layer weights, this and the next"], 2 * 2 * layer / g, 1e-3);
    const auto tokens = static_cast<double>(plan.tokens);
    EXPECT_NEAR(tokens, 128 * 2048 / 8.0 + 2 * 16000 / 8.0, 8192);
    EXPECT_NEAR(parts["hidden states"], tokens * hidden * 2 / g, 1e-3);
    EXPECT_NEAR(parts["stage inputs"], tokens * n * 2 / g, 1e-3);
    // Gate and up, 7168 rows of 57344 at each rank: three matrices of float32, codes, scales and zeros.
    EXPECT_NEAR(parts["solver"], 7168 * (hidden * 13 + 64 * 5) / g, 1e-3);
    EXPECT_NEAR(parts["parts of factors of all ranks"], (128 + 128 / 8) * 1048576 / g, 1e-6);
    // Gathered at every rank, for its own weights; then page-locked, on their way to the record.
    const double grids = 57344 * (hidden + 64 * 5) / g;
    EXPECT_NEAR(parts["codes and scales of all ranks"], grids, 1e-3);
    EXPECT_NEAR(gibibytes_of(plan.host)["codes and scales on their way"], 2 * grids, 1e-3);
    const MemoryPlan alone = llama_2_70b.plan(work, 1, 80);
    EXPECT_EQ(gibibytes_of(alone.device).count("codes and scales of all ranks"), 0U);
    EXPECT_NEAR(gibibytes_of(alone.host)["codes and scales on their way"], grids, 1e-3);
    double sum = 0;
    for (const auto& [name, gibibytes] : parts)
        sum += gibibytes;
    EXPECT_NEAR(static_cast<double>(plan.device_peak) / g, sum, 1e-6);
    // An embedding four times as large is gone before the solver comes.
    EXPECT_EQ(llama_3_70b.plan(work, 8, 80).device_peak, plan.device_peak);
}

TEST(MemoryPlan, OneGpuOf80GibibytesHoldsA70BModel) {
    const MemoryPlan plan = llama_3_70b.plan(chunks(), 1, 80);
    EXPECT_TRUE(plan.fits);
    EXPECT_EQ(plan.spilled_tokens, 0);
    EXPECT_EQ(plan.residency.weights, ReadAhead::to_device);
    EXPECT_LT(plan.device_peak, 60 * gib);
}

TEST(MemoryPlan, EightGpusOf80GibibytesHoldA405BModel) {
    const Chunks work = chunks();
    const MemoryPlan free = llama_405b.plan(work, 8);
    const MemoryPlan plan = llama_405b.plan(work, 8, 80);
    EXPECT_TRUE(plan.fits);
    EXPECT_LE(plan.device_peak, 80 * gib);
    // Sums, H and C alone are 4 · 53248² · 4 bytes.
    EXPECT_GT(free.device_peak, 42 * gib);
    // On 64 GiB something has to wait in host memory, on 40 nothing helps.
    EXPECT_LT(llama_405b.plan(work, 8, 64).device_peak, free.device_peak);
    EXPECT_FALSE(llama_405b.plan(work, 8, 40).fits);
}

TEST(MemoryPlan, WeightsGiveWayBeforeHiddenStatesAndNoMoreThanMust) {
    const Chunks work = chunks();
    const Model& model = llama_2_70b;
    const MemoryPlan free = model.plan(work, 1);
    const auto peak = static_cast<double>(free.device_peak) / static_cast<double>(gib);
    EXPECT_EQ(model.plan(work, 1, peak + 0.01).residency.weights, ReadAhead::to_device);
    const MemoryPlan weights = model.plan(work, 1, peak - 1);
    EXPECT_EQ(weights.residency.weights, ReadAhead::to_host);
    EXPECT_EQ(weights.spilled_tokens, 0);
    EXPECT_EQ(free.device_peak - weights.device_peak, layer_bytes(model.family, DType::bfloat16));
    // Then all of the layer's file waits in the host's memory; before, four tensors at once, which are hardly fewer.
    EXPECT_EQ(weights.host_peak, free.host_peak);
    EXPECT_NEAR(gibibytes_of(weights.host)["pages of the model's files"] * static_cast<double>(gib),
                static_cast<double>(layer_bytes(model.family, DType::bfloat16)), 1);

    const std::int64_t chunk = work.max_tokens;
    for (double limit = peak - 2; limit > 20; limit -= 3.7) {
        const MemoryPlan plan = model.plan(work, 1, limit);
        if (!plan.fits) {
            EXPECT_EQ(plan.spilled_tokens, plan.tokens);
            continue;
        }
        const auto bytes = static_cast<std::size_t>(limit * static_cast<double>(gib));
        EXPECT_LE(plan.device_peak, bytes);
        EXPECT_GT(plan.spilled_tokens, 0);
        // One token more would not have fitted.
        const std::size_t token = CalibrationState::hidden_bytes(model.family, 1, DType::bfloat16) +
                                  CalibrationState::inputs_bytes(model.family, 1, DType::bfloat16, 1);
        EXPECT_GT(plan.device_peak + token, bytes);
        std::map<std::string, double> host = gibibytes_of(plan.host);
        EXPECT_NEAR(host["hidden states, page-locked"] * static_cast<double>(gib),
                    static_cast<double>(plan.spilled_tokens * static_cast<std::int64_t>(token)), 1);
        EXPECT_NEAR(gibibytes_of(plan.device)["chunks on their way"] * static_cast<double>(gib),
                    static_cast<double>(2 * chunk * static_cast<std::int64_t>(token)), 1);
    }
    // Eight times the tokens: still one GPU.
    EXPECT_TRUE(model.plan(chunks(8), 1, 80).fits);
    EXPECT_GT(model.plan(chunks(8), 1, 80).spilled_tokens, 0);
    EXPECT_FALSE(model.plan(work, 1, 20).fits);
}

TEST(MemoryPlan, OnACpuNothingGivesWay) {
    const Chunks work = chunks();
    const Model& model = llama_2_70b;
    const MemoryPlan free =
        plan_memory(model.family, work, 300000, model.settings, {model.settings.solver, {}, model.family}, 8, {});
    EXPECT_TRUE(free.fits);
    const MemoryPlan tight =
        plan_memory(model.family, work, 300000, model.settings, {model.settings.solver, {}, model.family}, 8,
                    {DType::float32, false, free.shared_peak - 1});
    EXPECT_FALSE(tight.fits);
    EXPECT_EQ(tight.shared_peak, free.shared_peak);
    EXPECT_TRUE(plan_memory(model.family, work, 300000, model.settings, {model.settings.solver, {}, model.family}, 8,
                            {DType::float32, false, free.shared_peak})
                    .fits);
}

TEST(MemoryPlan, HOfFloat32InputsIsMadeAsC) {
    const Model model(llama(4096, 4096, 2, 32, 32000));
    Chunks work = chunks();
    const auto scratch = [&](DType type) {
        const MemoryPlan plan = plan_memory(model.family, work, 300000, model.settings,
                                            {model.settings.solver, {}, model.family}, 8, {type, true, {}});
        return gibibytes_of(plan.device)["operations' scratch"];
    };
    const double with_pairs = scratch(DType::float32);
    EXPECT_EQ(scratch(DType::bfloat16), with_pairs);
    work.pair_columns = 0;
    EXPECT_EQ(scratch(DType::float32), with_pairs);
    EXPECT_LT(scratch(DType::bfloat16), with_pairs);
}

TEST(MemoryPlan, WhatRanksKeepOfTheHostMustFitWhatTheyShare) {
    const Chunks work = chunks();
    const MemoryPlan on_cpu = plan_memory(llama_2_70b.family, work, 300000, llama_2_70b.settings,
                                          {llama_2_70b.settings.solver, {}, llama_2_70b.family}, 8, {});
    const MemoryPlan on_gpu = llama_2_70b.plan(work, 8, 80);
    for (const MemoryPlan* plan : {&on_cpu, &on_gpu}) {
        const std::size_t peak = plan == &on_cpu ? plan->shared_peak : plan->host_peak;
        const auto kept = static_cast<double>(plan->host_kept);
        EXPECT_LT(plan->host_kept, peak);
        EXPECT_GT(plan->host_kept, peak / 2);
        const std::vector<SharedLimit> enough{{{kept * 8, "machine", ""}, 8}, {{kept, "/task", "/task"}, 1}};
        EXPECT_FALSE(missing_host_memory(*plan, enough));
        EXPECT_FALSE(missing_host_memory(*plan, {}));
        const std::vector<SharedLimit> machine{{{kept * 8 - 1, "machine", ""}, 8}};
        const std::string said = missing_host_memory(*plan, machine).value_or("");
        EXPECT_TRUE(said.starts_with("8 ranks on one machine need ")) << said;
        EXPECT_NE(said.find("and this machine has "), std::string::npos) << said;
        const std::vector<SharedLimit> task{{{kept * 8, "machine", ""}, 8}, {{kept - 1, "x/job_1", "/job_1"}, 1}};
        const std::string other = missing_host_memory(*plan, task).value_or("");
        EXPECT_TRUE(other.starts_with("a rank needs ")) << other;
        EXPECT_NE(other.find("the cgroup /job_1 (a container's, or a Slurm job's: --mem) allows "), std::string::npos)
            << other;
    }
    // Hidden states that wait in host memory cannot be dropped.
    const MemoryPlan spilled = llama_2_70b.plan(work, 1, 30);
    EXPECT_NEAR(static_cast<double>(spilled.host_kept) / static_cast<double>(gib),
                gibibytes_of(spilled.host)["hidden states, page-locked"], 3);
}

}  // namespace
}  // namespace fairgptq
