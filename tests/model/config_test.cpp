// config.json as transformers 4 and 5 write it, and what is refused.
#include "model/config.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "model/family.hpp"
#include "model/model_files.hpp"

namespace fairgptq {
namespace {

using nlohmann::json;
using testing::expect_refused;

ModelConfig read_text(const std::string& text) {
    const testing::ModelFolder folder;
    folder.write("config.json", text);
    return read_config(folder.path());
}
ModelConfig read(const json& object) {
    return read_text(object.dump());
}

json llama() {
    return json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
        "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 384, "max_position_embeddings": 256, "rms_norm_eps": 1e-05,
        "hidden_act": "silu", "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
        "tie_word_embeddings": true})");
}
json llama_with(const json& changes) {
    json object = llama();
    object.update(changes);
    return object;
}
json relative(const std::string& architecture, const std::string& type, const json& changes) {
    json object = llama_with({{"architectures", {architecture}}, {"model_type", type}});
    object.update(changes);
    return object;
}
json opt() {
    return json::parse(R"({"architectures": ["OPTForCausalLM"], "model_type": "opt", "torch_dtype": "float16",
        "hidden_size": 64, "ffn_dim": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 384,
        "max_position_embeddings": 128, "activation_function": "relu", "do_layer_norm_before": true,
        "word_embed_proj_dim": 64})");
}

TEST(Config, ReadsLlamaOfTransformers5) {
    const ModelConfig config = read(llama());
    EXPECT_EQ(config.architecture, "LlamaForCausalLM");
    EXPECT_EQ(config.model_type, "llama");
    EXPECT_EQ(config.hidden_size, 64);
    EXPECT_EQ(config.intermediate_size, 160);
    EXPECT_EQ(config.layers, 3);
    EXPECT_EQ(config.heads, 4);
    EXPECT_EQ(config.key_value_heads, 2);
    EXPECT_EQ(config.head_dim, 16);
    EXPECT_EQ(config.vocab_size, 384);
    EXPECT_EQ(config.max_positions, 256);
    EXPECT_EQ(config.norm_epsilon, 1e-5);
    EXPECT_EQ(config.activation, Activation::silu);
    EXPECT_EQ(config.rope.type, "default");
    EXPECT_EQ(config.rope.theta, 500000);
    EXPECT_EQ(config.windows, (std::vector<std::int64_t>{0, 0, 0}));
    EXPECT_TRUE(config.tied_embeddings);
    EXPECT_EQ(config.dtype, "bfloat16");
}

TEST(Config, ReadsLlamaOfTransformers4) {
    json object = llama();
    object.erase("rope_parameters");
    object.erase("dtype");
    object.erase("num_key_value_heads");
    object.update({{"torch_dtype", "float16"}, {"rope_theta", 250000.0}, {"rope_scaling", nullptr}, {"head_dim", 32}});
    const ModelConfig config = read(object);
    EXPECT_EQ(config.dtype, "float16");
    EXPECT_EQ(config.rope.theta, 250000);
    EXPECT_EQ(config.rope.type, "default");
    EXPECT_EQ(config.key_value_heads, 4);
    EXPECT_EQ(config.head_dim, 32);

    object["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
    EXPECT_EQ(read(object).rope.type, "linear");
    EXPECT_EQ(read(object).rope.factor, 4);
}

TEST(Config, ReadsLlama3RopeInBothForms) {
    const json scaling = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.5},
                          {"high_freq_factor", 4.5},
                          {"original_max_position_embeddings", 8192}};
    json old_form = llama_with({{"rope_theta", 500000.0}, {"rope_scaling", scaling}});
    old_form.erase("rope_parameters");
    json new_form = llama_with({{"rope_parameters", scaling}});
    new_form["rope_parameters"]["rope_theta"] = 500000.0;
    for (const json& object : {old_form, new_form}) {
        const RopeSettings rope = read(object).rope;
        EXPECT_EQ(rope.type, "llama3");
        EXPECT_EQ(rope.theta, 500000);
        EXPECT_EQ(rope.factor, 8);
        EXPECT_EQ(rope.low_freq_factor, 1.5);
        EXPECT_EQ(rope.high_freq_factor, 4.5);
        EXPECT_EQ(rope.original_max_position_embeddings, 8192);
    }
}

TEST(Config, HonoursLlamaBiases) {
    const Family plain = describe_family(read(llama()));
    for (const StageSpec& stage : plain.stages)
        for (const LinearSpec& linear : stage.linears)
            EXPECT_FALSE(linear.bias) << linear.name;
    const Family attention = describe_family(read(llama_with({{"attention_bias", true}})));
    EXPECT_TRUE(attention.stages[0].linears[2].bias);
    EXPECT_TRUE(attention.stages[1].linears[0].bias);
    EXPECT_FALSE(attention.stages[2].linears[0].bias);
    const Family mlp = describe_family(read(llama_with({{"mlp_bias", true}})));
    EXPECT_FALSE(mlp.stages[0].linears[0].bias);
    EXPECT_TRUE(mlp.stages[2].linears[1].bias);
    EXPECT_TRUE(mlp.stages[3].linears[0].bias);
}

TEST(Config, ReadsMistralWindow) {
    const auto windows = [](const json& changes) {
        return read(relative("MistralForCausalLM", "mistral", changes)).windows;
    };
    EXPECT_EQ(windows({{"sliding_window", 8}}), (std::vector<std::int64_t>{8, 8, 8}));
    EXPECT_EQ(windows({{"sliding_window", nullptr}}), (std::vector<std::int64_t>{0, 0, 0}));
    EXPECT_EQ(windows(json::object()), (std::vector<std::int64_t>{4096, 4096, 4096}));
}

TEST(Config, ReadsQwenWindowsAndBiases) {
    const auto windows = [](const json& changes) {
        return read(relative("Qwen2ForCausalLM", "qwen2", changes)).windows;
    };
    using List = std::vector<std::int64_t>;
    EXPECT_EQ(windows({{"sliding_window", 16}}), (List{0, 0, 0}));
    EXPECT_EQ(windows({{"sliding_window", 16}, {"use_sliding_window", true}, {"max_window_layers", 2}}),
              (List{0, 0, 16}));
    EXPECT_EQ(windows({{"sliding_window", 16}, {"use_sliding_window", true}, {"max_window_layers", 0}}),
              (List{16, 16, 16}));
    EXPECT_EQ(windows({{"sliding_window", 16}, {"use_sliding_window", true}, {"max_window_layers", 28}}),
              (List{0, 0, 0}));
    EXPECT_EQ(windows({{"sliding_window", 16},
                       {"use_sliding_window", true},
                       {"layer_types", {"full_attention", "sliding_attention", "full_attention"}}}),
              (List{0, 16, 0}));

    const Family family = describe_family(read(relative("Qwen2ForCausalLM", "qwen2", json::object())));
    for (const LinearSpec& linear : family.stages[0].linears)
        EXPECT_TRUE(linear.bias);
    EXPECT_FALSE(family.stages[1].linears[0].bias);
}

TEST(Config, ReadsQwen3) {
    const ModelConfig config = read(relative("Qwen3ForCausalLM", "qwen3", json::object()));
    EXPECT_EQ(config.head_dim, 128);  // not hidden size / heads
    const Family family = describe_family(config);
    EXPECT_EQ(family.query_norm, "self_attn.q_norm");
    EXPECT_EQ(family.key_norm, "self_attn.k_norm");
    EXPECT_EQ(family.stages[0].linears[0].rows, 512);
    EXPECT_EQ(family.stages[0].linears[1].rows, 256);
    EXPECT_EQ(family.stages[1].linears[0].cols, 512);
}

TEST(Config, ReadsOpt) {
    const ModelConfig config = read(opt());
    EXPECT_EQ(config.intermediate_size, 256);
    EXPECT_EQ(config.key_value_heads, 4);
    EXPECT_EQ(config.activation, Activation::relu);
    EXPECT_TRUE(config.tied_embeddings);
    EXPECT_EQ(config.norm_epsilon, 1e-5);
    EXPECT_EQ(config.dtype, "float16");
    const Family family = describe_family(config);
    EXPECT_EQ(family.layer(11), "model.decoder.layers.11.");
    EXPECT_EQ(family.position_offset, 2);
    EXPECT_EQ(family.lm_head, family.embedding);
    EXPECT_EQ(family.norm, NormKind::layer);
    EXPECT_EQ(config.rotary, (std::vector<bool>{false, false}));
    EXPECT_FALSE(family.gated);
    ASSERT_EQ(family.stages.size(), 4U);
    for (const StageSpec& stage : family.stages)
        for (const LinearSpec& linear : stage.linears)
            EXPECT_TRUE(linear.bias) << linear.name;
}

struct Refusal {
    const char* what;
    json changes;
    std::vector<std::string> message;
};

