#include "export/vllm.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace fairgptq {

namespace {

std::string objection_to(const Scheme& scheme, const std::string& format) {
    if (scheme.bits != 4 && scheme.bits != 8) return fmt::format("it has no kernel for {} bits", scheme.bits);
    if (scheme.bits == 8 && scheme.group_size > 128)
        return fmt::format("it has no kernel for 8 bits in groups of {}", scheme.group_size);
    if (format == "gptq" && !scheme.symmetric) return "it takes asymmetric weights as compressed-tensors, not as gptq";
    if (format == "gptq" && scheme.group_size > 128)
        return fmt::format("it takes groups of {} as compressed-tensors, not as gptq", scheme.group_size);
    return {};
}

}  // namespace

std::string vllm_objection(const std::string& format, const Schemes& schemes, bool scattered_groups) {
    if (format == "dense") return {};
    std::vector<std::string> objections;  // all of them, so that nobody mends one to meet the next
    for (const Scheme& scheme : schemes.all())
        if (std::string objection = objection_to(scheme, format);
            !objection.empty() && std::ranges::count(objections, objection) == 0)
            objections.push_back(std::move(objection));
    if (scattered_groups)
        objections.emplace_back(
            "it has taken no groups of scattered columns (desc_act) since 0.30; quantize with --order group, or with "
            "--static-groups");
    if (!schemes.fused_alike)
        objections.emplace_back(
            "it computes as one q, k and v (or q_a and kv_a, or in_proj_qkv and in_proj_z), and gate and up, which "
            "some "
            "layer does not have quantized alike");
    if (!schemes.experts_alike) objections.emplace_back("it wants all experts of a layer quantized alike");
    return fmt::format("{}", fmt::join(objections, "; and "));
}

std::string vllm_objection(const SolverSettings& settings, const Schemes& schemes) {
    const bool scattered = settings.order == ColumnOrder::activation && !settings.static_groups;
    const bool groups = std::ranges::any_of(schemes.all(), [](const Scheme& scheme) { return scheme.group_size > 0; });
    return vllm_objection("compressed-tensors", schemes, scattered && groups);
}

}  // namespace fairgptq
