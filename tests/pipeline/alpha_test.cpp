#include "pipeline/alpha.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "model/plain_config.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

Family ten_layers() {
    return describe_family(testing::plain_config(10));
}

AlphaPolicy policy(const std::string& modules, const std::string& layers,
                   std::vector<std::pair<std::string, double>> map = {}) {
    return {{0.5, modules, layers, std::move(map)}, ten_layers()};
}

TEST(AlphaPolicy, AllModulesAndLayers) {
    EXPECT_EQ(policy("all", "all")(3, "mlp.up_proj"), 0.5);
    EXPECT_EQ(policy("all", "all")(9, "self_attn.q_proj"), 0.5);
}

TEST(AlphaPolicy, ModulesByName) {
    const AlphaPolicy alpha = policy("o_proj,mlp.down_proj,model.layers.7.mlp.*", "all");
    EXPECT_EQ(alpha(0, "self_attn.o_proj"), 0.5);
    EXPECT_EQ(alpha(0, "mlp.down_proj"), 0.5);
    EXPECT_EQ(alpha(0, "mlp.up_proj"), 0);
    EXPECT_EQ(alpha(7, "mlp.up_proj"), 0.5);
}

TEST(AlphaPolicy, LayersByListRangeAndShare) {
    const auto chosen = [](const std::string& layers) {
        const AlphaPolicy alpha = policy("all", layers);
        std::string result;
        for (int layer = 0; layer < 10; ++layer)
            result += alpha(layer, "mlp.up_proj") > 0 ? '1' : '0';
        return result;
    };
    EXPECT_EQ(chosen("0-2,7"), "1110000100");
    EXPECT_EQ(chosen("lower:10%"), "1000000000");
    EXPECT_EQ(chosen("upper:15%"), "0000000011");
    EXPECT_EQ(chosen("lower+upper:20%"), "1100000011");
    EXPECT_EQ(chosen("lower:100%"), "1111111111");
}

TEST(AlphaPolicy, FirstMatchOfTheMapWins) {
    const AlphaPolicy alpha =
        policy("o_proj", "all", {{"model.layers.3.mlp.down_proj", 0.2}, {"*.down_proj", 0.1}, {"*.3.*", 0.9}});
    EXPECT_EQ(alpha(3, "mlp.down_proj"), 0.2);
    EXPECT_EQ(alpha(4, "mlp.down_proj"), 0.1);
    EXPECT_EQ(alpha(3, "mlp.up_proj"), 0.9);
    EXPECT_EQ(alpha(4, "self_attn.o_proj"), 0.5);
    EXPECT_EQ(alpha(4, "mlp.up_proj"), 0);
}

TEST(AlphaPolicy, LayersOfTwoKindsHaveTheirOwnModules) {
    const Family family = describe_family(testing::mixture_config(10));
    using Map = std::vector<std::pair<std::string, double>>;
    const auto with = [&](const std::string& modules, Map map) {
        return AlphaPolicy({0.5, modules, "all", std::move(map)}, family);
    };
    EXPECT_EQ(with("q_proj,mlp.experts.2.up_proj", {})(4, "mlp.experts.2.up_proj"), 0.5);
    EXPECT_EQ(with("up_proj", {})(0, "mlp.up_proj"), 0.5);
    EXPECT_EQ(with("up_proj", {})(4, "mlp.shared_experts.up_proj"), 0.5);
    const AlphaPolicy map = with("all", {{"*.layers.0.mlp.up_proj", 0.1}, {"*.shared_experts.*", 0.2}, {"*", 0}});
    EXPECT_EQ(map(0, "mlp.up_proj"), 0.1);
    EXPECT_EQ(map(1, "mlp.shared_experts.up_proj"), 0.2);
    EXPECT_EQ(map(1, "mlp.experts.0.up_proj"), 0);
    const ModuleGrids all({}, {}, family);
    EXPECT_TRUE(map.any(all));
    EXPECT_FALSE(with("all", {{"*", 0}}).any(all));
    EXPECT_FALSE(with("o_proj", {}).any(ModuleGrids({}, {{"o_proj"}, {}}, family)));
    EXPECT_TRUE(with("o_proj", {}).any(ModuleGrids({}, {{"*.layers.0.*"}, {}}, family)));
    for (const char* absent : {"*.layers.1.mlp.up_proj", "*.layers.0.mlp.experts.*", "*.experts.3.*"})
        EXPECT_THROW(with("all", {{absent, 0.1}}), InvalidInput) << absent;
}

TEST(AlphaPolicy, WhatFitsNothingIsRefused) {
    for (const char* layers : {"10", "3-1", "x", "-1", "middle:10%", "lower:0%", "lower:101%", "lower:10", ""})
        EXPECT_THROW(policy("all", layers), InvalidInput) << layers;
    EXPECT_THROW(policy("o_prj", "all"), InvalidInput);
    EXPECT_THROW(policy("", "all"), InvalidInput);
    EXPECT_THROW(policy("all", "all", {{"*.nothing", 1.0}}), InvalidInput);
    EXPECT_THROW(AlphaPolicy({-1.0, "all", "all", {}}, ten_layers()), InvalidInput);
}

TEST(AlphaMap, IsReadInTheFilesOrder) {
    const auto path = std::filesystem::temp_directory_path() / "fairgptq_alpha_map.json";
    std::ofstream(path) << R"({"z": 0.2, "a": 0.1})";
    const auto map = read_alpha_map(path);
    ASSERT_EQ(map.size(), 2U);
    EXPECT_EQ(map[0].first, "z");
    for (const char* text : {"[]", "{}", "{\"a\": \"b\"}", "{\"a\": -1}", "{", ""}) {
        std::ofstream(path) << text;
        EXPECT_THROW(read_alpha_map(path), InvalidInput) << text;
    }
    std::filesystem::remove(path);
    EXPECT_THROW(read_alpha_map(path), InvalidInput);
}

}  // namespace
}  // namespace fairgptq