TEST(Config, RefusesByFileAndField) {
    const std::vector<Refusal> cases{
        {"unknown architecture",
         {{"architectures", {"MambaForCausalLM"}}},
         {"'architectures'", "MambaForCausalLM", "OPTForCausalLM"}},
        {"no architecture", {{"architectures", nullptr}}, {"'architectures'", "missing"}},
        {"two architectures", {{"architectures", {"LlamaForCausalLM", "X"}}}, {"'architectures'"}},
        {"architecture of another kind", {{"architectures", "LlamaForCausalLM"}}, {"'architectures'"}},
        {"another model type", {{"model_type", "mistral"}}, {"'model_type'", "mistral"}},
        {"no heads", {{"num_attention_heads", 0}}, {"'num_attention_heads'", "0"}},
        {"negative", {{"num_hidden_layers", -3}}, {"'num_hidden_layers'", "-3"}},
        {"text for a number", {{"hidden_size", "64"}}, {"'hidden_size'", "whole number"}},
        {"fraction", {{"hidden_size", 64.5}}, {"'hidden_size'", "whole number"}},
        {"huge", {{"vocab_size", 1000000000000000000}}, {"'vocab_size'", "1000000000000000000"}},
        {"beyond 63 bits", {{"vocab_size", 18446744073709551615U}}, {"'vocab_size'"}},
        {"huge as a fraction", {{"intermediate_size", 1e18}}, {"'intermediate_size'"}},
        {"missing", {{"intermediate_size", nullptr}}, {"'intermediate_size'", "missing"}},
        {"key-value heads", {{"num_key_value_heads", 3}}, {"'num_key_value_heads'", "3"}},
        {"heads that do not divide", {{"num_attention_heads", 6}}, {"'num_attention_heads'", "6"}},
        {"odd head", {{"head_dim", 15}}, {"'head_dim'", "15"}},
        {"heads too wide", {{"head_dim", 65536}, {"num_attention_heads", 65536}}, {"'head_dim'"}},
        {"activation", {{"hidden_act", "swiglu"}}, {"'hidden_act'", "swiglu"}},
        {"norm epsilon", {{"rms_norm_eps", -1}}, {"'rms_norm_eps'"}},
        {"flag of another kind", {{"tie_word_embeddings", 1}}, {"'tie_word_embeddings'"}},
        {"dtype", {{"dtype", "float8"}}, {"'dtype'", "float8"}},
        {"quantized", {{"quantization_config", {{"bits", 4}}}}, {"'quantization_config.quant_method'", "its original"}},
        {"8-bit floats of another form",
         {{"quantization_config", {{"quant_method", "fp8"}, {"activation_scheme", "static"}}}},
         {"'quantization_config.weight_block_size'", "[128, 128]"}},
        {"rope type",
         {{"rope_parameters", {{"rope_type", "proportional"}, {"factor", 4}}}},
         {"'rope_parameters.rope_type'", "proportional"}},
        {"rope of layer types",
         {{"rope_parameters", {{"sliding_attention", {{"rope_theta", 10.0}}}}}},
         {"'rope_parameters.sliding_attention'", "rotate alike"}},
        {"yarn's bounds",
         {{"rope_parameters", {{"rope_type", "yarn"}, {"factor", 4}, {"beta_fast", 0.5}, {"beta_slow", 1}}}},
         {"'rope_parameters.beta_fast'"}},
        {"yarn's theta",
         {{"rope_parameters", {{"rope_type", "yarn"}, {"factor", 4}, {"rope_theta", 1}}}},
         {"'rope_parameters.rope_type'", "rope_theta"}},
        {"a context of nothing",
         {{"rope_parameters", {{"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 1}}}},
         {"'rope_parameters.original_max_position_embeddings'"}},
        {"longrope without its context",
         {{"rope_parameters", {{"rope_type", "longrope"}, {"short_factor", {1, 1, 1, 1, 1, 1, 1, 1}}}}},
         {"'rope_parameters.original_max_position_embeddings'", "missing"}},
        {"longrope without factors",
         {{"rope_parameters", {{"rope_type", "longrope"}, {"original_max_position_embeddings", 64}}}},
         {"'rope_parameters.short_factor'", "missing"}},
        {"longrope's factors",
         {{"rope_parameters",
           {{"rope_type", "longrope"}, {"original_max_position_embeddings", 64}, {"short_factor", {1, 1}}}}},
         {"'rope_parameters.short_factor'", "8 numbers"}},
        {"a factor of zero",
         {{"rope_parameters",
           {{"rope_type", "longrope"},
            {"original_max_position_embeddings", 64},
            {"short_factor", {1, 1, 1, 1, 1, 1, 1, 0}}}}},
         {"'rope_parameters.short_factor'", "positive"}},
        {"partial rope beside it", {{"partial_rotary_factor", 0.5}}, {"'partial_rotary_factor'"}},
        {"rope of another kind", {{"rope_parameters", 3}}, {"'rope_parameters'"}},
        {"rope without factor",
         {{"rope_parameters", {{"rope_type", "linear"}}}},
         {"'rope_parameters.factor'", "missing"}},
        {"rope theta", {{"rope_parameters", {{"rope_theta", 0}}}}, {"'rope_parameters.rope_theta'"}},
        {"partial rope",
         {{"rope_parameters", {{"partial_rotary_factor", 0.5}}}},
         {"'rope_parameters.partial_rotary_factor'"}},
        {"rope bounds",
         {{"rope_parameters",
           {{"rope_type", "llama3"},
            {"factor", 8},
            {"low_freq_factor", 4},
            {"high_freq_factor", 4},
            {"original_max_position_embeddings", 8192}}}},
         {"'rope_parameters.high_freq_factor'"}},
    };
    for (const Refusal& refusal : cases) {
        SCOPED_TRACE(refusal.what);
        std::vector<std::string> parts = refusal.message;
        parts.emplace_back("config.json");
        expect_refused([&] { read(llama_with(refusal.changes)); }, parts);
    }
    for (const char* type : {"dynamic", "proportional"}) {
        json old_form = llama_with({{"rope_scaling", {{"type", type}, {"factor", 2}}}});
        old_form.erase("rope_parameters");
        expect_refused([&] { read(old_form); }, {"'rope_scaling.type'", type});
    }
}

TEST(Config, ReadsYarn) {
    const RopeSettings rope =
        read(llama_with({{"rope_parameters", {{"rope_type", "yarn"}, {"factor", 4.0}, {"rope_theta", 1e6}}}})).rope;
    EXPECT_EQ(rope.factor, 4);
    EXPECT_EQ(rope.beta_fast, 32);
    EXPECT_EQ(rope.beta_slow, 1);
    EXPECT_TRUE(rope.truncate);
    EXPECT_EQ(rope.original_max_position_embeddings, 256);
    EXPECT_DOUBLE_EQ(rope.attention_factor, 0.1 * std::log(4.0) + 1);
    const RopeSettings given = read(llama_with({{"rope_parameters",
                                                 {{"rope_type", "yarn"},
                                                  {"factor", 4.0},
                                                  {"mscale", 0.5},
                                                  {"mscale_all_dim", 1.0},
                                                  {"truncate", false},
                                                  {"original_max_position_embeddings", 64}}}}))
                                   .rope;
    EXPECT_DOUBLE_EQ(given.attention_factor, (0.05 * std::log(4.0) + 1) / (0.1 * std::log(4.0) + 1));
    EXPECT_FALSE(given.truncate);
    EXPECT_EQ(given.original_max_position_embeddings, 64);
}

TEST(Config, ReadsSmolLm3) {
    const auto config = [](const json& changes) { return read(relative("SmolLM3ForCausalLM", "smollm3", changes)); };
    using Flags = std::vector<bool>;
    using List = std::vector<std::int64_t>;
    EXPECT_EQ(config({{"num_hidden_layers", 5}}).rotary, (Flags{true, true, true, false, true}));
    EXPECT_EQ(config({{"no_rope_layers", {0, 1, 0}}}).rotary, (Flags{false, true, false}));
    EXPECT_EQ(config({{"no_rope_layers", {0, 1, 0}}, {"use_sliding_window", true}, {"sliding_window", 7}}).windows,
              (List{7, 0, 7}));
    EXPECT_EQ(config({{"no_rope_layers", {0, 1, 0}}, {"use_sliding_window", true}}).windows, (List{0, 0, 0}));
    EXPECT_EQ(config({{"rope_parameters", nullptr}}).rope.theta, 2e6);
    EXPECT_TRUE(config({{"tie_word_embeddings", nullptr}}).tied_embeddings);
    expect_refused([&] { config({{"no_rope_layers", {1, 1}}}); }, {"'no_rope_layers'", "3"});
    expect_refused([&] { config({{"no_rope_layers", {1, 2, 1}}}); }, {"'no_rope_layers'", "layer 1"});
}

TEST(Config, ReadsGranite) {
    const ModelConfig plain = read(relative("GraniteForCausalLM", "granite", json::object()));
    EXPECT_EQ(plain.attention_multiplier, 1.0);  // not 1 / sqrt(head_dim)
    EXPECT_EQ(plain.residual_multiplier, 1);
    const ModelConfig config = read(relative("GraniteForCausalLM", "granite",
                                             {{"embedding_multiplier", 12},
                                              {"residual_multiplier", 0.22},
                                              {"attention_multiplier", 0.015625},
                                              {"logits_scaling", 8}}));
    EXPECT_EQ(config.embedding_multiplier, 12);
    EXPECT_EQ(config.residual_multiplier, 0.22);
    EXPECT_EQ(config.attention_multiplier, 0.015625);
    EXPECT_EQ(config.logits_scaling, 8);
    expect_refused(
        [] {
            read(relative("GraniteForCausalLM", "granite", {{"logits_scaling", 0}}));
        },
        {"'logits_scaling'"});
}

TEST(Config, ReadsPhi3) {
    const json factors = {1.0, 1.0, 1.5, 1.5, 2.0, 2.0, 2.5, 2.5};
    const auto phi = [](const json& changes) { return read(relative("Phi3ForCausalLM", "phi3", changes)); };
    const Family family = describe_family(phi({{"sliding_window", 9}}));
    EXPECT_EQ(family.config.windows, (std::vector<std::int64_t>{9, 9, 9}));
    ASSERT_EQ(family.stages[0].linears.size(), 1U);
    EXPECT_EQ(family.stages[0].linears[0].name, "self_attn.qkv_proj");
    EXPECT_EQ(family.stages[0].linears[0].rows, 64 + 2 * 32);
    EXPECT_EQ(family.stages[2].linears[0].name, "mlp.gate_up_proj");
    EXPECT_EQ(family.stages[2].linears[0].rows, 320);
    EXPECT_EQ(family.stages[3].linears[0].cols, 160);
    // Both forms of a file, and the type's first name. Positions end where other factors would begin.
    json old_form = {{"rope_theta", 10000.0},
                     {"original_max_position_embeddings", 64},
                     {"rope_scaling", {{"type", "su"}, {"short_factor", factors}, {"long_factor", factors}}},
                     {"rope_parameters", nullptr}};
    json new_form = {{"rope_parameters",
                      {{"rope_theta", 10000.0},
                       {"rope_type", "longrope"},
                       {"short_factor", factors},
                       {"original_max_position_embeddings", 64}}}};
    for (const json& form : {old_form, new_form}) {
        const ModelConfig config = phi(form);
        EXPECT_EQ(config.rope.type, "longrope");
        EXPECT_EQ(config.rope.short_factor, factors.get<std::vector<double>>());
        EXPECT_DOUBLE_EQ(config.rope.attention_factor, std::sqrt(1 + std::log(4.0) / std::log(64.0)));
        EXPECT_EQ(config.max_positions, 64);
    }
    EXPECT_EQ(phi(old_form).rotary_dim, 16);
    // Phi-4-mini, in both forms; what is said twice is said alike.
    old_form["partial_rotary_factor"] = 0.75;
    new_form["rope_parameters"]["partial_rotary_factor"] = 0.75;
    for (json form : {old_form, new_form}) {
        expect_refused([&] { phi(form); }, {"short_factor'", "6 numbers"});
        form[form.contains("rope_scaling") ? "rope_scaling" : "rope_parameters"]["short_factor"] = {1, 1, 1, 2, 2, 2};
        EXPECT_EQ(phi(form).rotary_dim, 12);
        EXPECT_EQ(phi(form).head_dim, 16);
        EXPECT_EQ(phi(form).rope.short_factor.size(), 6U);
    }
    new_form["partial_rotary_factor"] = 1.0;
    expect_refused([&] { phi(new_form); }, {"'rope_parameters.partial_rotary_factor'", "beside"});
    expect_refused([&] { phi({{"partial_rotary_factor", 0.2}}); }, {"'partial_rotary_factor'", "3 would be rotated"});
    expect_refused([&] { phi({{"partial_rotary_factor", 0.05}}); }, {"'partial_rotary_factor'", "0 would be rotated"});
    EXPECT_EQ(phi({{"partial_rotary_factor", 0.25}}).rotary_dim, 4);
    expect_refused(
        [&] {
            phi({{"rope_parameters", {{"rope_type", "linear"}, {"factor", 2}}}});
        },
        {"'rope_parameters'", "linear", "longrope"});
}

TEST(Config, ReadsOlmo) {
    const Family second = describe_family(read(relative("Olmo2ForCausalLM", "olmo2", json::object())));
    EXPECT_EQ(second.input_norm, "");
    EXPECT_EQ(second.mlp_norm, "");
    EXPECT_EQ(second.attention_output_norm, "post_attention_layernorm");
    EXPECT_EQ(second.mlp_output_norm, "post_feedforward_layernorm");
    EXPECT_TRUE(second.query_norm_of_all_heads);
    const auto third = [](json changes) {
        if (!changes.contains("rope_parameters")) changes["rope_parameters"] = nullptr;
        return read(relative("Olmo3ForCausalLM", "olmo3", changes));
    };
    const json yarn = {{"rope_type", "yarn"}, {"factor", 8.0}, {"original_max_position_embeddings", 32}};
    const ModelConfig old_form =
        third({{"num_hidden_layers", 5}, {"sliding_window", 6}, {"rope_theta", 7e5}, {"rope_scaling", yarn}});
    EXPECT_EQ(old_form.windows, (std::vector<std::int64_t>{6, 6, 6, 0, 6}));
    json full = yarn;
    full["rope_theta"] = 7e5;
    const ModelConfig new_form =
        third({{"layer_types", {"full_attention", "sliding_attention", "full_attention"}},
               {"sliding_window", 6},
               {"rope_parameters", {{"full_attention", full}, {"sliding_attention", {{"rope_theta", 7e5}}}}}});
    EXPECT_EQ(new_form.windows, (std::vector<std::int64_t>{0, 6, 0}));
    for (const ModelConfig& config : {old_form, new_form}) {
        EXPECT_EQ(config.rope.type, "yarn");
        EXPECT_EQ(config.rope.theta, 7e5);
        EXPECT_EQ(config.window_rope.type, "default");
        EXPECT_EQ(config.window_rope.theta, 7e5);
    }
    const json longrope = {{"rope_type", "longrope"},
                           {"short_factor", {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0}},
                           {"original_max_position_embeddings", 32}};
    EXPECT_EQ(third({{"rope_scaling", longrope}}).max_positions, 32);
    json part_of_a_head = yarn;
    part_of_a_head["partial_rotary_factor"] = 0.5;
    expect_refused([&] { third({{"rope_scaling", part_of_a_head}}); }, {"'rope_scaling.partial_rotary_factor'"});
    part_of_a_head["rope_theta"] = 7e5;
    expect_refused(
        [&] {
            third({{"rope_parameters",
                    {{"full_attention", part_of_a_head}, {"sliding_attention", {{"rope_theta", 7e5}}}}}});
        },
        {"'rope_parameters.full_attention.partial_rotary_factor'"});
    expect_refused([&] { third({{"sliding_window", nullptr}}); }, {"'sliding_window'", "layer 0"});
    expect_refused(
        [&] {
            third({{"rope_scaling", yarn}, {"rope_parameters", {{"full_attention", full}}}});
        },
        {"'rope_scaling'", "rope_parameters"});
    expect_refused(
        [&] {
            third({{"rope_parameters", {{"rope_theta", 5e5}}}});
        },
        {"'rope_parameters'", "full_attention", "sliding_attention"});
}

TEST(Config, ReadsGemma3) {
    const auto gemma = [](json changes) {
        json object = relative("Gemma3ForCausalLM", "gemma3_text",
                               {{"hidden_activation", "gelu_pytorch_tanh"}, {"rope_parameters", nullptr}});
        object.erase("hidden_act");
        object.erase("tie_word_embeddings");
        object.update(changes);
        return read(object);
    };
    const ModelConfig config = gemma({{"num_hidden_layers", 7}, {"hidden_size", 1152}});
    EXPECT_EQ(config.windows, (std::vector<std::int64_t>{4096, 4096, 4096, 4096, 4096, 0, 4096}));
    EXPECT_EQ(config.rope.theta, 1e6);
    EXPECT_EQ(config.window_rope.theta, 10000);
    EXPECT_EQ(config.head_dim, 256);
    EXPECT_EQ(config.attention_multiplier, 0.0625);
    EXPECT_EQ(config.embedding_multiplier, 34);  // sqrt(1152) = 33.94 in bfloat16
    EXPECT_TRUE(config.tied_embeddings);
    const Family family = describe_family(config);
    EXPECT_EQ(family.mlp_norm, "pre_feedforward_layernorm");
    EXPECT_EQ(family.attention_output_norm, "post_attention_layernorm");
    EXPECT_EQ(family.norm_offset, 1);
    const ModelConfig other = gemma({{"rope_local_base_freq", 50.0},
                                     {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}},
                                     {"query_pre_attn_scalar", 64},
                                     {"sliding_window_pattern", 2},
                                     {"sliding_window", 5}});
    EXPECT_EQ(other.windows, (std::vector<std::int64_t>{5, 0, 5}));
    EXPECT_EQ(other.rope.type, "linear");
    EXPECT_EQ(other.window_rope.type, "default");
    EXPECT_EQ(other.window_rope.theta, 50);
    EXPECT_EQ(other.attention_multiplier, 0.125);
    expect_refused([&] { gemma({{"partial_rotary_factor", 0.5}}); }, {"'partial_rotary_factor'"});
    expect_refused(
        [&] {
            gemma({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}, {"partial_rotary_factor", 0.5}}}});
        },
        {"'rope_scaling.partial_rotary_factor'"});
    expect_refused([&] { gemma({{"final_logit_softcapping", 30.0}}); }, {"'final_logit_softcapping'"});
    expect_refused([&] { gemma({{"attn_logit_softcapping", 50.0}}); }, {"'attn_logit_softcapping'"});
    expect_refused([&] { gemma({{"use_bidirectional_attention", true}}); }, {"'use_bidirectional_attention'"});
}

