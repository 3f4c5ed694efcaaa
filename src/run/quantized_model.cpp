#include "run/quantized_model.hpp"

#include "support/error.hpp"

namespace fairgptq {
namespace {

/// Writes a module's dequantized values over `weights`.
void dequantize_module(Backend& backend, const ModuleSolution& module, TensorView weights) {
    if (weights.rows != module.rows || weights.cols != module.cols)
        throw InvalidInput("{} is {} x {} in the run but {} x {} in the model", module.name, module.rows, module.cols,
                           weights.rows, weights.cols);
    const auto to_device = [&backend](const auto& values) {
        Buffer buffer = backend.allocate(values.size() * sizeof(values[0]));
        backend.copy_to_device(buffer.data(), values.data(), values.size() * sizeof(values[0]));
        return buffer;
    };
    const Buffer codes = to_device(module.codes);
    const Buffer scales = to_device(module.scales);
    const Buffer zeros = to_device(module.zeros);
    const Buffer group_index = to_device(module.group_index);
    backend.dequantize(codes.matrix<const std::uint8_t>(module.rows, module.cols),
                       scales.matrix<const float>(module.rows, module.groups),
                       zeros.matrix<const std::uint8_t>(module.rows, module.groups),
                       group_index.as<const std::int32_t>(), weights);
    backend.synchronize();
}

}  // namespace

void check_model_unchanged(const RunDirectory& run, const Checkpoint& checkpoint) {
    const nlohmann::json& recorded = run.settings().at("model");
    const auto check = [&](const char* field, const nlohmann::json& now, const char* what) {
        if (recorded.value(field, nlohmann::json()) != now)
            throw InvalidInput("the model in {} is not the one that {} quantized: its {} have changed",
                               run.model_path().string(), run.path().string(), what);
    };
    nlohmann::json files = nlohmann::json::array();
    for (const Checkpoint::FileInfo& file : checkpoint.files())
        files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"header_hash", file.header_hash}});
    check("files", files, "files");
    check("config_hash", config_hash(run.model_path()), "settings in config.json");
    check("weights_hash", weights_hash(hash_tensors(checkpoint, 0, 1)), "weights");
}

void dequantize_layer(Backend& backend, const LayerRecord& record, LayerWeights& weights) {
    for (const ModuleSolution& module : record.modules) {
        const auto linear = weights.linears.find(module.name);
        if (linear == weights.linears.end())
            throw InvalidInput("layer {} of the run has a module {}, which the model does not have", record.layer,
                               module.name);
        dequantize_module(backend, module, linear->second.weight);
    }
}

LayerOverride quantized_layers(Backend& backend, const RunDirectory& run) {
    run.require_finished();
    return [&backend, run](LayerWeights& weights) {
        if (weights.layer < run.layers()) dequantize_layer(backend, run.layer(weights.layer), weights);
    };
}

}  // namespace fairgptq
