// Small random models that a test writes to a folder of its own: every form of config.json that changes the
// computation.
#pragma once

#include <nlohmann/json.hpp>
#include <ostream>
#include <random>

#include "model/config.hpp"
#include "model/family.hpp"
#include "model/model_files.hpp"
#include "reference/transformer.hpp"

namespace fairgptq::testing {

inline nlohmann::json tiny_llama_config() {
    return {{"architectures", {"LlamaForCausalLM"}},
            {"model_type", "llama"},
            {"dtype", "float32"},
            {"hidden_size", 24},
            {"intermediate_size", 40},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 4},
            {"num_key_value_heads", 2},
            {"head_dim", 8},
            {"vocab_size", 50},
            {"max_position_embeddings", 64},
            {"rms_norm_eps", 1e-5},
            {"hidden_act", "silu"},
            {"rope_parameters", {{"rope_theta", 10000.0}, {"rope_type", "default"}}},
            {"tie_word_embeddings", false}};
}

inline nlohmann::json tiny_opt_config() {
    return {{"architectures", {"OPTForCausalLM"}},
            {"model_type", "opt"},
            {"torch_dtype", "float16"},
            {"hidden_size", 24},
            {"ffn_dim", 40},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 3},
            {"vocab_size", 50},
            {"max_position_embeddings", 16},
            {"activation_function", "relu"}};
}

struct TinyModelCase {
    std::string name;
    nlohmann::json config;
    std::string dtype = "F32";
    /// In a test's name, instead of its bytes.
    friend void PrintTo(const TinyModelCase& one, std::ostream* out) { *out << one.name; }
};

