// What a format of quantized models decides; everything else about an export is the same for all (export.cpp).
// Adding one is a file of its own and a line in make_format.
#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "export/export.hpp"
#include "export/safetensors_writer.hpp"
#include "export/schemes.hpp"
#include "solver/solve.hpp"

namespace fairgptq {

/// What formats say of a run as a whole.
struct QuantizedModelInfo {
    Schemes schemes;
    bool scattered_groups = false;  // some module's groups are not neighbouring columns
    bool within_another = false;    // Family's
    double damp = 0;
    /// Regular expressions that match the names of linears that were left as they are, but for the head: in layers
    /// beyond the run's, in parts that are not the text model's, what weights experts, and what --ignore names.
    std::vector<std::string> original;
};

class ExportFormat {
  public:
    virtual ~ExportFormat() = default;
    /// Whether tensors are called as transformers calls them in memory (Family::loaded_name), not as the model's files
    /// do.
    virtual bool names_as_loaded() const { return false; }
    /// @throws InvalidInput that says what of the run the format cannot hold
    virtual void check(const QuantizedModelInfo& info, const std::string& module_name,
                       const ModuleSolution& module) const = 0;
    /// The tensors that take the place of `name`.weight, without their contents. Looks at the module's sizes only.
    virtual std::vector<TensorPlan> plan(const std::string& name, const ModuleSolution& module) const = 0;
    /// The contents of plan()'s tensors, in the same order.
    virtual std::vector<std::vector<std::byte>> encode(const QuantizedModelInfo& info,
                                                       const ModuleSolution& module) const = 0;
    /// Says in config.json how the model is quantized. @returns further files: name and contents
    virtual std::vector<std::pair<std::string, nlohmann::ordered_json>> describe(
        const QuantizedModelInfo& info, nlohmann::ordered_json& config) const = 0;
};

std::unique_ptr<ExportFormat> make_gptq_format();
std::unique_ptr<ExportFormat> make_compressed_tensors_format();
std::unique_ptr<ExportFormat> make_dense_format(DType dtype);
/// @throws InvalidInput for an unknown format, or a dtype where the format fixes it
std::unique_ptr<ExportFormat> make_format(const ExportOptions& options);

/// The float16 (or float32) bytes of values.
std::vector<std::byte> to_bytes(const std::vector<float>& values, DType dtype);
template <class T>
std::vector<std::byte> to_bytes(const std::vector<T>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    return {bytes.begin(), bytes.end()};
}

}  // namespace fairgptq
