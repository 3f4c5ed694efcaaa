#include "export/vllm.hpp"

#include <gtest/gtest.h>

namespace fairgptq {
namespace {

std::string objection(const char* format, int bits, std::int64_t group_size, bool symmetric, bool scattered = false) {
    Schemes schemes;
    schemes.common = {bits, group_size, symmetric};
    return vllm_objection(format, schemes, scattered);
}

std::string objection(const SolverSettings& settings) {
    Schemes schemes;
    schemes.common = {settings.grid.bits, settings.grid.group_size, settings.grid.symmetric};
    return vllm_objection(settings, schemes);
}

/// As vLLM 0.32 answered to each in tests/bench/load_in_vllm.py; of 8 bits, as its sources say.
TEST(Vllm, ObjectsToWhatItRefuses) {
    for (const char* format : {"gptq", "compressed-tensors", "dense"}) {
        for (const std::int64_t group_size : {-1, 32, 64, 128})
            EXPECT_EQ(objection(format, 4, group_size, true), "") << format << group_size;
        EXPECT_EQ(objection(format, 8, 128, true), "") << format;
        EXPECT_EQ(objection(format, 8, -1, true), "") << format;
        const bool dense = std::string(format) == "dense";
        EXPECT_EQ(objection(format, 3, 128, true).empty(), dense) << format;
        EXPECT_EQ(objection(format, 2, 128, false).empty(), dense) << format;
        EXPECT_EQ(objection(format, 8, 256, true).empty(), dense) << format;
        EXPECT_EQ(objection(format, 4, 128, true, true).empty(), dense) << format;
    }
    EXPECT_NE(objection("gptq", 4, 128, false), "");
    EXPECT_EQ(objection("compressed-tensors", 4, 128, false), "");
    EXPECT_NE(objection("gptq", 4, 256, true), "");
    EXPECT_EQ(objection("compressed-tensors", 4, 256, true), "");
}

TEST(Vllm, SettingsAreWarnedOfOnlyWhereNoFormatIsLoaded) {
    SolverSettings settings;
    EXPECT_EQ(objection(settings), "");
    settings.grid.symmetric = false;
    settings.grid.group_size = 256;
    EXPECT_EQ(objection(settings), "");
    settings.order = ColumnOrder::group;
    EXPECT_EQ(objection(settings), "");
    settings.order = ColumnOrder::activation;
    EXPECT_NE(objection(settings), "");
    settings.static_groups = true;
    EXPECT_EQ(objection(settings), "");
    settings.static_groups = false;
    settings.grid.group_size = -1;  // one group, whatever the order
    EXPECT_EQ(objection(settings), "");
    settings.grid.bits = 3;
    EXPECT_NE(objection(settings), "");
    settings.grid.group_size = 128;  // all at once
    EXPECT_NE(objection(settings).find("no kernel for 3 bits; and it has taken no groups of scattered"),
              std::string::npos);
}

TEST(Vllm, LoadsSomeLinearsOtherwiseButNotPartsOfOne) {
    Schemes schemes;
    schemes.others = {{{8, 32, true}, {"^model\\.layers\\.\\d+\\.mlp\\.down_proj$"}}};
    schemes.ignored = {"^model\\.layers\\.(0)\\.mlp\\.down_proj$"};
    for (const char* format : {"gptq", "compressed-tensors", "dense"})
        EXPECT_EQ(vllm_objection(format, schemes, false), "") << format;
    schemes.others[0].first.symmetric = false;
    EXPECT_NE(vllm_objection("gptq", schemes, false), "");
    EXPECT_EQ(vllm_objection("compressed-tensors", schemes, false), "");
    schemes.others[0].first.bits = 3;
    EXPECT_NE(vllm_objection("compressed-tensors", schemes, false), "");
    for (bool Schemes::*alike : {&Schemes::fused_alike, &Schemes::experts_alike}) {
        Schemes parts;
        parts.*alike = false;
        EXPECT_NE(vllm_objection("gptq", parts, false), "");
        EXPECT_NE(vllm_objection("compressed-tensors", parts, false), "");
        EXPECT_EQ(vllm_objection("dense", parts, false), "");
    }
}

}  // namespace
}  // namespace fairgptq