TEST(Config, ReadsGemma) {
    json object = relative("GemmaForCausalLM", "gemma", {{"hidden_size", 3072}, {"hidden_act", "gelu"}});
    object.erase("tie_word_embeddings");
    const ModelConfig config = read(object);
    EXPECT_EQ(config.activation, Activation::gelu_tanh);
    EXPECT_EQ(config.head_dim, 256);
    EXPECT_EQ(config.embedding_multiplier, 55.5);  // sqrt(3072) = 55.43 in bfloat16
    EXPECT_FALSE(config.attention_multiplier.has_value());
    EXPECT_EQ(config.attention_cap, 0);
    EXPECT_TRUE(config.tied_embeddings);
    const Family family = describe_family(config);
    EXPECT_EQ(family.norm_offset, 1);
    EXPECT_EQ(family.mlp_norm, "post_attention_layernorm");
    EXPECT_EQ(family.attention_output_norm, "");
    object["use_bidirectional_attention"] = true;
    expect_refused([&] { read(object); }, {"'use_bidirectional_attention'"});
}

TEST(Config, ReadsGemma2) {
    const auto gemma = [](json changes) {
        json object = relative("Gemma2ForCausalLM", "gemma2", {{"hidden_activation", "gelu_pytorch_tanh"}});
        object.erase("tie_word_embeddings");
        object.update(changes);
        return read(object);
    };
    const ModelConfig config = gemma({{"hidden_size", 2304}});
    EXPECT_EQ(config.windows, (std::vector<std::int64_t>{4096, 0, 4096}));
    EXPECT_EQ(config.head_dim, 256);
    EXPECT_EQ(config.attention_multiplier, 0.0625);
    EXPECT_EQ(config.embedding_multiplier, 48);
    EXPECT_EQ(config.attention_cap, 50);
    EXPECT_EQ(config.logits_cap, 30);
    EXPECT_TRUE(config.tied_embeddings);
    EXPECT_EQ(config.window_rope.theta, config.rope.theta);
    const Family family = describe_family(config);
    EXPECT_EQ(family.mlp_norm, "pre_feedforward_layernorm");
    EXPECT_EQ(family.mlp_output_norm, "post_feedforward_layernorm");
    EXPECT_EQ(family.query_norm, "");
    EXPECT_EQ(family.norm_offset, 1);
    const ModelConfig other = gemma({{"attn_logit_softcapping", nullptr},
                                     {"final_logit_softcapping", 7.5},
                                     {"sliding_window", 5},
                                     {"layer_types", {"full_attention", "sliding_attention", "full_attention"}}});
    EXPECT_EQ(other.windows, (std::vector<std::int64_t>{0, 5, 0}));
    EXPECT_EQ(other.attention_cap, 0);
    EXPECT_EQ(other.logits_cap, 7.5);
    EXPECT_EQ(gemma({{"final_logit_softcapping", nullptr}}).logits_cap, 0);
    expect_refused([&] { gemma({{"attn_logit_softcapping", 0}}); }, {"'attn_logit_softcapping'"});
    expect_refused([&] { gemma({{"final_logit_softcapping", "30"}}); }, {"'final_logit_softcapping'"});
    expect_refused([&] { gemma({{"use_bidirectional_attention", true}}); }, {"'use_bidirectional_attention'"});
}

TEST(Config, ReadsExaone4) {
    const auto exaone = [](const json& changes) { return read(relative("Exaone4ForCausalLM", "exaone4", changes)); };
    const ModelConfig by_number = exaone({{"sliding_window", 9}, {"sliding_window_pattern", 3}});
    EXPECT_EQ(by_number.windows, (std::vector<std::int64_t>{9, 9, 0}));
    EXPECT_EQ(by_number.rotary, (std::vector<bool>{true, true, false}));
    const ModelConfig by_list = exaone({{"sliding_window", 9},
                                        {"sliding_window_pattern", "LLLG"},
                                        {"layer_types", {"sliding_attention", "full_attention", "full_attention"}}});
    EXPECT_EQ(by_list.windows, (std::vector<std::int64_t>{9, 0, 0}));
    EXPECT_EQ(by_list.rotary, (std::vector<bool>{true, false, false}));
    const ModelConfig none = exaone({{"sliding_window", nullptr}});
    EXPECT_EQ(none.windows, (std::vector<std::int64_t>{0, 0, 0}));
    EXPECT_EQ(none.rotary, (std::vector<bool>{true, true, true}));
    const Family family = describe_family(none);
    EXPECT_EQ(family.mlp_output_norm, "post_feedforward_layernorm");
    EXPECT_TRUE(family.input_norm.empty());
    EXPECT_EQ(family.query_norm, "self_attn.q_norm");
    EXPECT_FALSE(family.query_norm_of_all_heads);
    expect_refused(
        [&] {
            exaone({{"sliding_window", 9}, {"sliding_window_pattern", "LLLG"}});
        },
        {"'sliding_window_pattern'", "layer_types"});
    const json types = {"sliding_attention", "full_attention", "full_attention"};
    expect_refused(
        [&] {
            exaone({{"sliding_window", nullptr}, {"layer_types", types}});
        },
        {"'sliding_window'", "layer 0 has sliding attention"});
    const json full = {"full_attention", "full_attention", "full_attention"};
    EXPECT_EQ(exaone({{"sliding_window", nullptr}, {"layer_types", full}}).rotary,
              (std::vector<bool>{true, true, true}));
}

