// The quantized values as plain weights under their original names: for programs that know no quantized format.
#include <nlohmann/json.hpp>

#include "export/format.hpp"

namespace fairgptq {
namespace {

const char* safetensors_name(DType dtype) {
    return dtype == DType::float32 ? "F32" : dtype == DType::float16 ? "F16" : "BF16";
}

class DenseFormat final : public ExportFormat {
  public:
    explicit DenseFormat(DType dtype) : dtype_(dtype) {}

    void check(const QuantizedModelInfo&, const std::string&, const ModuleSolution&) const override {}

    std::vector<TensorPlan> plan(const std::string& name, const ModuleSolution& module) const override {
        return {{name + ".weight", safetensors_name(dtype_), {module.rows, module.cols}}};
    }

    std::vector<std::vector<std::byte>> encode(const QuantizedModelInfo&, const ModuleSolution& module) const override {
        return {to_bytes(dequantized(module), dtype_)};
    }

    std::vector<std::pair<std::string, nlohmann::ordered_json>> describe(
        const QuantizedModelInfo&, nlohmann::ordered_json& config) const override {
        // transformers 5 writes "dtype", version 4 "torch_dtype"; a text model beside others may have its own.
        const bool older = config.contains("torch_dtype");
        if (!older) config["dtype"] = name_of(dtype_);
        const auto set = [&](nlohmann::ordered_json& where) {
            for (const char* field : {"dtype", "torch_dtype"})
                if (where.contains(field)) where[field] = name_of(dtype_);
        };
        set(config);
        if (config.contains("text_config")) set(config["text_config"]);
        return {};
    }

  private:
    DType dtype_;
};

}  // namespace

std::unique_ptr<ExportFormat> make_dense_format(DType dtype) {
    return std::make_unique<DenseFormat>(dtype);
}

}  // namespace fairgptq
