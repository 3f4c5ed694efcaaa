#include "run/module_grids.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "model/plain_config.hpp"
#include "run/sample.hpp"
#include "support_files/refusal.hpp"

namespace fairgptq {
namespace {

using testing::expect_refused;

Family three_layers() {
    return describe_family(testing::plain_config(3));
}

ModuleGrids grids_of(const ModuleSettings& settings) {
    return {{}, settings, three_layers()};
}

TEST(ModuleGrids, AreTheSolversWhereNothingElseIsSaid) {
    SolverSettings solver;
    solver.grid.bits = 3;
    const ModuleGrids grids(solver, {}, three_layers());
    EXPECT_TRUE(grids.uniform());
    EXPECT_EQ(grids(2, "mlp.up_proj"), solver.grid);
}

TEST(ModuleGrids, ListsNameModulesAndPatternsChangeThem) {
    const ModuleGrids grids = grids_of(
        {{"k_proj", "mlp.gate_proj", "model.layers.1.*", "*.layers.2.self_attn.[qv]_proj"},
         {{"model.layers.0.self_attn.q_proj", {.bits = 2}}, {"*.self_attn.*", {.bits = 8, .group_size = -1}}}});
    EXPECT_FALSE(grids.uniform());
    for (const auto& [layer, module] : std::vector<std::pair<int, std::string>>{
             {0, "self_attn.k_proj"}, {2, "mlp.gate_proj"}, {1, "mlp.up_proj"}, {2, "self_attn.v_proj"}})
        EXPECT_FALSE(grids(layer, module)) << layer << module;
    EXPECT_EQ(grids(0, "self_attn.q_proj")->bits, 2);
    EXPECT_EQ(grids(0, "self_attn.q_proj")->group_size, 128);
    EXPECT_EQ(grids(2, "self_attn.o_proj")->bits, 8);
    EXPECT_EQ(grids(2, "self_attn.o_proj")->group_size, -1);
    EXPECT_TRUE(grids(2, "self_attn.o_proj")->symmetric);
    EXPECT_EQ(grids(0, "mlp.up_proj"), Grid());
}

TEST(ModuleGrids, WhatFitsNothingIsRefused) {
    expect_refused(
        [] {
            grids_of({{"x_proj"}, {}});
        },
        {"--ignore", "no module 'x_proj'", "q_proj, k_proj", "model.layers.0.mlp.down_proj"});
    expect_refused([] { grids_of({{"lm_head"}, {}}); }, {"'lm_head'"});
    expect_refused([] { grids_of({{"o_proj", ""}, {}}); }, {"--ignore", "''"});
    expect_refused([] { grids_of({{"model.layers.3.*"}, {}}); }, {"'model.layers.3.*'"});
    expect_refused(
        [] {
            grids_of({{}, {{"*", {.bits = 3}}, {"*.x_proj", {.bits = 8}}}});
        },
        {"--module-map", "'*.x_proj' fits no module"});
    expect_refused([] { grids_of({{}, {{"model.layers.0.mlp.x_proj", {.bits = 8}}}}); }, {"fits no module"});
}

TEST(ModuleGrids, SayWhatIsQuantizedAndWhatHasNoEffect) {
    const Family family = three_layers();
    const ModuleGrids grids = grids_of(
        {{"*.layers.0.*", "*.layers.1.*"},
         {{"*.layers.0.*", {.bits = 8}}, {"*.up_proj", {.bits = 8}}, {"model.layers.2.mlp.up_proj", {.bits = 3}}}});
    EXPECT_EQ(widest_quantized(grids, family, 2), 0);
    EXPECT_EQ(widest_quantized(grids, family, 3), 128);
    EXPECT_EQ(widest_quantized(grids_of({{"down_proj"}, {}}), family, 3), 64);
    EXPECT_EQ(grids.idle(), (std::vector<std::string>{"*.layers.0.*", "model.layers.2.mlp.up_proj"}));
    EXPECT_TRUE(grids_of({}).idle().empty());
}

TEST(ModuleGrids, ComeBackFromARunsSettings) {
    const ModuleSettings settings{
        {"o_proj"}, {{"*.down_proj", {.bits = 8, .group_size = 32, .symmetric = false}}, {"*", {.bits = 3}}}};
    nlohmann::json quantization{{"bits", 2}, {"group_size", 64}, {"symmetric", false}, {"scale_dtype", "f32"}};
    const nlohmann::json plain = quantization;
    add_to_json({}, quantization);
    EXPECT_EQ(quantization, plain);
    add_to_json(settings, quantization);
    const ModuleGrids grids = recorded_grids({{"quantization", quantization}}, three_layers());
    EXPECT_FALSE(grids(0, "self_attn.o_proj"));
    EXPECT_EQ(grids(0, "mlp.down_proj"), (Grid{8, 32, false, ScaleSearch::none, ScaleType::float32}));
    EXPECT_EQ(grids(0, "mlp.up_proj"), (Grid{3, 64, false, ScaleSearch::none, ScaleType::float32}));
    EXPECT_EQ(recorded_grids(nlohmann::json::object(), three_layers())(0, "mlp.up_proj"), Grid());
}

TEST(ModuleMapFile, IsReadInItsOrderAndChecked) {
    const test::ScratchFolder folder;
    const auto path = folder / "map.json";
    const auto read = [&](const std::string& text) {
        std::ofstream(path) << text;
        return read_module_settings(path);
    };
    const ModuleMap<GridChange> map = read(R"({"z": {"bits": 8}, "a": {"group_size": -1, "sym": false}})");
    ASSERT_EQ(map.size(), 2U);
    EXPECT_EQ(map[0].first, "z");
    EXPECT_EQ(map[0].second.bits, 8);
    EXPECT_FALSE(map[0].second.group_size);
    EXPECT_EQ(map[1].second.group_size, -1);
    EXPECT_EQ(map[1].second.symmetric, false);
    expect_refused([&] { read("[]"); },
                   {"--module-map", "must hold a JSON object of module patterns and their settings"});
    expect_refused([&] { read(R"({"a": 8})"); }, {"'a' must be an object of bits, group_size or sym"});
    expect_refused([&] { read(R"({"a": {}})"); }, {"'a' must be an object"});
    expect_refused([&] { read(R"({"a": {"bits": 5}})"); }, {"'a'", "--bits is 5"});
    expect_refused([&] { read(R"({"a": {"bits": 4.5}})"); }, {"'a'", "'bits' is not a whole number"});
    for (const char* large : {"99999999999999999999", "4294967300", "18446744073709551620", "-4294967292"})
        expect_refused([&] { read(fmt::format(R"({{"a": {{"bits": {}}}}})", large)); },
                       {"'a'", "'bits' is not a whole number"});
    expect_refused([&] { read(R"({"a": {"bits": 8}, "b": {"bits": 8}, "a": {"bits": 3}})"); }, {"'a' twice"});
    expect_refused([&] { read(R"({"a": {"bits": 8, "bits": 4}})"); }, {"'bits' twice"});
    expect_refused([&] { read(R"({"a": {"group_size": 48}})"); }, {"'a'", "--group-size is 48"});
    expect_refused([&] { read(R"({"a": {"sym": 1}})"); }, {"'a'", "'sym' is not true or false"});
    expect_refused([&] { read(R"({"a": {"group-size": 32}})"); }, {"'a' has 'group-size'; it takes"});
    expect_refused([&] { read_module_settings(folder / "none.json"); }, {"cannot be opened"});
    expect_refused([&] { read_module_settings(folder.path()); }, {"is not a file"});
}

}  // namespace
}  // namespace fairgptq