TEST(Config, ReadsSeedOss) {
    const auto biases = [](const json& changes) {
        json object = relative("SeedOssForCausalLM", "seed_oss", changes);
        object.erase("num_key_value_heads");
        object["num_attention_heads"] = 16;
        const Family family = describe_family(read(object));
        EXPECT_EQ(family.config.key_value_heads, 8);
        EXPECT_EQ(family.config.head_dim, 128);
        return std::vector<bool>{family.stages[0].linears[2].bias, family.stages[1].linears[0].bias,
                                 family.stages[3].linears[0].bias};
    };
    EXPECT_EQ(biases(json::object()), (std::vector<bool>{true, false, false}));
    EXPECT_EQ(biases({{"attention_bias", false}, {"attention_out_bias", true}, {"mlp_bias", true}}),
              (std::vector<bool>{false, true, true}));
}

TEST(Config, ReadsMixtral) {
    json object = relative("MixtralForCausalLM", "mixtral", {{"num_local_experts", 3}, {"num_experts_per_tok", 1}});
    const Family family = describe_family(read(object));
    EXPECT_TRUE(family.is_mixture());
    EXPECT_TRUE(family.config.normalized_routing);
    EXPECT_EQ(family.config.windows[0], 0);
    EXPECT_EQ(family.router, "block_sparse_moe.gate");
    ASSERT_EQ(family.stages.size(), 2U + 2 * 3);
    EXPECT_EQ(family.kinds_of_layers(), std::vector<std::int64_t>{0});
    EXPECT_EQ(family.stages[1].expert, -1);
    EXPECT_EQ(family.stages[4].expert, 1);
    EXPECT_EQ(family.stages[4].linears[0].name, "block_sparse_moe.experts.1.w1");
    EXPECT_EQ(family.stages[4].linears[1].name, "block_sparse_moe.experts.1.w3");
    EXPECT_EQ(family.stages[5].linears[0].name, "block_sparse_moe.experts.1.w2");
    EXPECT_EQ(family.stages[5].linears[0].rows, 64);
    EXPECT_EQ(family.stages[5].linears[0].cols, 160);
    for (const char* field : {"num_local_experts", "num_experts_per_tok", "rope_parameters"})
        object.erase(field);
    object["sliding_window"] = 9;
    EXPECT_EQ(read(object).experts, 8);
    EXPECT_EQ(read(object).experts_per_token, 2);
    EXPECT_EQ(read(object).rope.theta, 1e6);
    EXPECT_EQ(read(object).windows[2], 9);
}

TEST(Config, ReadsQwen3Moe) {
    const json few = {
        {"num_experts", 4}, {"num_experts_per_tok", 3}, {"moe_intermediate_size", 96}, {"head_dim", nullptr}};
    json object = relative("Qwen3MoeForCausalLM", "qwen3_moe", few);
    const Family family = describe_family(read(object));
    EXPECT_EQ(family.config.head_dim, 16);
    EXPECT_FALSE(family.config.normalized_routing);
    EXPECT_EQ(family.router, "mlp.gate");
    EXPECT_EQ(family.query_norm, "self_attn.q_norm");
    EXPECT_EQ(family.stages[8].linears[1].name, "mlp.experts.3.up_proj");
    EXPECT_EQ(family.stages[9].linears[0].name, "mlp.experts.3.down_proj");
    EXPECT_EQ(family.stages[9].linears[0].cols, 96);
    EXPECT_EQ(kind_of_linear("mlp.experts.12.down_proj"), "mlp.experts.*.down_proj");
    EXPECT_EQ(kind_of_linear("self_attn.o_proj"), "self_attn.o_proj");
    object.update({{"num_local_experts", 4}, {"norm_topk_prob", true}, {"mlp_only_layers", json::array()}});
    EXPECT_TRUE(read(object).normalized_routing);
    EXPECT_EQ(read(object).windows[0], 0);
    object.update({{"use_sliding_window", true}, {"max_window_layers", 2}});
    EXPECT_EQ(read(object).windows, (std::vector<std::int64_t>{4096, 4096, 4096}));
    object["sliding_window"] = nullptr;
    EXPECT_EQ(read(object).windows[2], 0);
    object["decoder_sparse_step"] = 2;
    const Family some = describe_family(read(object));
    EXPECT_EQ(some.config.dense, (std::vector<bool>{true, false, true}));
    EXPECT_EQ(some.kinds_of_layers(), (std::vector<std::int64_t>{0, 1}));
    EXPECT_FALSE(some.has_experts(2));
    ASSERT_EQ(some.stage_count(2), 4);
    EXPECT_EQ(some.stages_of(2)[2].linears[1].name, "mlp.up_proj");
    EXPECT_EQ(some.stages_of(2)[3].linears[0].cols, 160);
    ASSERT_EQ(some.stage_count(1), 2 + 2 * 4);
    EXPECT_EQ(some.stages_of(1)[9].linears[0].cols, 96);
    object["decoder_sparse_step"] = 1;
    object["mlp_only_layers"] = {2, 2};
    EXPECT_EQ(read(object).dense, (std::vector<bool>{false, false, true}));
    EXPECT_EQ(describe_family(read(object)).kinds_of_layers(), (std::vector<std::int64_t>{0, 2}));
    object["mlp_only_layers"] = json::array();
    object.erase("intermediate_size");  // of layers without experts, which there are none of
    EXPECT_EQ(read(object).intermediate_size, 96);
    object.erase("num_experts");  // as transformers 5 writes it
    EXPECT_EQ(read(object).experts, 4);
    const auto refused = [&](const json& changes, const std::vector<std::string>& words) {
        json other = object;
        other.update(changes);
        expect_refused([&] { read(other); }, words);
    };
    refused({{"num_experts", 5}}, {"'num_experts'", "num_local_experts"});
    refused({{"num_experts_per_tok", 5}}, {"'num_experts_per_tok'", "5", "4 experts"});
    refused({{"num_local_experts", 0}}, {"'num_local_experts'"});
    refused({{"decoder_sparse_step", 0}}, {"'decoder_sparse_step'"});
    refused({{"decoder_sparse_step", 4}}, {"'decoder_sparse_step'", "no layer with experts"});
    refused({{"mlp_only_layers", {0, 1, 2}}}, {"'mlp_only_layers'", "no layer with experts"});
    refused({{"mlp_only_layers", {3}}}, {"'mlp_only_layers'", "layer 3", "0 to 2"});
    refused({{"mlp_only_layers", {-1}}}, {"'mlp_only_layers'", "layer -1"});
    refused({{"mlp_only_layers", {"a"}}}, {"'mlp_only_layers'"});
    refused({{"mlp_only_layers", 1}}, {"'mlp_only_layers'", "list"});
    refused({{"moe_intermediate_size", 0}}, {"'moe_intermediate_size'"});
}

TEST(Config, ReadsQwen2Moe) {
    json object = relative("Qwen2MoeForCausalLM", "qwen2_moe",
                           {{"num_experts", 5}, {"moe_intermediate_size", 96}, {"mlp_only_layers", {1}}});
    const Family family = describe_family(read(object));
    EXPECT_EQ(family.config.experts_per_token, 4);
    EXPECT_FALSE(family.config.normalized_routing);
    EXPECT_TRUE(family.stages[0].linears[0].bias);
    EXPECT_FALSE(family.stages[1].linears[0].bias);
    EXPECT_TRUE(family.dense_stages[0].linears[2].bias);
    ASSERT_EQ(family.stage_count(0), 2 + 2 * 6);
    const StageSpec& shared = family.stages[12];
    EXPECT_EQ(shared.expert, 5);
    EXPECT_TRUE(shared.shared);
    EXPECT_FALSE(shared.is_routed());
    EXPECT_TRUE(family.stages[11].is_routed());
    EXPECT_EQ(shared.linears[0].name, "mlp.shared_expert.gate_proj");
    EXPECT_EQ(shared.linears[0].rows, 5632);
    EXPECT_EQ(family.stages[13].linears[0].name, "mlp.shared_expert.down_proj");
    EXPECT_EQ(family.shared_gate, "mlp.shared_expert_gate");
    EXPECT_EQ(family.stage_count(1), 4);
    EXPECT_EQ(family.config.windows, (std::vector<std::int64_t>{0, 0, 0}));
    object.update({{"use_sliding_window", true}, {"sliding_window", 7}, {"qkv_bias", false}});
    EXPECT_EQ(read(object).windows, (std::vector<std::int64_t>{7, 0, 7}));
    EXPECT_FALSE(describe_family(read(object)).stages[0].linears[0].bias);
    object["max_window_layers"] = 2;
    EXPECT_EQ(read(object).windows, (std::vector<std::int64_t>{7, 0, 0}));
    object["layer_types"] = {"full_attention", "sliding_attention", "full_attention"};
    EXPECT_EQ(read(object).windows, (std::vector<std::int64_t>{0, 7, 0}));
}

TEST(Config, ReadsGlm4Moe) {
    json object = relative("Glm4MoeForCausalLM", "glm4_moe", {{"n_shared_experts", 2}, {"attention_bias", true}});
    const Family family = describe_family(read(object));
    const ModelConfig& config = family.config;
    EXPECT_EQ(config.rotary_dim, config.head_dim / 2);
    EXPECT_EQ(config.experts, 128);
    EXPECT_EQ(config.experts_per_token, 8);
    EXPECT_EQ(config.intermediate_size, 1408);
    EXPECT_EQ(config.shared_intermediate_size, 2 * 1408);
    EXPECT_EQ(config.dense, (std::vector<bool>{true, false, false}));
    EXPECT_EQ(config.dense_intermediate_size, 160);
    EXPECT_EQ(config.router_score, RouterScore::sigmoid);
    EXPECT_TRUE(config.normalized_routing);
    EXPECT_EQ(config.routing_scale, 1);
    EXPECT_TRUE(family.stages[0].linears[1].bias);
    EXPECT_FALSE(family.stages[1].linears[0].bias);
    EXPECT_EQ(family.router_bias, "mlp.gate.e_score_correction_bias");
    EXPECT_EQ(family.query_norm, "");
    EXPECT_EQ(family.stages.back().linears[0].name, "mlp.shared_experts.down_proj");
    EXPECT_EQ(family.kinds_of_layers(), (std::vector<std::int64_t>{0, 1}));
    object.update({{"first_k_dense_replace", 0},
                   {"use_qk_norm", true},
                   {"routed_scaling_factor", 2.5},
                   {"norm_topk_prob", false},
                   {"n_routed_experts", 160},
                   {"rope_parameters", {{"rope_theta", 1e6}, {"partial_rotary_factor", 0.25}}}});
    const Family other = describe_family(read(object));
    EXPECT_EQ(other.config.dense, std::vector<bool>{});
    EXPECT_EQ(other.config.routing_scale, 2.5);
    EXPECT_EQ(other.config.experts, 160);
    EXPECT_EQ(other.config.rotary_dim, other.config.head_dim / 4);
    EXPECT_FALSE(other.config.normalized_routing);
    EXPECT_EQ(other.query_norm, "self_attn.q_norm");
    EXPECT_EQ(other.kinds_of_layers(), (std::vector<std::int64_t>{0}));
    const auto refused = [&](const json& changes, const std::vector<std::string>& words) {
        json changed = object;
        changed.update(changes);
        expect_refused([&] { read(changed); }, words);
    };
    refused({{"n_group", 3}}, {"'n_group'", "does not divide the 160 experts"});
    refused({{"first_k_dense_replace", 3}}, {"'first_k_dense_replace'", "no layer with experts"});
    refused({{"n_shared_experts", 0}}, {"'n_shared_experts'"});
    refused({{"n_shared_experts", 4096}, {"moe_intermediate_size", 4096}}, {"'n_shared_experts'", "wider"});
    refused({{"num_experts", 4}}, {"'num_experts'", "n_routed_experts"});
}