inline std::vector<TinyModelCase> tiny_model_cases() {
    const auto llama = [](nlohmann::json changes) {
        nlohmann::json config = tiny_llama_config();
        config.update(changes);
        return config;
    };
    const auto relative = [&](const char* architecture, const char* type, nlohmann::json changes) {
        changes.update({{"architectures", {architecture}}, {"model_type", type}});
        return llama(changes);
    };
    const auto with_pictures = [&](const char* architecture, const char* type, const nlohmann::json& text) {
        return nlohmann::json{{"architectures", {architecture}},
                              {"model_type", type},
                              {"text_config", llama(text)},
                              {"vision_config", {{"hidden_size", 5}}}};
    };
    // Its head_dim is that of the part that turns, as transformers writes it.
    const auto latent = [](nlohmann::json changes) {
        nlohmann::json config = {{"num_key_value_heads", 4}, {"head_dim", 4},         {"kv_lora_rank", 12},
                                 {"qk_rope_head_dim", 4},    {"qk_nope_head_dim", 8}, {"v_head_dim", 6}};
        config.update(changes);
        return config;
    };
    // The first layer has linear attention, the second one does not.
    const auto linear = [](nlohmann::json changes) {
        nlohmann::json config = {{"full_attention_interval", 2}, {"linear_num_key_heads", 2},
                                 {"linear_num_value_heads", 4},  {"linear_key_head_dim", 6},
                                 {"linear_value_head_dim", 10},  {"partial_rotary_factor", 0.5}};
        config.update(changes);
        return config;
    };
    // An original context of 12 positions has fast, slow and in-between pairs of elements.
    const nlohmann::json llama3 = {{"rope_theta", 100.0},     {"rope_type", "llama3"},
                                   {"factor", 8.0},           {"low_freq_factor", 1.0},
                                   {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 12}};
    const nlohmann::json yarn = {{"rope_theta", 100.0}, {"rope_type", "yarn"},
                                 {"factor", 4.0},       {"beta_fast", 3.0},
                                 {"beta_slow", 0.5},    {"original_max_position_embeddings", 16}};
    const nlohmann::json plain = {{"rope_theta", 500.0}, {"rope_type", "default"}};
    const nlohmann::json longrope = {
        {"rope_theta", 100.0}, {"rope_type", "longrope"}, {"short_factor", {1.0, 1.5, 2.0, 3.0}}};
    nlohmann::json no_bias = tiny_opt_config();
    no_bias.update({{"enable_bias", false}, {"tie_word_embeddings", false}, {"activation_function", "gelu"}});
    return {
        {"llama", tiny_llama_config()},
        {"llama_bfloat16_tied", llama({{"tie_word_embeddings", true}}), "BF16"},
        {"llama_float16_biases", llama({{"attention_bias", true}, {"mlp_bias", true}, {"hidden_act", "gelu_new"}}),
         "F16"},
        {"llama_linear_rope", llama({{"rope_parameters", {{"rope_type", "linear"}, {"factor", 4.0}}}})},
        {"llama_llama3_rope", llama({{"rope_parameters", llama3}})},
        {"llama_head_size_of_its_own", llama({{"head_dim", 10}, {"num_key_value_heads", 1}})},
        {"llama_one_head", llama({{"num_attention_heads", 1}, {"num_key_value_heads", 1}, {"head_dim", nullptr}})},
        {"mistral_window", relative("MistralForCausalLM", "mistral", {{"sliding_window", 3}})},
        {"qwen2", relative("Qwen2ForCausalLM", "qwen2", nlohmann::json::object())},
        {"qwen2_window_in_one_layer",
         relative("Qwen2ForCausalLM", "qwen2",
                  {{"use_sliding_window", true}, {"sliding_window", 2}, {"max_window_layers", 1}})},
        {"qwen3", relative("Qwen3ForCausalLM", "qwen3", nlohmann::json::object())},
        {"llama_yarn_rope", llama({{"rope_parameters", yarn}})},
        {"smollm3", relative("SmolLM3ForCausalLM", "smollm3", {{"no_rope_layers", {1, 0}}})},
        {"smollm3_window_where_nothing_turns",
         relative("SmolLM3ForCausalLM", "smollm3",
                  {{"no_rope_layer_interval", 2}, {"use_sliding_window", true}, {"sliding_window", 3}})},
        {"granite", relative("GraniteForCausalLM", "granite",
                             {{"embedding_multiplier", 3.0},
                              {"residual_multiplier", 0.22},
                              {"attention_multiplier", 0.5},
                              {"logits_scaling", 4.0}})},
        {"phi3_bfloat16", relative("Phi3ForCausalLM", "phi3", {{"sliding_window", 4}}), "BF16"},
        {"phi3_longrope", relative("Phi3ForCausalLM", "phi3",
                                   {{"original_max_position_embeddings", 32}, {"rope_parameters", longrope}})},
        {"phi3_part_of_a_head", relative("Phi3ForCausalLM", "phi3", {{"partial_rotary_factor", 0.5}})},
        {"olmo2", relative("Olmo2ForCausalLM", "olmo2", nlohmann::json::object())},
        {"olmo3", relative("Olmo3ForCausalLM", "olmo3",
                           {{"layer_types", {"sliding_attention", "full_attention"}},
                            {"sliding_window", 3},
                            {"rope_parameters", {{"full_attention", yarn}, {"sliding_attention", plain}}}})},
        {"gemma", relative("GemmaForCausalLM", "gemma", {{"hidden_act", "gelu"}, {"tie_word_embeddings", nullptr}})},
        {"gemma2_bfloat16",
         relative("Gemma2ForCausalLM", "gemma2",
                  {{"hidden_activation", "gelu_pytorch_tanh"},
                   {"query_pre_attn_scalar", 10},
                   {"sliding_window", 3},
                   {"attn_logit_softcapping", 1.5},
                   {"final_logit_softcapping", 2.0},
                   {"tie_word_embeddings", nullptr}}),
         "BF16"},
        {"gemma3_float16",
         relative("Gemma3ForCausalLM", "gemma3_text",
                  {{"hidden_activation", "gelu_pytorch_tanh"},
                   {"query_pre_attn_scalar", 10},
                   {"sliding_window_pattern", 2},
                   {"sliding_window", 3},
                   {"rope_parameters", nullptr},
                   {"rope_theta", 1000.0},
                   {"rope_local_base_freq", 50.0},
                   {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}},
                   {"tie_word_embeddings", nullptr}}),
         "F16"},
        {"exaone4", relative("Exaone4ForCausalLM", "exaone4", {{"sliding_window", 3}, {"sliding_window_pattern", 2}})},
        {"mixtral", relative("MixtralForCausalLM", "mixtral", {{"num_local_experts", 4}, {"sliding_window", 3}})},
        {"qwen3_moe_bfloat16",
         relative("Qwen3MoeForCausalLM", "qwen3_moe",
                  {{"num_experts", 7},
                   {"num_experts_per_tok", 3},
                   {"moe_intermediate_size", 20},
                   {"use_sliding_window", true},
                   {"sliding_window", 3},
                   {"max_window_layers", 1},
                   {"norm_topk_prob", true}}),
         "BF16"},
        {"olmoe", relative("OlmoeForCausalLM", "olmoe", {{"num_experts", 5}, {"num_experts_per_tok", 2}})},
        {"qwen2_moe_bfloat16",
         relative("Qwen2MoeForCausalLM", "qwen2_moe",
                  {{"num_experts", 6},
                   {"num_experts_per_tok", 2},
                   {"moe_intermediate_size", 20},
                   {"shared_expert_intermediate_size", 28},
                   {"use_sliding_window", true},
                   {"sliding_window", 3},
                   {"decoder_sparse_step", 2}}),
         "BF16"},
        {"glm4_moe", relative("Glm4MoeForCausalLM", "glm4_moe",
                              {{"num_experts_per_tok", 3},
                               {"n_routed_experts", 8},
                               {"moe_intermediate_size", 12},
                               {"n_shared_experts", 2},
                               {"routed_scaling_factor", 1.7},
                               {"attention_bias", true}})},
        {"glm4_moe_with_norms", relative("Glm4MoeForCausalLM", "glm4_moe",
                                         {{"num_experts_per_tok", 2},
                                          {"n_routed_experts", 5},
                                          {"moe_intermediate_size", 52},
                                          {"first_k_dense_replace", 0},
                                          {"use_qk_norm", true}})},
        {"dots1_float16",
         relative("Dots1ForCausalLM", "dots1",
                  {{"num_experts_per_tok", 2},
                   {"n_routed_experts", 4},
                   {"moe_intermediate_size", 20},
                   {"n_shared_experts", 1},
                   {"first_k_dense_replace", 1},
                   {"sliding_window", 3},
                   {"max_window_layers", 1}}),
         "F16"},
        {"minimax_m2", relative("MiniMaxM2ForCausalLM", "minimax_m2",
                                {{"num_local_experts", 5}, {"num_experts_per_tok", 3}, {"rotary_dim", 4}})},
        {"deepseek_v2", relative("DeepseekV2ForCausalLM", "deepseek_v2",
                                 latent({{"q_lora_rank", nullptr},
                                         {"num_experts_per_tok", 3},
                                         {"n_routed_experts", 8},
                                         {"n_group", 4},
                                         {"topk_group", 2},
                                         {"topk_method", "group_limited_greedy"},
                                         {"moe_intermediate_size", 20},
                                         {"first_k_dense_replace", 1},
                                         {"routed_scaling_factor", 3.0},
                                         {"attention_bias", true}}))},
        {"deepseek_v3_bfloat16",
         relative("DeepseekV3ForCausalLM", "deepseek_v3",
                  latent({{"q_lora_rank", 14},
                          {"num_experts_per_tok", 3},
                          {"n_routed_experts", 6},
                          {"n_group", 3},
                          {"topk_group", 2},
                          {"moe_intermediate_size", 12},
                          {"first_k_dense_replace", 0},
                          {"routed_scaling_factor", 2.5},
                          {"rope_parameters",
                           {{"rope_theta", 100.0},
                            {"rope_type", "yarn"},
                            {"factor", 4.0},
                            {"beta_fast", 3.0},
                            {"beta_slow", 0.5},
                            {"mscale", 0.7},
                            {"mscale_all_dim", 1.0},
                            {"original_max_position_embeddings", 16}}}})),
         "BF16"},
        {"glm4_moe_lite", relative("Glm4MoeLiteForCausalLM", "glm4_moe_lite",
                                   latent({{"q_lora_rank", 10},
                                           {"v_head_dim", 12},
                                           {"num_experts_per_tok", 2},
                                           {"n_routed_experts", 5},
                                           {"mlp_layer_types", {"sparse", "dense"}},
                                           {"moe_intermediate_size", 52},
                                           {"rope_interleave", false}}))},
        // Of heads that tensor cores take, and of such whose values begin between what they can load.
        {"youtu_in_whole_pieces",
         relative("YoutuForCausalLM", "youtu",
                  latent({{"q_lora_rank", 16}, {"qk_nope_head_dim", 24}, {"qk_rope_head_dim", 8}, {"v_head_dim", 16}})),
         "BF16"},
        {"youtu_in_parts_of_pieces",
         relative(
             "YoutuForCausalLM", "youtu",
             latent(
                 {{"q_lora_rank", nullptr}, {"qk_nope_head_dim", 12}, {"qk_rope_head_dim", 12}, {"v_head_dim", 12}})),
         "F16"},
        {"youtu_float16",
         relative("YoutuForCausalLM", "youtu", latent({{"q_lora_rank", 14}, {"tie_word_embeddings", true}})), "F16"},
        {"glm_bfloat16", relative("GlmForCausalLM", "glm", nlohmann::json::object()), "BF16"},
        {"glm4", relative("Glm4ForCausalLM", "glm4", {{"partial_rotary_factor", 0.75}, {"attention_bias", false}})},
        {"ernie4_5", relative("Ernie4_5ForCausalLM", "ernie4_5", {{"use_bias", true}})},
        {"ernie4_5_moe_float16",
         relative("Ernie4_5_MoeForCausalLM", "ernie4_5_moe",
                  {{"moe_num_experts", 6},
                   {"moe_k", 2},
                   {"moe_intermediate_size", 20},
                   {"moe_num_shared_experts", 2},
                   {"tie_word_embeddings", true}}),
         "F16"},
        {"seed_oss", relative("SeedOssForCausalLM", "seed_oss", nlohmann::json::object())},
        {"qwen3_5", relative("Qwen3_5ForCausalLM", "qwen3_5_text", linear(nlohmann::json::object()))},
        {"qwen3_5_of_other_sizes_bfloat16",
         relative("Qwen3_5ForCausalLM", "qwen3_5_text",
                  linear({{"linear_num_value_heads", 2},
                          {"linear_key_head_dim", 16},
                          {"linear_value_head_dim", 32},
                          {"linear_conv_kernel_dim", 2},
                          {"attention_bias", true},
                          {"tie_word_embeddings", true}})),
         "BF16"},
        {"qwen3_5_moe_bfloat16",
         relative("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text",
                  linear({{"num_experts", 6},
                          {"num_experts_per_tok", 2},
                          {"moe_intermediate_size", 20},
                          {"shared_expert_intermediate_size", 28}})),
         "BF16"},
        {"qwen3_next_float16",
         relative("Qwen3NextForCausalLM", "qwen3_next",
                  linear({{"num_experts", 5},
                          {"num_experts_per_tok", 3},
                          {"moe_intermediate_size", 12},
                          {"shared_expert_intermediate_size", 36},
                          {"norm_topk_prob", false}})),
         "F16"},
        {"lfm2", relative("Lfm2ForCausalLM", "lfm2",
                          {{"head_dim", nullptr},
                           {"num_attention_heads", 3},
                           {"num_key_value_heads", 1},
                           {"layer_types", {"conv", "full_attention"}},
                           {"block_auto_adjust_ff_dim", false}})},
        {"lfm2_bfloat16",
         relative("Lfm2ForCausalLM", "lfm2", {{"full_attn_idxs", {0}}, {"conv_L_cache", 5}, {"block_multiple_of", 32}}),
         "BF16"},
        {"qwen3_5_with_pictures",
         with_pictures("Qwen3_5ForConditionalGeneration", "qwen3_5", linear({{"model_type", "qwen3_5_text"}}))},
        {"gemma3_with_pictures", with_pictures("Gemma3ForConditionalGeneration", "gemma3",
                                               {{"model_type", "gemma3_text"},
                                                {"query_pre_attn_scalar", 10},
                                                {"sliding_window_pattern", 2},
                                                {"sliding_window", 3},
                                                {"rope_parameters", nullptr},
                                                {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}},
                                                {"tie_word_embeddings", nullptr}})},
        {"ministral3_with_pictures",
         with_pictures("Mistral3ForConditionalGeneration", "mistral3",
                       {{"model_type", "ministral3"}, {"rope_parameters", yarn}}),
         "BF16"},
        {"opt", tiny_opt_config(), "F16"},
        {"opt_without_biases", no_bias}};
}

