// The format of AutoGPTQ and GPTQModel, which vLLM reads as well.
//
// "gptq" (version 1) stores zeros minus one, which has no form for a zero of 0: programs disagree on what becomes of
// its neighbours, and GPTQModel refuses asymmetric version 1 from any program but itself. So asymmetric runs are
// written as "gptq_v2", which stores zeros as they are (so are those with one asymmetric module); symmetric ones as
// version 1, which every program reads.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "export/bit_stream.hpp"
#include "export/format.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

/// As version 2 does.
bool stores_zeros_as_they_are(const QuantizedModelInfo& info) {
    return std::ranges::any_of(info.schemes.all(), [](const Scheme& scheme) { return !scheme.symmetric; });
}

class GptqFormat final : public ExportFormat {
  public:
    /// GPTQModel looks for its tensors under those names alone; vLLM and transformers know both.
    bool names_as_loaded() const override { return true; }

    void check(const QuantizedModelInfo&, const std::string& module_name, const ModuleSolution& module) const override {
        if (module.scales_float32)
            throw InvalidInput(
                "{} has float32 scales, and the gptq format holds float16: export as compressed-tensors or dense",
                module_name);
        if (module.cols * module.bits % 32 != 0 || module.rows * module.bits % 32 != 0)
            throw InvalidInput(
                "{} is {} x {}: the gptq format packs codes of {} bits in words of 32, so rows and columns must be "
                "multiples "
                "of {}; export as dense",
                module_name, module.rows, module.cols, module.bits, module.bits == 3 ? 32 : 32 / module.bits);
    }

    std::vector<TensorPlan> plan(const std::string& name, const ModuleSolution& module) const override {
        return {{name + ".qweight", "I32", {words_for(module.cols, module.bits), module.rows}},
                {name + ".qzeros", "I32", {module.groups, words_for(module.rows, module.bits)}},
                {name + ".scales", "F16", {module.groups, module.rows}},
                {name + ".g_idx", "I32", {module.cols}}};
    }

    std::vector<std::vector<std::byte>> encode(const QuantizedModelInfo& info,
                                               const ModuleSolution& module) const override {
        std::vector<std::uint32_t> qweight(static_cast<std::size_t>(words_for(module.cols, module.bits) * module.rows));
#pragma omp parallel for schedule(static)
        for (std::int64_t row = 0; row < module.rows; ++row)
            pack_words(module.codes.data() + row * module.cols, 1, module.cols, module.bits, qweight.data() + row,
                       module.rows);

        std::vector<std::uint8_t> zeros = module.zeros;
        if (!stores_zeros_as_they_are(info))
            for (std::uint8_t& zero : zeros)
                --zero;
        const std::int64_t zero_words = words_for(module.rows, module.bits);
        std::vector<std::uint32_t> qzeros(static_cast<std::size_t>(module.groups * zero_words));
        std::vector<float> scales(module.scales.size());
        for (std::int64_t group = 0; group < module.groups; ++group) {
            pack_words(zeros.data() + group, module.groups, module.rows, module.bits,
                       qzeros.data() + group * zero_words, 1);
            for (std::int64_t row = 0; row < module.rows; ++row)
                scales[group * module.rows + row] = module.scales[row * module.groups + group];
        }
        return {to_bytes(qweight), to_bytes(qzeros), to_bytes(scales, DType::float16), to_bytes(module.group_index)};
    }

    std::vector<std::pair<std::string, nlohmann::ordered_json>> describe(
        const QuantizedModelInfo& info, nlohmann::ordered_json& config) const override {
        const char* format = stores_zeros_as_they_are(info) ? "gptq_v2" : "gptq";
        const auto fields_of = [](const Scheme& scheme) -> nlohmann::ordered_json {
            return {{"bits", scheme.bits}, {"group_size", scheme.group_size}, {"sym", scheme.symmetric}};
        };
        const Scheme& common = info.schemes.common;
        nlohmann::ordered_json settings{{"bits", common.bits},
                                        {"group_size", common.group_size},
                                        {"desc_act", info.scattered_groups},
                                        {"sym", common.symmetric},
                                        {"lm_head", false},
                                        {"quant_method", "gptq"},
                                        {"format", format},
                                        {"checkpoint_format", format},
                                        {"pack_dtype", "int32"}};
        // The first that matches counts.
        for (const std::string& pattern : info.original)
            settings["dynamic"]["-:" + pattern] = nlohmann::ordered_json::object();
        for (const auto& [scheme, patterns] : info.schemes.others)
            for (const std::string& pattern : patterns)
                settings["dynamic"]["+:" + pattern] = fields_of(scheme);
        settings["meta"] = {{"quantizer", {std::string("fairgptq:") + FAIRGPTQ_VERSION}}, {"damp_percent", info.damp}};
        config["quantization_config"] = settings;
        return {{"quantize_config.json", settings}};
    }
};

}  // namespace

std::unique_ptr<ExportFormat> make_gptq_format() {
    return std::make_unique<GptqFormat>();
}

}  // namespace fairgptq
