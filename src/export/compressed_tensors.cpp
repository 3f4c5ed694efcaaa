// "pack-quantized" of the compressed-tensors library, which transformers and vLLM read.
#include <nlohmann/json.hpp>

#include "export/bit_stream.hpp"
#include "export/format.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

class CompressedTensorsFormat final : public ExportFormat {
  public:
    void check(const QuantizedModelInfo& info, const std::string& module_name, const ModuleSolution&) const override {
        if (info.scattered_groups)
            throw InvalidInput(
                "{} has groups that are not neighbouring columns (--order activation), which compressed-tensors no "
                "longer "
                "reads: export as gptq or dense, or quantize with --static-groups or --order group",
                module_name);
        if (!info.schemes.experts_alike)
            throw InvalidInput(
                "experts of one layer are quantized in different ways, which no program reads as compressed-tensors: "
                "export as gptq or dense");
    }

    std::vector<TensorPlan> plan(const std::string& name, const ModuleSolution& module) const override {
        std::vector<TensorPlan> tensors{
            {name + ".weight_packed", "I32", {module.rows, words_for(module.cols, module.bits)}},
            {name + ".weight_scale", module.scales_float32 ? "F32" : "F16", {module.rows, module.groups}},
            {name + ".weight_shape", "I64", {2}}};
        if (!module.symmetric)
            tensors.push_back(
                {name + ".weight_zero_point", "I32", {words_for(module.rows, module.bits), module.groups}});
        return tensors;
    }

    std::vector<std::vector<std::byte>> encode(const QuantizedModelInfo&, const ModuleSolution& module) const override {
        // The library's codes are signed, and stored plus 2^(bits−1): the unsigned codes that a run holds. Zeros alike.
        const std::int64_t words = words_for(module.cols, module.bits);
        std::vector<std::uint32_t> packed(static_cast<std::size_t>(module.rows * words));
#pragma omp parallel for schedule(static)
        for (std::int64_t row = 0; row < module.rows; ++row)
            pack_words(module.codes.data() + row * module.cols, 1, module.cols, module.bits,
                       packed.data() + row * words, 1);
        std::vector<std::vector<std::byte>> contents{
            to_bytes(packed), to_bytes(module.scales, module.scales_float32 ? DType::float32 : DType::float16),
            to_bytes(std::vector<std::int64_t>{module.rows, module.cols})};
        if (!module.symmetric) {
            std::vector<std::uint32_t> zeros(
                static_cast<std::size_t>(words_for(module.rows, module.bits) * module.groups));
            for (std::int64_t group = 0; group < module.groups; ++group)
                pack_words(module.zeros.data() + group, module.groups, module.rows, module.bits, zeros.data() + group,
                           module.groups);
            contents.push_back(to_bytes(zeros));
        }
        return contents;
    }

    std::vector<std::pair<std::string, nlohmann::ordered_json>> describe(
        const QuantizedModelInfo& info, nlohmann::ordered_json& config) const override {
        nlohmann::ordered_json groups = nlohmann::ordered_json::object();
        const auto add_group = [&](const nlohmann::ordered_json& targets, const Scheme& scheme) {
            groups[fmt::format("group_{}", groups.size())] = {{"targets", targets},
                                                              {"weights", weights_of(scheme)},
                                                              {"input_activations", nullptr},
                                                              {"output_activations", nullptr}};
        };
        const auto expressions = [](nlohmann::ordered_json list, const std::vector<std::string>& patterns) {
            for (const std::string& pattern : patterns)
                list.push_back("re:" + pattern);
            return list;
        };
        // What a name or an expression matches is not of the group of all linears.
        add_group({"Linear"}, info.schemes.common);
        for (const auto& [scheme, patterns] : info.schemes.others)
            add_group(expressions(nlohmann::ordered_json::array(), patterns), scheme);
        nlohmann::ordered_json ignore{"lm_head"};
        if (info.within_another) ignore.push_back("language_model.lm_head");
        config["quantization_config"] = {{"quant_method", "compressed-tensors"},         {"format", "pack-quantized"},
                                         {"quantization_status", "compressed"},          {"config_groups", groups},
                                         {"ignore", expressions(ignore, info.original)}, {"kv_cache_scheme", nullptr}};
        return {};
    }

  private:
    static nlohmann::ordered_json weights_of(const Scheme& scheme) {
        nlohmann::ordered_json weights{{"num_bits", scheme.bits}, {"type", "int"}, {"symmetric", scheme.symmetric}};
        if (scheme.group_size < 0)
            weights.update({{"strategy", "channel"}, {"group_size", nullptr}});
        else
            weights.update({{"strategy", "group"}, {"group_size", scheme.group_size}});
        weights.update({{"dynamic", false}, {"actorder", nullptr}});
        return weights;
    }
};

}  // namespace

std::unique_ptr<ExportFormat> make_compressed_tensors_format() {
    return std::make_unique<CompressedTensorsFormat>();
}

}  // namespace fairgptq
