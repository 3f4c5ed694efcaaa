#include "export/vllm.hpp"

#include <fmt/format.h>

namespace fairgptq {

std::string vllm_objection(const std::string& format, const QuantizedModelInfo& info) {
    if (format == "dense") return {};
    if (info.scattered_groups)
        return "it has taken no groups of scattered columns (desc_act) since 0.30; quantize with --order group, or "
               "with --static-groups";
    if (info.bits != 4 && info.bits != 8) return fmt::format("it has no kernel for {} bits", info.bits);
    if (info.bits == 8 && info.group_size > 128)
        return fmt::format("it has no kernel for 8 bits in groups of {}", info.group_size);
    if (format == "gptq" && !info.symmetric) return "it takes asymmetric weights as compressed-tensors, not as gptq";
    if (format == "gptq" && info.group_size > 128)
        return fmt::format("it takes groups of {} as compressed-tensors, not as gptq", info.group_size);
    return {};
}

std::string vllm_objection(const SolverSettings& settings) {
    const Grid& grid = settings.grid;
    QuantizedModelInfo info;
    info.bits = grid.bits;
    info.group_size = grid.group_size;
    info.symmetric = grid.symmetric;
    info.scattered_groups = settings.order == ColumnOrder::activation && !settings.static_groups && grid.group_size > 0;
    return vllm_objection("compressed-tensors", info);
}

}  // namespace fairgptq
