#include "export/vllm.hpp"

#include <fmt/format.h>

#include <algorithm>

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
    if (scattered_groups)
        return "it has taken no groups of scattered columns (desc_act) since 0.30; quantize with --order group, or "
               "with --static-groups";
    if (!schemes.fused_alike)
        return "it computes q, k and v (or q_a and kv_a) as one, and gate and up, and in some layer these are not "
               "quantized alike";
    if (!schemes.experts_alike) return "it wants all experts of a layer quantized alike";
    for (const Scheme& scheme : schemes.all())
        if (std::string objection = objection_to(scheme, format); !objection.empty()) return objection;
    return {};
}

std::string vllm_objection(const SolverSettings& settings, const Schemes& schemes) {
    const bool scattered = settings.order == ColumnOrder::activation && !settings.static_groups;
    const bool groups = std::ranges::any_of(schemes.all(), [](const Scheme& scheme) { return scheme.group_size > 0; });
    return vllm_objection("compressed-tensors", schemes, scattered && groups);
}

}  // namespace fairgptq
