// A run's modules written over a model's weights, and the same values through the public header.
#include "run/quantized_model.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "backend/cpu/backend.hpp"
#include "fairgptq/run.hpp"
#include "run/record_reader.hpp"
#include "run/sample.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

using test::sample_module;
using test::ScratchFolder;

float value_at(const ModuleSolution& module, std::int64_t row, std::int64_t col) {
    const std::int64_t group = row * module.groups + module.group_index[col];
    return module.scales[group] * static_cast<float>(module.codes[row * module.cols + col] - module.zeros[group]);
}

std::vector<ModuleSolution> sample_modules() {
    return {sample_module("self_attn.q_proj", {}, 1),
            sample_module("mlp.down_proj", {.rows = 5, .bits = 3, .symmetric = false, .shuffled = true}, 2)};
}

/// A layer on the CPU whose linears all hold 7.
LayerWeights sevens(CpuBackend& backend, std::int64_t layer, const std::vector<ModuleSolution>& shapes) {
    LayerWeights weights;
    weights.layer = layer;
    for (const ModuleSolution& module : shapes) {
        weights.memory.push_back(backend.allocate(static_cast<std::size_t>(module.rows * module.cols) * sizeof(float)));
        const MatrixView<float> matrix = weights.memory.back().matrix<float>(module.rows, module.cols);
        std::fill_n(matrix.data, module.rows * module.cols, 7.0F);
        weights.linears[module.name].weight = matrix;
    }
    return weights;
}

ModuleGrids everything() {
    return {{}, {}, Family()};
}

/// Of three layers, with those modules: the first lacks mlp.down_proj.
Family uneven_layers() {
    Family family;
    family.config.layers = 3;
    family.config.experts = 1;
    family.config.dense = {true, false, false};
    family.dense_stages = {{{{"self_attn.q_proj"}}}};
    family.stages = {{{{"self_attn.q_proj"}}}, {{{"mlp.down_proj"}}}};
    return family;
}

nlohmann::json settings_of(int layers) {
    return {{"model", {{"path", "/m"}, {"layers", 3}}}, {"layers", layers}};
}

TEST(QuantizedModel, ReplacesTheQuantizedLinearsAndNoOthers) {
    CpuBackend backend;
    const std::vector<ModuleSolution> modules = sample_modules();
    auto shapes = modules;
    shapes.push_back(sample_module("mlp.up_proj", {.rows = 2, .cols = 32}, 3));
    const LayerWeights weights = sevens(backend, 0, shapes);
    LayerWeights copy = sevens(backend, 0, shapes);
    dequantize_layer(backend, {0, "", modules}, copy);
    for (const ModuleSolution& module : modules) {
        const MatrixView<float> matrix = copy.linears.at(module.name).weight.float32();
        for (std::int64_t row = 0; row < module.rows; ++row)
            for (std::int64_t col = 0; col < module.cols; ++col)
                ASSERT_EQ(matrix(row, col), value_at(module, row, col)) << module.name << " " << row << " " << col;
    }
    EXPECT_EQ(copy.linears.at("mlp.up_proj").weight.float32()(1, 31), 7.0F);
}

TEST(QuantizedModel, AModuleThatTheModelLacksOrOfAnotherShapeIsNamed) {
    CpuBackend backend;
    const std::vector<ModuleSolution> modules = sample_modules();
    LayerWeights weights = sevens(backend, 0, {modules[0]});
    EXPECT_THROW(dequantize_layer(backend, {0, "", modules}, weights), InvalidInput);
    weights = sevens(backend, 0, {modules[0], sample_module("mlp.down_proj", {.rows = 6}, 2)});
    EXPECT_THROW(dequantize_layer(backend, {0, "", modules}, weights), InvalidInput);
}

TEST(QuantizedModel, AFinishedTrialReplacesItsLayersAndLeavesTheRest) {
    const ScratchFolder folder;
    CpuBackend backend;
    const Checkpoint checkpoint;
    const RunDirectory run = RunDirectory::create(folder / "run", settings_of(2));
    write_layer(run.layer_path(0), {0, run.fingerprint(), sample_modules()});
    EXPECT_THROW((void)run.require_finished(), InvalidInput) << "half a run was taken for a whole one";
    write_layer(run.layer_path(1), {1, run.fingerprint(), sample_modules()});
    const WeightsOverride change = quantized_layers(backend, run, everything(), uneven_layers(), checkpoint, {});
    // As a model's layers come, and once more; a layer on its own, too.
    for (const std::int64_t layer : {0, 1, 2, 0, 1, 2, 1}) {
        LayerWeights weights = sevens(backend, layer, sample_modules());
        change.layer(weights);
        const float expected = layer < 2 ? value_at(sample_modules()[0], 3, 40) : 7.0F;
        EXPECT_EQ(weights.linears.at("self_attn.q_proj").weight.float32()(3, 40), expected) << "layer " << layer;
        EXPECT_EQ(change.replaces(layer, "self_attn.q_proj"), layer < 2);
    }
}