/// A model folder with random weights, and the same weights for the reference.
class TinyModel {
  public:
    explicit TinyModel(const TinyModelCase& form) : form_(form) {
        folder_.write("config.json", form.config.dump());
        config_ = read_config(folder_.path());
        family_ = describe_family(config_);
        make_tensors();
        write();
    }

    const std::filesystem::path& path() const { return folder_.path(); }
    const ModelConfig& config() const { return config_; }
    const Family& family() const { return family_; }
    std::map<std::string, StoredTensor>& tensors() { return tensors_; }
    void write() const { folder_.write("model.safetensors", safetensors_file(tensors_)); }

    reference::Transformer reference() const {
        std::map<std::string, reference::Row> values;
        for (const auto& [name, tensor] : tensors_)
            values[name] = {tensor.values.begin(), tensor.values.end()};
        return {config_, values};
    }

    std::vector<std::int32_t> random_tokens(std::int64_t count, unsigned seed) const {
        std::mt19937 generator(seed);
        std::uniform_int_distribution<std::int32_t> any(0, static_cast<std::int32_t>(config_.vocab_size) - 1);
        std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
        for (std::int32_t& id : ids)
            id = any(generator);
        return ids;
    }

  private:
    void add(const std::string& name, std::vector<std::int64_t> shape, float mean, float deviation) {
        std::int64_t count = 1;
        for (const std::int64_t extent : shape)
            count *= extent;
        std::normal_distribution<float> normal(mean, deviation);
        StoredTensor tensor{std::move(shape), {}, form_.dtype};
        for (std::int64_t i = 0; i < count; ++i) {
            const float value = normal(generator_);  // as it is read back from its stored form
            tensor.values.push_back(form_.dtype == "F16"    ? to_float(to_half(value))
                                    : form_.dtype == "BF16" ? to_float(to_bfloat16(value))
                                                            : value);
        }
        tensors_[name] = tensor;
    }
    void add_norm(const std::string& name, std::int64_t size) {
        add(name + ".weight", {size}, 1 - family_.norm_offset, 0.2F);
        if (family_.norm == NormKind::layer) add(name + ".bias", {size}, 0, 0.2F);
    }
    void add_linear_attention(const std::string& prefix) {
        const Family::RecurrentNames& names = family_.recurrent;
        const DeltaShape& shape = config_.delta;
        const bool both = names.decay_gate.empty();
        add(prefix + names.convolution, {config_.convolved_cols(), 1, config_.convolution_width}, 0, 0.5F);
        if (!config_.has_delta()) return;
        for (const std::string& name : {names.beta, names.decay_gate})
            if (!name.empty())
                add(prefix + name + ".weight", {both ? 2 * shape.value_heads : shape.value_heads, config_.hidden_size},
                    0, 0.3F);
        add(prefix + names.decay, {shape.value_heads}, 0, 1);
        add(prefix + names.step, {shape.value_heads}, 0, 1);
        add(prefix + names.norm + ".weight", {shape.value_dim}, 1, 0.2F);
    }
    /// Weights keep the size of what they multiply, so that no part of the model drowns another.
    void make_tensors() {
        add(family_.embedding, {config_.vocab_size, config_.hidden_size}, 0, 1);
        if (!family_.positions.empty())
            add(family_.positions, {config_.max_positions + family_.position_offset, config_.hidden_size}, 0, 1);
        if (!config_.tied_embeddings) add(family_.lm_head, {config_.vocab_size, config_.hidden_size}, 0, 0.2F);
        for (const std::string& part : family_.other_parts)
            add(part + ".patches.weight", {5, 3}, 0, 1);
        add_norm(family_.final_norm, config_.hidden_size);
        for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
            const std::string prefix = family_.layer(layer);
            const auto add_if_any = [&](const std::string& norm, std::int64_t size) {
                if (!norm.empty()) add_norm(prefix + norm, size);
            };
            for (const std::string& norm :
                 {family_.input_norm, family_.mlp_norm, family_.attention_output_norm, family_.mlp_output_norm})
                add_if_any(norm, config_.hidden_size);
            if (config_.is_recurrent(layer)) {
                add_linear_attention(prefix);
            } else {
                add_if_any(family_.query_norm, family_.query_norm_size());
                add_if_any(family_.key_norm, family_.key_norm_size());
            }
            if (family_.has_experts(layer)) {
                add(prefix + family_.router + ".weight", {config_.experts, config_.hidden_size}, 0, 0.5F);
                if (family_.router_bias_rows == 1)
                    add(prefix + family_.router_bias, {1, config_.experts}, 0, 0.3F);
                else if (!family_.router_bias.empty())
                    add(prefix + family_.router_bias, {config_.experts}, 0, 0.3F);
                if (!family_.shared_gate.empty())
                    add(prefix + family_.shared_gate + ".weight", {1, config_.hidden_size}, 0, 0.3F);
            }
            for (const StageSpec& stage : family_.stages_of(layer))
                for (const LinearSpec& linear : stage.linears) {
                    add(prefix + linear.name + ".weight", {linear.rows, linear.cols}, 0,
                        1 / std::sqrt(static_cast<float>(linear.cols)));
                    if (linear.bias) add(prefix + linear.name + ".bias", {linear.rows}, 0, 0.3F);
                }
        }
    }

    TinyModelCase form_;
    ModelFolder folder_;
    ModelConfig config_;
    Family family_;
    std::mt19937 generator_{7};
    std::map<std::string, StoredTensor> tensors_;
};

}  // namespace fairgptq::testing