TEST(Config, ReadsDots1) {
    const json needed = {{"n_routed_experts", 4}, {"num_experts_per_tok", 2}, {"n_shared_experts", 1}};
    json object = relative("Dots1ForCausalLM", "dots1", needed);
    const Family family = describe_family(read(object));
    EXPECT_FALSE(family.config.normalized_routing);
    EXPECT_EQ(family.config.dense, std::vector<bool>{});
    EXPECT_EQ(family.config.windows[2], 0);
    EXPECT_EQ(family.key_norm, "self_attn.k_norm");
    EXPECT_FALSE(family.query_norm_of_all_heads);
    object.update({{"scoring_func", "noaux_tc"}, {"topk_method", "noaux_tc"}});  // as published
    EXPECT_EQ(read(object).router_score, RouterScore::sigmoid);
    object["max_window_layers"] = 1;
    EXPECT_EQ(read(object).windows, (std::vector<std::int64_t>{0, 4096, 4096}));
    object["sliding_window"] = nullptr;
    EXPECT_EQ(read(object).windows, (std::vector<std::int64_t>{0, 0, 0}));
    for (const auto& [field, value] : needed.items()) {
        json without = object;
        without.erase(field);
        expect_refused([&] { read(without); }, {field});
    }
}

TEST(Config, ReadsMiniMaxM2) {
    json object = relative("MiniMaxM2ForCausalLM", "minimax_m2",
                           {{"num_local_experts", 6}, {"num_experts_per_tok", 2}, {"head_dim", 16}});
    constexpr int head = 16;
    EXPECT_EQ(read(object).rotary_dim, head);
    // As published, then as transformers 5 writes it.
    object.update({{"rotary_dim", head / 2},
                   {"scoring_func", "sigmoid"},
                   {"qk_norm_type", "per_layer"},
                   {"use_qk_norm", true},
                   {"use_routing_bias", true},
                   {"shared_intermediate_size", 0},
                   {"attn_type_list", {1, 1, 1}},
                   {"sliding_window", nullptr}});
    const Family family = describe_family(read(object));
    EXPECT_EQ(family.config.rotary_dim, head / 2);
    EXPECT_EQ(family.config.router_score, RouterScore::sigmoid);
    EXPECT_TRUE(family.config.normalized_routing);
    EXPECT_EQ(family.router_bias, "block_sparse_moe.e_score_correction_bias");
    EXPECT_EQ(family.stages.back().linears.front().name, "block_sparse_moe.experts.5.w2");
    EXPECT_TRUE(family.query_norm_of_all_heads);
    object["model_type"] = "minimax";
    EXPECT_EQ(read(object).experts, 6);
    json saved = object;
    saved.erase("rotary_dim");
    saved["rope_parameters"]["partial_rotary_factor"] = 0.5;
    EXPECT_EQ(read(saved).rotary_dim, head / 2);
    const auto refused = [&](const json& changes, const std::vector<std::string>& words) {
        json other = object;
        other.update(changes);
        expect_refused([&] { read(other); }, words);
    };
    refused({{"rotary_dim", head + 2}}, {"'rotary_dim'"});
    refused({{"use_qk_norm", false}}, {"'use_qk_norm'"});
    refused({{"use_routing_bias", false}}, {"'use_routing_bias'"});
    refused({{"scoring_func", "softmax"}}, {"'scoring_func'", "sigmoid"});
    refused({{"qk_norm_type", "per_head"}}, {"'qk_norm_type'"});
    refused({{"shared_intermediate_size", 64}}, {"'shared_intermediate_size'"});
    refused({{"attn_type_list", {1, 0, 1}}}, {"'attn_type_list'", "linear attention"});
    refused({{"attn_type_list", 1}}, {"'attn_type_list'"});
}

/// DeepSeek-V3's sizes of attention, of three layers.
json latent(const json& changes) {
    json config{{"num_attention_heads", 4},  {"num_key_value_heads", 4}, {"head_dim", nullptr},
                {"q_lora_rank", 48},         {"kv_lora_rank", 32},       {"qk_nope_head_dim", 24},
                {"qk_rope_head_dim", 8},     {"v_head_dim", 16},         {"n_routed_experts", 16},
                {"num_experts_per_tok", 4},  {"n_shared_experts", 2},    {"moe_intermediate_size", 40},
                {"first_k_dense_replace", 1}};
    config.update(changes);
    return config;
}

std::vector<std::string> names_of(const StageSpec& stage) {
    std::vector<std::string> names;
    for (const LinearSpec& linear : stage.linears)
        names.push_back(linear.name);
    return names;
}

TEST(Config, ReadsDeepseekV3) {
    json object = relative("DeepseekV3ForCausalLM", "deepseek_v3", latent({{"scoring_func", "sigmoid"}}));
    object["rope_parameters"] = {{"rope_theta", 1e4},     {"rope_type", "yarn"},
                                 {"factor", 40.0},        {"mscale", 1.0},
                                 {"mscale_all_dim", 1.0}, {"original_max_position_embeddings", 4096}};
    const Family family = describe_family(read(object));
    const ModelConfig& config = family.config;
    const std::int64_t hidden = config.hidden_size;
    EXPECT_EQ(config.head_dim, 32);
    EXPECT_EQ(config.rotary_dim, 8);
    EXPECT_EQ(config.unrotated_dim(), 24);
    EXPECT_EQ(config.value_size(), 16);
    EXPECT_EQ(config.rotary_pairs, RotaryPairs::neighbours);
    EXPECT_EQ(config.rope.attention_factor, 1);
    EXPECT_DOUBLE_EQ(config.attention_multiplier.value(), std::pow(0.1 * std::log(40) + 1, 2) / std::sqrt(32));
    EXPECT_EQ(config.routing_scale, 2.5);
    EXPECT_EQ(config.expert_groups, 8);
    EXPECT_EQ(config.groups_per_token, 4);
    EXPECT_EQ(config.dense, (std::vector<bool>{true, false, false}));
    EXPECT_EQ(family.router_bias, "mlp.gate.e_score_correction_bias");
    EXPECT_EQ(family.attention_stages, 4);
    for (const std::int64_t layer : family.kinds_of_layers()) {
        const std::vector<StageSpec>& stages = family.stages_of(layer);
        EXPECT_EQ(names_of(stages[0]),
                  (std::vector<std::string>{"self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"}));
        EXPECT_EQ(stages[0].linears[1].rows, 40);
        EXPECT_EQ(stages[0].cols(), hidden);
        EXPECT_EQ(names_of(stages[1]), std::vector<std::string>{"self_attn.q_b_proj"});
        EXPECT_EQ(stages[1].linears[0].rows, 128);
        EXPECT_EQ(stages[1].cols(), 48);
        EXPECT_EQ(names_of(stages[2]), std::vector<std::string>{"self_attn.kv_b_proj"});
        EXPECT_EQ(stages[2].linears[0].rows, 4 * (24 + 16));
        EXPECT_EQ(stages[2].cols(), 32);
        EXPECT_EQ(names_of(stages[3]), std::vector<std::string>{"self_attn.o_proj"});
        EXPECT_EQ(stages[3].cols(), 64);
    }
    EXPECT_EQ(family.stages.size(), 4 + 2 * 17U);
    EXPECT_EQ(family.dense_stages.size(), 6U);
    EXPECT_EQ(family.query_norm_size(), 48);
    EXPECT_EQ(family.key_norm_size(), 32);
    for (int stage = 0; stage < family.stage_count(1); ++stage) {
        EXPECT_EQ(family.waits(stage), stage == 1) << stage;
        EXPECT_EQ(family.adds_to_hidden(1, stage), stage == 3 || stage == 37) << stage;
    }
    object["model_type"] = "kimi_k2";
    object.update({{"rope_interleave", false},
                   {"n_group", 1},
                   {"topk_group", 1},
                   {"mlp_layer_types", {"sparse", "dense", "sparse"}}});
    EXPECT_EQ(read(object).rotary_pairs, RotaryPairs::halves);
    EXPECT_EQ(read(object).expert_groups, 1);
    EXPECT_EQ(read(object).dense, (std::vector<bool>{false, true, false}));
    const auto refused = [&](const json& changes, const std::vector<std::string>& words) {
        json changed = object;
        changed.update(changes);
        expect_refused([&] { read(changed); }, words);
    };
    refused({{"model_type", "glm4_moe"}}, {"'model_type'"});
    refused({{"num_key_value_heads", 2}}, {"'num_key_value_heads'", "each of the 4"});
    refused({{"v_head_dim", 33}}, {"'v_head_dim'", "32 elements"});
    refused({{"qk_rope_head_dim", 7}}, {"'qk_rope_head_dim'", "even"});
    refused({{"qk_nope_head_dim", 23}}, {"'qk_nope_head_dim'", "odd"});
    refused({{"qk_nope_head_dim", 65000}, {"num_attention_heads", 128}, {"num_key_value_heads", 128}, {"head_dim", 8}},
            {"'qk_nope_head_dim'", "wider"});
    refused({{"kv_lora_rank", 0}}, {"'kv_lora_rank'"});
    refused({{"q_lora_rank", 0}}, {"'q_lora_rank'"});
    refused({{"n_group", 5}}, {"'n_group'", "does not divide the 16"});
    refused({{"n_group", 16}}, {"'n_group'", "two experts"});
    refused({{"n_group", 4}, {"topk_group", 5}}, {"'topk_group'", "more than the 4"});
    refused({{"n_group", 8}, {"topk_group", 1}}, {"'topk_group'", "fewer than the 4"});
    refused({{"scoring_func", "softmax"}}, {"'scoring_func'", "'sigmoid'"});
    refused({{"topk_method", "greedy"}}, {"'topk_method'", "'noaux_tc'"});
    refused({{"moe_layer_freq", 2}}, {"'moe_layer_freq'"});
    refused({{"rope_parameters",
              {{"rope_type", "longrope"},
               {"short_factor", std::vector<double>(32, 1)},
               {"original_max_position_embeddings", 128}}}},
            {"'rope_parameters'", "longrope"});
    refused({{"mlp_layer_types", {"sparse", "sparse"}}}, {"'mlp_layer_types'", "3 names"});
    refused({{"mlp_layer_types", {"sparse", "other", "sparse"}}}, {"'mlp_layer_types'", "layer 1"});
    refused({{"mlp_layer_types", {"dense", "dense", "dense"}}}, {"'mlp_layer_types'", "no layer"});
}