TEST(QuantizedModel, OnlyTheChosenLinearsAreReplacedAndNoneMayBeMissing) {
    const ScratchFolder folder;
    CpuBackend backend;
    const Checkpoint checkpoint;
    const RunDirectory run = RunDirectory::create(folder / "run", settings_of(2));
    for (const std::int64_t layer : {0, 1})
        write_layer(run.layer_path(layer), {layer, run.fingerprint(), sample_modules()});
    const auto choose = [](std::int64_t layer, const std::string& linear) {
        return layer == 1 && linear == "mlp.down_proj";
    };
    const WeightsOverride change =
        quantized_layers(backend, run, everything(), uneven_layers(), checkpoint, {}, choose);
    for (const std::int64_t layer : {0, 1}) {
        LayerWeights weights = sevens(backend, layer, sample_modules());
        change.layer(weights);
        EXPECT_EQ(weights.linears.at("self_attn.q_proj").weight.float32()(3, 40), 7.0F);
        EXPECT_EQ(weights.linears.at("mlp.down_proj").weight.float32()(3, 40),
                  layer == 1 ? value_at(sample_modules()[1], 3, 40) : 7.0F);
    }
    // What would not be read, and not be written either.
    auto shapes = sample_modules();
    shapes.push_back(sample_module("mlp.up_proj", {.rows = 2, .cols = 32}, 3));
    LayerWeights weights = sevens(backend, 0, shapes);
    EXPECT_THROW(quantized_layers(backend, run, everything(), uneven_layers(), checkpoint, {}).layer(weights),
                 InvalidInput);
}

TEST(RecordReader, GivesLayersInAnyOrderAndFailsForTheOneThatIsMissing) {
    const ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(folder / "run", settings_of(3));
    for (const std::int64_t layer : {0, 1})
        write_layer(run.layer_path(layer), {layer, run.fingerprint(), sample_modules()});
    RecordReader records(run);
    for (const std::int64_t layer : {0, 1, 0, 0, 1})
        EXPECT_EQ(records.layer(layer, true).layer, layer);
    EXPECT_THROW(records.layer(2, false), InvalidInput);
    EXPECT_EQ(records.layer(1, false).layer, 1);
    EXPECT_THROW(records.layer(2, false), InvalidInput);
    EXPECT_EQ(records.layer(0, true).layer, 0);  // and goes while the next one is being read
}

TEST(PublicRun, ReadsWhatARunHolds) {
    const ScratchFolder folder;
    const RunDirectory directory = RunDirectory::create(folder / "run", settings_of(2));
    write_layer(directory.layer_path(0), {0, directory.fingerprint(), sample_modules()});
    const fairgptq::Run run((folder / "run").string());
    EXPECT_EQ(run.layers(), 2);
    EXPECT_EQ(run.finished_layers(), 1);
    EXPECT_EQ(run.model_directory(), "/m");
    EXPECT_EQ(nlohmann::json::parse(run.settings()), settings_of(2));
    const std::vector<QuantizedLinear> linears = run.layer(0);
    ASSERT_EQ(linears.size(), 2U);
    const ModuleSolution module = sample_modules()[1];
    EXPECT_EQ(linears[1].name, "mlp.down_proj");
    EXPECT_EQ(linears[1].codes, module.codes);
    const std::vector<float> values = linears[1].dequantize();
    for (std::int64_t row = 0; row < module.rows; ++row)
        for (std::int64_t col = 0; col < module.cols; ++col)
            ASSERT_EQ(values[row * module.cols + col], value_at(module, row, col));
    EXPECT_THROW(run.layer(1), std::runtime_error);
    EXPECT_THROW(fairgptq::Run("/nowhere"), std::runtime_error);
}

}  // namespace
}  // namespace fairgptq
