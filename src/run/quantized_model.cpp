#include "run/quantized_model.hpp"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "run/record_reader.hpp"
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
}

void require_same_tensors(const TensorHashes& read, const TensorHashes& recorded, std::int64_t layer,
                          const Checkpoint& checkpoint, const RunDirectory& run) {
    for (const auto& [name, hash] : read) {
        const auto before = recorded.find(name);
        if (before != recorded.end() && before->second != hash)
            throw InvalidInput(
                "{}tensor '{}' in {} is not what it was when {} quantized this model: put the file back as it was, or "
                "quantize the model as it is now into another folder",
                layer < 0 ? "" : fmt::format("layer {}: ", layer), name, checkpoint.tensor(name).file,
                run.path().string());
    }
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

WeightsOverride original_layers(const RunDirectory& run, const Checkpoint& checkpoint, TensorHashes recorded) {
    const auto check = [run, &checkpoint, recorded = std::move(recorded)](const TensorHashes& read,
                                                                          std::int64_t layer) {
        require_same_tensors(read, recorded, layer, checkpoint, run);
    };
    return {[check](LayerWeights& weights) { check(weights.hashes, weights.layer); },
            [check](const OuterWeights& weights) { check(weights.hashes, -1); }};
}

WeightsOverride quantized_layers(Backend& backend, const RunDirectory& run, const ModuleGrids& grids,
                                 const Family& family, const Checkpoint& checkpoint, TensorHashes recorded,
                                 LinearChoice which) {
    WeightsOverride original = original_layers(run, checkpoint, std::move(recorded));
    const auto replaces = [layers = run.layers(), grids, which = std::move(which)](std::int64_t layer,
                                                                                   const std::string& linear) {
        return layer < layers && grids(layer, linear) && (!which || which(layer, linear));
    };
    const auto replaces_any = [replaces, family](std::int64_t layer) {
        return layer < family.config.layers &&
               std::ranges::any_of(family.stages_of(layer), [&](const StageSpec& stage) {
                   return std::ranges::any_of(stage.linears,
                                              [&](const LinearSpec& linear) { return replaces(layer, linear.name); });
               });
    };
    const auto replace = [&backend, run, replaces, replaces_any, check = std::move(original.layer),
                          records = std::make_shared<RecordReader>(run)](LayerWeights& weights) {
        check(weights);
        std::set<std::string> wanted;
        for (const auto& [name, linear] : weights.linears)
            if (replaces(weights.layer, name)) wanted.insert(name);
        if (wanted.empty()) return;
        LayerRecord record = records->layer(weights.layer, replaces_any(weights.layer + 1));
        std::erase_if(record.modules, [&](const ModuleSolution& module) {
            // What the model does not have is not wanted either, and is refused below.
            return weights.linears.contains(module.name) && wanted.erase(module.name) == 0;
        });
        if (!wanted.empty())
            throw InvalidInput("layer {} of {} has no module {}, which the model has", weights.layer,
                               run.path().string(), *wanted.begin());
        dequantize_layer(backend, record, weights);
    };
    return {replace, std::move(original.outer), replaces};
}

}  // namespace fairgptq