TEST(Config, TakesEightBitFloatsInBlocks) {
    json object = llama_with({{"quantization_config",
                               {{"quant_method", "fp8"},
                                {"fmt", "e4m3"},
                                {"activation_scheme", "dynamic"},
                                {"scale_fmt", "ue8m0"},
                                {"modules_to_not_convert", {"lm_head"}},
                                {"weight_block_size", {128, 128}}}}});
    object["dtype"] = nullptr;
    EXPECT_EQ(read(object).weight_type(), DType::bfloat16);
    object["dtype"] = "float32";
    EXPECT_EQ(read(object).weight_type(), DType::float32);
    object["quantization_config"]["weight_block_size"] = {1, 128};
    expect_refused([&] { read(object); }, {"'quantization_config.weight_block_size'", "[128, 128]"});
}

TEST(Config, ReadsDeepseekV2) {
    json object = relative("DeepseekV2ForCausalLM", "deepseek_v2", latent({{"q_lora_rank", nullptr}}));
    const Family family = describe_family(read(object));
    EXPECT_EQ(family.attention_stages, 3);
    EXPECT_EQ(names_of(family.stages[0]),
              (std::vector<std::string>{"self_attn.q_proj", "self_attn.kv_a_proj_with_mqa"}));
    EXPECT_EQ(family.query_norm, "");
    EXPECT_EQ(family.router_bias, "");
    EXPECT_FALSE(family.waits(1));
    EXPECT_EQ(family.config.attention_multiplier, std::nullopt);
    EXPECT_EQ(family.config.router_score, RouterScore::softmax);
    EXPECT_FALSE(family.config.normalized_routing);
    object.update({{"n_group", 4}, {"topk_group", 2}});
    EXPECT_EQ(read(object).expert_groups, 1);  // greedy
    object["topk_method"] = "group_limited_greedy";
    EXPECT_EQ(read(object).expert_groups, 4);
    EXPECT_EQ(read(object).groups_per_token, 2);
    object.erase("q_lora_rank");
    EXPECT_EQ(read(object).latent.query_rank, 1536);
    const auto refused = [&](const json& changes, const std::vector<std::string>& words) {
        json changed = object;
        changed.update(changes);
        expect_refused([&] { read(changed); }, words);
    };
    refused({{"norm_topk_prob", true}}, {"'norm_topk_prob'"});
    refused({{"topk_method", "noaux_tc"}}, {"'topk_method'", "'greedy'"});
    refused({{"scoring_func", "sigmoid"}}, {"'scoring_func'", "'softmax'"});
    refused({{"mlp_bias", true}}, {"'mlp_bias'"});
    refused({{"num_experts_per_tok", nullptr}}, {"num_experts_per_tok"});
}

TEST(Config, ReadsFamiliesWithLatentsOfTheirOwnSizes) {
    const json gone{{"q_lora_rank", 1},      {"kv_lora_rank", 1}, {"qk_nope_head_dim", 1},
                    {"qk_rope_head_dim", 1}, {"v_head_dim", 1},   {"first_k_dense_replace", 1}};
    const auto read_without = [&](json object) {
        for (const auto& [field, value] : gone.items())
            object.erase(field);
        return read(object);
    };
    const ModelConfig flash = read_without(relative("Glm4MoeLiteForCausalLM", "glm4_moe_lite", latent(json::object())));
    EXPECT_EQ(flash.head_dim, 256);
    EXPECT_EQ(flash.value_size(), 256);
    EXPECT_EQ(flash.latent.query_rank, 768);
    EXPECT_EQ(flash.routing_scale, 1.8);
    EXPECT_EQ(flash.dense, (std::vector<bool>{true, false, false}));
    const ModelConfig youtu = read_without(relative("YoutuForCausalLM", "youtu", latent(json::object())));
    EXPECT_EQ(youtu.head_dim, 192);
    EXPECT_EQ(youtu.value_size(), 128);
    EXPECT_EQ(youtu.latent.key_value_rank, 512);
    EXPECT_EQ(youtu.experts, 0);
    EXPECT_EQ(describe_family(youtu).stages.size(), 6U);
}

TEST(Config, ReadsGlm) {
    for (const auto& [architecture, type] : {std::pair{"GlmForCausalLM", "glm"}, {"Glm4ForCausalLM", "glm4"}}) {
        json object = relative(architecture, type, json::object());
        const Family family = describe_family(read(object));
        EXPECT_EQ(family.config.rotary_pairs, RotaryPairs::neighbours);
        EXPECT_EQ(family.config.head_dim, 128);
        EXPECT_EQ(family.config.rotary_dim, 64);
        EXPECT_TRUE(family.stages[0].linears[2].bias);
        EXPECT_FALSE(family.stages[1].linears[0].bias);
        ASSERT_EQ(family.stages[2].linears.size(), 1U);
        EXPECT_EQ(family.stages[2].linears[0].name, "mlp.gate_up_proj");
        EXPECT_EQ(family.stages[2].linears[0].rows, 2 * 160);
        EXPECT_EQ(family.mlp_norm, "post_attention_layernorm");
        const bool around = std::string(type) == "glm4";
        EXPECT_EQ(family.attention_output_norm, around ? "post_self_attn_layernorm" : "");
        EXPECT_EQ(family.mlp_output_norm, around ? "post_mlp_layernorm" : "");
        object["attention_bias"] = false;
        EXPECT_FALSE(describe_family(read(object)).stages[0].linears[0].bias);
    }
}

TEST(Config, ReadsErnie) {
    json object = relative("Ernie4_5ForCausalLM", "ernie4_5", {{"tie_word_embeddings", nullptr}});
    object.erase("rope_parameters");
    const Family family = describe_family(read(object));
    EXPECT_EQ(family.config.rotary_pairs, RotaryPairs::neighbours);
    EXPECT_EQ(family.config.head_dim, 128);
    EXPECT_EQ(family.config.rotary_dim, 128);
    EXPECT_EQ(family.config.rope.theta, 5e5);
    EXPECT_TRUE(family.config.tied_embeddings);
    EXPECT_FALSE(family.stages[3].linears[0].bias);
    object["use_bias"] = true;
    for (const StageSpec& stage : describe_family(read(object)).stages)
        EXPECT_TRUE(stage.linears[0].bias);
}

TEST(Config, ReadsErnieMoe) {
    json object = relative("Ernie4_5_MoeForCausalLM", "ernie4_5_moe", json::object());
    const Family family = describe_family(read(object));
    const ModelConfig& config = family.config;
    EXPECT_EQ(config.experts, 64);
    EXPECT_EQ(config.experts_per_token, 6);
    EXPECT_EQ(config.intermediate_size, 1536);
    EXPECT_EQ(config.shared_intermediate_size, 2 * 1536);
    EXPECT_EQ(config.dense_intermediate_size, 160);
    EXPECT_EQ(config.dense, (std::vector<bool>{true, false, false}));
    EXPECT_EQ(config.router_score, RouterScore::softmax);
    EXPECT_TRUE(config.normalized_routing);
    EXPECT_EQ(config.head_dim, 16);
    EXPECT_EQ(family.router_bias, "mlp.moe_statics.e_score_correction_bias");
    EXPECT_EQ(family.stages.back().linears[0].name, "mlp.shared_experts.down_proj");
    object.update({{"moe_layer_start_index", 0}, {"moe_layer_interval", 2}, {"moe_num_shared_experts", 0}});
    EXPECT_EQ(read(object).dense, (std::vector<bool>{true, false, true}));
    EXPECT_EQ(describe_family(read(object)).stages.size(), 2U + 2 * 64);
    object.update({{"moe_layer_interval", 1}, {"moe_layer_end_index", 1}});
    EXPECT_EQ(read(object).dense, (std::vector<bool>{false, false, true}));
    const auto refused = [&](const json& changes, const std::vector<std::string>& words) {
        json changed = object;
        changed.update(changes);
        expect_refused([&] { read(changed); }, words);
    };
    refused({{"use_bias", true}}, {"'use_bias'"});
    refused({{"moe_k", 65}}, {"'moe_k'", "64 experts"});
    refused({{"moe_norm_min", 0.1}}, {"'moe_norm_min'"});
    refused({{"moe_layer_start_index", 3}, {"moe_layer_end_index", -1}}, {"'moe_layer_start_index'"});
    refused({{"moe_layer_start_index", 2}}, {"'moe_layer_end_index'", "no layer with experts"});
    refused({{"moe_layer_interval", 4}}, {"'moe_layer_interval'", "no layer with experts"});
    refused({{"moe_num_shared_experts", 60000}}, {"'moe_num_shared_experts'", "wider"});
}

TEST(Config, ReadsOlmoe) {
    json object = relative("OlmoeForCausalLM", "olmoe", {{"num_experts", 4}, {"num_experts_per_tok", 2}});
    object.erase("num_key_value_heads");
    const Family family = describe_family(read(object));
    EXPECT_EQ(family.config.key_value_heads, family.config.heads);
    EXPECT_TRUE(family.query_norm_of_all_heads);
    EXPECT_EQ(family.input_norm, "input_layernorm");
    EXPECT_FALSE(family.config.normalized_routing);
    EXPECT_EQ(family.stages[2].linears[0].rows, 160);
    object["clip_qkv"] = 8.0;
    expect_refused([&] { read(object); }, {"'clip_qkv'", "not supported"});
}

json with_pictures(const char* architecture, const char* type, const json& text) {
    return {{"architectures", {architecture}},
            {"model_type", type},
            {"torch_dtype", "bfloat16"},
            {"text_config", text},
            {"vision_config", {{"hidden_size", 8}}}};
}

