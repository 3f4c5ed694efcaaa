// Models that take pictures beside text: a text model of a family that is here, whose settings are an object in
// config.json and whose tensors have longer names, and parts that see, which no text passes. The text model is
// quantized, the other parts stay as they are.
#include <algorithm>
#include <initializer_list>
#include <utility>

#include "model/families/families.hpp"

namespace fairgptq {
namespace {

struct TextModel {
    std::string_view model_type;
    const FamilyEntry& family;
};

/// Qwen2-VL's first files have the text model's settings at the top.
bool has_text_model_inside(const ConfigReader& reader) {
    return reader.has("text_config") || !reader.has("hidden_size");
}
ConfigReader text_model_of(const ConfigReader& reader) {
    return has_text_model_inside(reader) ? reader.object("text_config") : reader;
}

/// @param kinds of text models that the architecture may hold
/// @param tied what the head is where config.json's top says nothing
void read_text_model(const ConfigReader& reader, ModelConfig& config, std::initializer_list<TextModel> kinds,
                     bool tied) {
    const bool nested = has_text_model_inside(reader);
    const ConfigReader text = text_model_of(reader);
    const TextModel* kind = kinds.begin();
    if (nested) {
        const std::string type = text.text("model_type", std::string(kind->model_type));
        kind = std::find_if(kinds.begin(), kinds.end(), [&](const TextModel& one) { return one.model_type == type; });
        if (kind == kinds.end()) {
            std::string supported;
            for (const TextModel& one : kinds)
                supported += fmt::format("{}'{}'", supported.empty() ? "" : " or ", one.model_type);
            text.refuse("model_type", fmt::format("is '{}', which is not supported within {}; {} is", type,
                                                  config.architecture, supported));
        }
    }
    if (nested && text.has("quantization_config")) require_blocks_of_floats(text.object("quantization_config"));
    if (const auto dtype = read_dtype(text); dtype && !read_dtype(reader)) config.dtype = *dtype;
    config.model_type = kind->family.model_type;
    kind->family.read(text, config);
    // Both places have the field, and which one counts has changed from one version of transformers to the next.
    if (nested && reader.flag("tie_word_embeddings", tied) != config.tied_embeddings) {
        config.tied_embeddings = false;
        config.may_be_tied = true;
    }
}

/// With LLaVA's names, which Gemma 3 and Mistral 3 have taken over.
Family within_llava(Family text) {
    Family family = put_within(std::move(text), "language_model.model.", "language_model.lm_head.weight");
    family.other_parts = {"vision_tower", "multi_modal_projector"};
    family.prefixes = {{"language_model.model.", "model.language_model."}, {"language_model.lm_head.", "lm_head."}};
    for (const std::string& part : family.other_parts)
        family.prefixes.push_back({part + ".", "model." + part + "."});
    return family;
}

Family within_qwen2(const ModelConfig& config) {
    Family family = put_within(qwen2_family.describe(config), "model.", "lm_head.weight");
    family.other_parts = {"visual"};
    family.prefixes = {{"model.", "model.language_model."}, {"visual.", "model.visual."}};
    return family;
}

Family within_qwen3(Family text) {
    Family family = put_within(std::move(text), "model.language_model.", "lm_head.weight");
    family.other_parts.insert(family.other_parts.begin(), "visual");
    return family;
}

/// transformers' own defaults differ from those of the same fields in models without pictures.
void read_qwen(const ConfigReader& reader, ModelConfig& config, TextModel kind) {
    const ConfigReader text = text_model_of(reader);
    for (const char* field : {"num_key_value_heads", "rms_norm_eps"})
        text.at(field);
    if (!text.has("rope_parameters") || !text.object("rope_parameters").has("rope_theta")) text.at("rope_theta");
    if (text.flag("use_sliding_window", false) && !text.has("layer_types")) text.at("max_window_layers");
    read_text_model(reader, config, {kind}, false);
}

}  // namespace

const FamilyEntry gemma3_with_pictures{
    "Gemma3ForConditionalGeneration", "gemma3",
    [](const ConfigReader& reader, ModelConfig& config) {
        read_text_model(reader, config, {{"gemma3_text", gemma3_family}}, true);
    },
    [](const ModelConfig& config) { return within_llava(gemma3_family.describe(config)); }};

// Mistral Small 3.1 and 3.2, Ministral 3.
const FamilyEntry mistral3_with_pictures{
    "Mistral3ForConditionalGeneration", "mistral3",
    [](const ConfigReader& reader, ModelConfig& config) {
        read_text_model(reader, config, {{"mistral", mistral_family}, {"ministral3", ministral3_family}}, true);
    },
    [](const ModelConfig& config) { return within_llava(mistral_family.describe(config)); }};

const FamilyEntry qwen2_with_pictures{"Qwen2VLForConditionalGeneration", "qwen2_vl",
                                      [](const ConfigReader& reader, ModelConfig& config) {
                                          read_qwen(reader, config, {"qwen2_vl_text", qwen2_family});
                                      },
                                      within_qwen2};

const FamilyEntry qwen25_with_pictures{"Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl",
                                       [](const ConfigReader& reader, ModelConfig& config) {
                                           read_qwen(reader, config, {"qwen2_5_vl_text", qwen2_family});
                                       },
                                       within_qwen2};

const FamilyEntry qwen3_with_pictures{
    "Qwen3VLForConditionalGeneration", "qwen3_vl",
    [](const ConfigReader& reader, ModelConfig& config) {
        read_qwen(reader, config, {"qwen3_vl_text", qwen3_family});
        config.windows.assign(config.windows.size(), 0);  // it has none
    },
    [](const ModelConfig& config) { return within_qwen3(qwen3_family.describe(config)); }};

const FamilyEntry qwen3_5_with_pictures{
    "Qwen3_5ForConditionalGeneration", "qwen3_5",
    [](const ConfigReader& reader, ModelConfig& config) {
        read_text_model(reader, config, {{"qwen3_5_text", qwen3_5_family}}, false);
    },
    [](const ModelConfig& config) { return within_qwen3(qwen3_5_family.describe(config)); }};

const FamilyEntry qwen3_5_moe_with_pictures{
    "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe",
    [](const ConfigReader& reader, ModelConfig& config) {
        read_text_model(reader, config, {{"qwen3_5_moe_text", qwen3_5_moe_family}}, false);
    },
    [](const ModelConfig& config) { return within_qwen3(qwen3_5_moe_family.describe(config)); }};

}  // namespace fairgptq