TEST(Config, ReadsGemma3WithPicturesAsItIsPublished) {
    const json text = {{"model_type", "gemma3_text"}, {"hidden_size", 2560},
                       {"intermediate_size", 10240},  {"num_hidden_layers", 7},
                       {"sliding_window", 1024},      {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}};
    const ModelConfig config = read(with_pictures("Gemma3ForConditionalGeneration", "gemma3", text));
    EXPECT_EQ(config.model_type, "gemma3_text");
    EXPECT_EQ(config.dtype, "bfloat16");
    EXPECT_EQ(config.heads, 8);
    EXPECT_EQ(config.key_value_heads, 4);
    EXPECT_EQ(config.head_dim, 256);
    EXPECT_EQ(config.vocab_size, 262208);
    EXPECT_EQ(config.max_positions, 131072);
    EXPECT_EQ(config.activation, Activation::gelu_tanh);
    EXPECT_EQ(config.rope.factor, 8);
    EXPECT_EQ(config.window_rope.type, "default");
    EXPECT_EQ(config.windows, (std::vector<std::int64_t>{1024, 1024, 1024, 1024, 1024, 0, 1024}));
    EXPECT_EQ(config.embedding_multiplier, 50.5);  // sqrt(2560) = 50.596 in bfloat16
    EXPECT_TRUE(config.tied_embeddings);
    EXPECT_FALSE(config.may_be_tied);
    const Family family = describe_family(config);
    EXPECT_EQ(family.layer(3), "language_model.model.layers.3.");
    EXPECT_EQ(family.embedding, "language_model.model.embed_tokens.weight");
    EXPECT_EQ(family.final_norm, "language_model.model.norm");
    EXPECT_EQ(family.lm_head, family.embedding);
    EXPECT_EQ(family.mlp_norm, "pre_feedforward_layernorm");
    EXPECT_EQ(family.other_parts, (std::vector<std::string>{"vision_tower", "multi_modal_projector"}));
}

TEST(Config, ReadsMistral3AndMinistral3WithPictures) {
    json text = llama_with({{"model_type", "mistral"}, {"sliding_window", nullptr}});
    text.erase("architectures");
    text.erase("tie_word_embeddings");
    const auto mistral = [&](const json& inner) {
        return read(with_pictures("Mistral3ForConditionalGeneration", "mistral3", inner));
    };
    const ModelConfig small = mistral(text);
    EXPECT_EQ(small.windows, (std::vector<std::int64_t>{0, 0, 0}));
    EXPECT_TRUE(small.may_be_tied);
    EXPECT_EQ(describe_family(small).lm_head, "language_model.lm_head.weight");
    json rope = {{"rope_type", "yarn"}, {"rope_theta", 1e6},     {"factor", 16.0},
                 {"mscale", 1.0},       {"mscale_all_dim", 1.0}, {"original_max_position_embeddings", 32}};
    text.update({{"model_type", "ministral3"}, {"rope_parameters", rope}, {"tie_word_embeddings", true}});
    text.erase("sliding_window");
    EXPECT_EQ(mistral(text).max_positions, 256);
    rope["llama_4_scaling_beta"] = 0.1;
    text["rope_parameters"] = rope;
    const ModelConfig tiny = mistral(text);
    EXPECT_EQ(tiny.max_positions, 32);
    EXPECT_EQ(tiny.rope.type, "yarn");
    EXPECT_EQ(tiny.rope.attention_factor, 1);
    EXPECT_EQ(tiny.windows, (std::vector<std::int64_t>{0, 0, 0}));
    EXPECT_TRUE(tiny.tied_embeddings);
    EXPECT_FALSE(tiny.may_be_tied);
    text["sliding_window"] = 7;
    EXPECT_EQ(mistral(text).windows, (std::vector<std::int64_t>{7, 7, 7}));
    text["max_position_embeddings"] = 16;  // less than the original context
    EXPECT_EQ(mistral(text).max_positions, 16);
    text.erase("num_key_value_heads");
    text["num_attention_heads"] = 16;
    EXPECT_EQ(mistral(text).key_value_heads, 8);
    EXPECT_EQ(mistral(text).head_dim, 128);
    text.erase("rope_parameters");
    text.update({{"rope_scaling", rope}, {"max_position_embeddings", 256}});
    EXPECT_EQ(mistral(text).max_positions, 32);
    EXPECT_EQ(mistral(text).original_context, 32);
    text.erase("rope_scaling");
    expect_refused([&] { mistral(text); }, {"'text_config.rope_parameters'", "missing"});
    text["model_type"] = "llama";
    expect_refused([&] { mistral(text); }, {"'text_config.model_type'", "'llama'", "Mistral3ForConditionalGeneration",
                                            "'mistral' or 'ministral3' is"});
    expect_refused(
        [] {
            read(relative("Mistral3ForConditionalGeneration", "mistral3", {{"hidden_size", nullptr}}));
        },
        {"'text_config'", "missing"});
    text.update({{"model_type", "mistral"}, {"quantization_config", {{"bits", 4}}}});
    expect_refused([&] { mistral(text); }, {"'text_config.quantization_config.quant_method'", "quantized already"});
}

TEST(Config, ReadsQwen35AndQwen3Next) {
    const json rope = {{"rope_type", "default"},
                       {"rope_theta", 1e7},
                       {"partial_rotary_factor", 0.5},
                       {"mrope_section", {2, 1, 1}},
                       {"mrope_interleaved", true}};
    json text = llama_with({{"model_type", "qwen3_5_text"},
                            {"rope_parameters", rope},
                            {"attn_output_gate", true},
                            {"num_hidden_layers", 5},
                            {"tie_word_embeddings", false}});
    text.erase("architectures");
    json whole = with_pictures("Qwen3_5ForConditionalGeneration", "qwen3_5", text);
    const ModelConfig config = read(whole);
    EXPECT_EQ(config.model_type, "qwen3_5_text");
    EXPECT_EQ(config.recurrent, (std::vector<bool>{true, true, true, false, true}));
    EXPECT_TRUE(config.gated_attention);
    EXPECT_EQ(config.head_dim, 256);
    EXPECT_EQ(config.rotary_dim, 128);
    EXPECT_EQ(config.rope.theta, 1e7);
    EXPECT_EQ(config.convolution_width, 4);
    EXPECT_EQ(config.delta.mixed_cols(), 2 * 16 * 128 + 32 * 128);
    const Family family = describe_family(config);
    EXPECT_EQ(family.layer(0), "model.language_model.layers.0.");
    EXPECT_EQ(family.other_parts, (std::vector<std::string>{"visual", "mtp"}));
    EXPECT_TRUE(family.within_another);
    EXPECT_EQ(family.norm_offset, 1);
    EXPECT_EQ(family.kinds_of_layers(), (std::vector<std::int64_t>{0, 3}));
    EXPECT_EQ(family.stages_of(3)[0].linears[0].rows, 2 * 4 * 256);
    EXPECT_EQ(family.stages_of(4)[0].linears[0].name, "linear_attn.in_proj_qkv");
    EXPECT_EQ(family.stages_of(4)[0].linears[1].rows, 32 * 128);
    EXPECT_EQ(family.stages_of(4)[1].linears[0].cols, 32 * 128);
    EXPECT_EQ(family.stages_of(4)[2].linears[0].name, "mlp.gate_proj");
    EXPECT_EQ(family.kept_linears(), (std::vector<std::string>{"linear_attn.in_proj_b", "linear_attn.in_proj_a"}));

    json mixture =
        relative("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", {{"rope_parameters", rope}, {"num_experts", 3}});
    mixture.update(
        {{"num_experts_per_tok", 2}, {"layer_types", {"full_attention", "linear_attention", "linear_attention"}}});
    const Family experts = describe_family(read(mixture));
    EXPECT_FALSE(experts.within_another);
    EXPECT_EQ(experts.config.recurrent, (std::vector<bool>{false, true, true}));
    EXPECT_EQ(experts.config.intermediate_size, 512);
    EXPECT_TRUE(experts.config.normalized_routing);
    EXPECT_EQ(experts.stage_count(1), 2 + 2 * 4);
    EXPECT_EQ(experts.stages_of(1)[8].linears[0].name, "mlp.shared_expert.gate_proj");
    EXPECT_EQ(experts.kept_linears()[1], "mlp.shared_expert_gate");

    json next = mixture;
    next.update({{"architectures", {"Qwen3NextForCausalLM"}}, {"model_type", "qwen3_next"}, {"norm_topk_prob", false}});
    const Family of_next = describe_family(read(next));
    EXPECT_FALSE(of_next.config.normalized_routing);
    EXPECT_EQ(of_next.stages_of(1)[0].linears.size(), 1U);
    EXPECT_EQ(of_next.stages_of(1)[0].linears[0].rows, 2 * 16 * 128 + 2 * 32 * 128);
    EXPECT_EQ(of_next.kept_linears().back(), "linear_attn.in_proj_ba");

    const auto refused = [](json object, const json& changes, const std::vector<std::string>& words) {
        object.update(changes);
        expect_refused([&] { read(object); }, words);
    };
    refused(mixture, {{"layer_types", {"full_attention", "linear_attention"}}}, {"'layer_types'", "3 names"});
    refused(mixture, {{"layer_types", {"full_attention", "sliding_attention", "linear_attention"}}},
            {"'layer_types'", "\"sliding_attention\"", "layer 1"});
    refused(mixture, {{"linear_num_key_heads", 5}}, {"'linear_num_key_heads'", "does not divide"});
    refused(mixture, {{"linear_key_head_dim", 129}}, {"'linear_key_head_dim'", "129"});
    refused(mixture, {{"linear_conv_kernel_dim", 0}}, {"'linear_conv_kernel_dim'"});
    refused(mixture, {{"hidden_act", "gelu"}}, {"'hidden_act'", "silu"});
    refused(mixture, {{"attn_output_gate", false}}, {"'attn_output_gate'", "not supported"});
    refused(next, {{"mlp_only_layers", {1}}}, {"'mlp_only_layers'", "without experts"});
    refused(next, {{"decoder_sparse_step", 2}, {"mlp_only_layers", json::array()}},
            {"'decoder_sparse_step'", "without experts"});
}

TEST(Config, ATextModelMayKeepTheNamesThatItHadWithinAnother) {
    const testing::ModelFolder folder;
    json config = relative("Qwen3_5ForCausalLM", "qwen3_5_text", {{"tie_word_embeddings", true}});
    folder.write("config.json", config.dump());
    const std::string plain = "model.embed_tokens.weight", kept = "model.language_model.embed_tokens.weight";
    const auto read_with = [&](const std::string& name) {
        folder.write("model.safetensors", testing::safetensors_file({{name, {{1}, {0}, "F32"}}}));
        return read_family(folder.path());
    };
    EXPECT_EQ(read_family(folder.path()).embedding, plain);  // no weights
    EXPECT_EQ(read_with(plain).layer(1), "model.layers.1.");
    EXPECT_FALSE(read_with(plain).within_another);
    const Family family = read_with(kept);
    EXPECT_EQ(family.embedding, kept);
    EXPECT_EQ(family.lm_head, kept);
    EXPECT_EQ(family.layer(1), "model.language_model.layers.1.");
    EXPECT_EQ(family.final_norm, "model.language_model.norm");
    EXPECT_TRUE(family.within_another);
    config["tie_word_embeddings"] = false;
    folder.write("config.json", config.dump());
    EXPECT_EQ(read_with(kept).lm_head, "lm_head.weight");
}

TEST(Config, ReadsLfm2) {
    json object =
        relative("Lfm2ForCausalLM", "lfm2", {{"norm_eps", 1e-4}, {"layer_types", {"conv", "full_attention", "conv"}}});
    object["intermediate_size"] = 12288;
    const Family family = describe_family(read(object));
    EXPECT_EQ(family.config.recurrent, (std::vector<bool>{true, false, true}));
    EXPECT_EQ(family.config.intermediate_size, 8192);
    EXPECT_EQ(family.config.norm_epsilon, 1e-4);
    EXPECT_EQ(family.config.convolved_cols(), 64);
    EXPECT_TRUE(family.config.tied_embeddings);
    EXPECT_EQ(family.kinds_of_layers(), (std::vector<std::int64_t>{0, 1}));
    EXPECT_EQ(family.stages_of(0)[0].linears[0].name, "conv.in_proj");
    EXPECT_EQ(family.stages_of(0)[0].linears[0].rows, 3 * 64);
    EXPECT_EQ(family.stages_of(1)[1].linears[0].name, "self_attn.out_proj");
    EXPECT_EQ(family.stages_of(2)[2].linears[1].name, "feed_forward.w3");
    EXPECT_TRUE(family.kept_linears().empty());
    // As the first files have it.
    for (const char* field : {"layer_types", "tie_word_embeddings", "norm_eps"})
        object.erase(field);
    object.update(
        {{"full_attn_idxs", {2}}, {"block_ff_dim", 10240}, {"block_multiple_of", 100}, {"tie_embedding", false}});
    object["block_ffn_dim_multiplier"] = 0.5;
    const ModelConfig first = read(object);
    EXPECT_EQ(first.recurrent, (std::vector<bool>{true, true, false}));
    EXPECT_EQ(first.intermediate_size, 3500);  // two thirds are 6826, half of that 3413
    EXPECT_EQ(first.norm_epsilon, 1e-5);
    EXPECT_FALSE(first.tied_embeddings);
    object["tie_word_embeddings"] = true;
    EXPECT_FALSE(read(object).tied_embeddings);
    object["block_auto_adjust_ff_dim"] = false;
    EXPECT_EQ(read(object).intermediate_size, 10240);
    const auto refused = [&](const json& changes, const std::vector<std::string>& words) {
        json other = object;
        other.update(changes);
        expect_refused([&] { read(other); }, words);
    };
    refused({{"full_attn_idxs", {3}}}, {"'full_attn_idxs'", "has 3"});
    refused({{"full_attn_idxs", "2"}}, {"'full_attn_idxs'"});
    refused({{"layer_types", {"conv"}}}, {"'layer_types'", "3 names"});
    refused({{"layer_types", {"conv", "mamba", "conv"}}}, {"'layer_types'", "\"mamba\"", "layer 1"});
    refused({{"conv_bias", true}}, {"'conv_bias'", "not supported"});
    refused({{"conv_L_cache", 0}}, {"'conv_L_cache'"});
}

TEST(Config, ReadsQwenWithPicturesOfEitherForm) {
    const json rope = {{"type", "mrope"}, {"mrope_section", {4, 2, 2}}};
    json flat = relative("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl",
                         {{"rope_parameters", nullptr}, {"rope_scaling", rope}, {"rope_theta", 1e6}});
    const ModelConfig first = read(flat);
    EXPECT_EQ(first.model_type, "qwen2");
    EXPECT_EQ(first.rope.type, "default");
    EXPECT_EQ(first.rope.theta, 1e6);
    EXPECT_TRUE(first.tied_embeddings);
    EXPECT_FALSE(first.may_be_tied);
    const Family family = describe_family(first);
    EXPECT_EQ(family.layer(2), "model.layers.2.");
    EXPECT_TRUE(family.stages[0].linears[1].bias);
    EXPECT_EQ(family.other_parts, (std::vector<std::string>{"visual"}));
    EXPECT_EQ(family.loaded_name("model.layers.2.mlp.up_proj"), "model.language_model.layers.2.mlp.up_proj");
    EXPECT_EQ(family.loaded_name("visual.blocks.0.attn.qkv"), "model.visual.blocks.0.attn.qkv");
    EXPECT_EQ(family.loaded_name("lm_head.weight"), "lm_head.weight");
    json text = llama_with({{"model_type", "qwen3_vl_text"}, {"dtype", "float16"}});
    text.erase("tie_word_embeddings");
    json nested = with_pictures("Qwen3VLForConditionalGeneration", "qwen3_vl", text);
    nested.erase("torch_dtype");
    nested["tie_word_embeddings"] = true;
    const ModelConfig third = read(nested);
    EXPECT_EQ(third.dtype, "float16");
    EXPECT_EQ(third.head_dim, 128);
    EXPECT_TRUE(third.may_be_tied);
    const Family of_third = describe_family(third);
    EXPECT_EQ(of_third.layer(0), "model.language_model.layers.0.");
    EXPECT_EQ(of_third.lm_head, "lm_head.weight");
    EXPECT_EQ(of_third.query_norm, "self_attn.q_norm");
    for (const char* field : {"num_key_value_heads", "rms_norm_eps"}) {
        json without = nested;
        without["text_config"].erase(field);
        expect_refused([&] { read(without); }, {field, "missing"});
    }
    for (const json& rope_without : {json(nullptr), json({{"rope_type", "default"}})}) {
        json without = nested;
        without["text_config"]["rope_parameters"] = rope_without;
        expect_refused([&] { read(without); }, {"'text_config.rope_theta'", "missing"});
    }
    nested["text_config"].update({{"use_sliding_window", true}, {"sliding_window", 8}, {"max_window_layers", 1}});
    EXPECT_EQ(read(nested).windows, (std::vector<std::int64_t>{0, 0, 0}));  // transformers looks for none
    flat["use_sliding_window"] = true;
    expect_refused([&] { read(flat); }, {"'max_window_layers'", "missing"});
    flat.update({{"sliding_window", 8}, {"max_window_layers", 1}});
    EXPECT_EQ(read(flat).windows, (std::vector<std::int64_t>{0, 8, 8}));
    flat["architectures"] = {"Qwen2VLForConditionalGeneration"};
    expect_refused([&] { read(flat); }, {"'model_type'", "'qwen2_5_vl'", "'qwen2_vl'"});
    flat["model_type"] = "qwen2_vl";
    EXPECT_EQ(read(flat).model_type, "qwen2");
}

TEST(Config, FilesTellWhetherAHeadIsTheEmbeddingWhereConfigSaysBoth) {
    json text = llama_with({{"model_type", "mistral"}, {"tie_word_embeddings", false}});
    text.erase("architectures");
    const testing::ModelFolder folder;
    folder.write("config.json", with_pictures("Mistral3ForConditionalGeneration", "mistral3", text).dump());
    const std::string head = "language_model.lm_head.weight", embedding = "language_model.model.embed_tokens.weight";
    EXPECT_EQ(read_family(folder.path()).lm_head, head);  // no weights
    std::map<std::string, testing::StoredTensor> tensors{{embedding, {{1}, {2.0F}, "F32"}}};
    folder.write("model.safetensors", testing::safetensors_file(tensors));
    EXPECT_EQ(read_family(folder.path()).lm_head, embedding);
    EXPECT_TRUE(read_family(folder.path()).config.tied_embeddings);
    tensors[head] = tensors[embedding];
    folder.write("model.safetensors", testing::safetensors_file(tensors));
    EXPECT_EQ(read_family(folder.path()).lm_head, head);
    // Under the names of transformers' memory.
    const std::string loaded = "model.language_model.embed_tokens.weight";
    folder.write("model.safetensors", testing::safetensors_file({{loaded, tensors[embedding]}}));
    EXPECT_EQ(read_family(folder.path()).embedding, loaded);
    EXPECT_EQ(read_family(folder.path()).lm_head, loaded);
    EXPECT_EQ(read_family(folder.path()).layer(1), "model.language_model.layers.1.");
    EXPECT_EQ(read_family(folder.path()).final_norm, "model.language_model.norm");
    folder.write("model.safetensors",
                 testing::safetensors_file({{loaded, tensors[embedding]}, {"lm_head.weight", tensors[embedding]}}));
    EXPECT_EQ(read_family(folder.path()).lm_head, "lm_head.weight");
}

TEST(Config, RefusesQwenLayerTypes) {
    const auto refuse = [](const json& changes, const std::vector<std::string>& parts) {
        expect_refused([&] { read(relative("Qwen2ForCausalLM", "qwen2", changes)); }, parts);
    };
    refuse({{"layer_types", {"full_attention"}}}, {"'layer_types'", "3"});
    refuse({{"layer_types", {"full_attention", "linear_attention", "full_attention"}}},
           {"'layer_types'", "linear_attention"});
    refuse({{"layer_types", {"full_attention", "sliding_attention", "full_attention"}}}, {"'layer_types'", "layer 1"});
    refuse({{"layer_types", {1, 2, 3}}}, {"'layer_types'"});
}

TEST(Config, RefusesOptOfOtherForms) {
    const std::vector<Refusal> cases{
        {"norm after", {{"do_layer_norm_before", false}}, {"'do_layer_norm_before'", "false"}},
        {"projected embedding", {{"word_embed_proj_dim", 32}}, {"'word_embed_proj_dim'"}},
        {"no final norm", {{"_remove_final_layer_norm", true}}, {"'_remove_final_layer_norm'"}},
        {"norm without weights", {{"layer_norm_elementwise_affine", false}}, {"'layer_norm_elementwise_affine'"}},
        {"heads", {{"num_attention_heads", 5}}, {"'num_attention_heads'"}},
    };
    for (const Refusal& refusal : cases) {
        SCOPED_TRACE(refusal.what);
        json object = opt();
        object.update(refusal.changes);
        expect_refused([&] { read(object); }, refusal.message);
    }
}

TEST(Config, RefusesWhatIsNotJson) {
    const std::string whole = llama().dump();
    expect_refused([] { read_text(std::string()); }, {"config.json", "JSON"});
    expect_refused([&] { read_text(whole.substr(0, whole.size() / 2)); }, {"config.json", "JSON"});
    expect_refused([] { read_text(std::string("[1, 2]")); }, {"config.json", "object"});
    expect_refused([] { read_text(std::string("{\"a\": 1, \"b\": {\"c\": 1, \"c\": 2}}")); },
                   {"config.json", "'c'", "twice"});
    expect_refused([] { read_text("{\"a\": \"\xff\"}"); }, {"config.json", "JSON"});
    expect_refused([] { read_text(std::string(100000, '[')); }, {"config.json", "JSON"});
    const testing::ModelFolder empty;
    expect_refused([&] { read_config(empty.path()); }, {"config.json", "missing"});
    expect_refused([&] { read_config(empty.path() / "org/name"); }, {"org/name/config.json is missing", "hf download"});
}

}  // namespace
}  // namespace fairgptq
