#include "export/vllm.hpp"

#include <gtest/gtest.h>

namespace fairgptq {
namespace {

QuantizedModelInfo info_of(int bits, std::int64_t group_size, bool symmetric, bool scattered) {
    QuantizedModelInfo info;
    info.bits = bits;
    info.group_size = group_size;
    info.symmetric = symmetric;
    info.scattered_groups = scattered;
    return info;
}

/// As vLLM 0.32 answered to each in tests/bench/load_in_vllm.py; of 8 bits, as its sources say.
TEST(Vllm, ObjectsToWhatItRefuses) {
    for (const char* format : {"gptq", "compressed-tensors", "dense"}) {
        for (const std::int64_t group_size : {-1, 32, 64, 128})
            EXPECT_EQ(vllm_objection(format, info_of(4, group_size, true, false)), "") << format << group_size;
        EXPECT_EQ(vllm_objection(format, info_of(8, 128, true, false)), "") << format;
        EXPECT_EQ(vllm_objection(format, info_of(8, -1, true, false)), "") << format;
        const bool dense = std::string(format) == "dense";
        EXPECT_EQ(vllm_objection(format, info_of(3, 128, true, false)).empty(), dense) << format;
        EXPECT_EQ(vllm_objection(format, info_of(2, 128, false, false)).empty(), dense) << format;
        EXPECT_EQ(vllm_objection(format, info_of(8, 256, true, false)).empty(), dense) << format;
        EXPECT_EQ(vllm_objection(format, info_of(4, 128, true, true)).empty(), dense) << format;
    }
    EXPECT_NE(vllm_objection("gptq", info_of(4, 128, false, false)), "");
    EXPECT_EQ(vllm_objection("compressed-tensors", info_of(4, 128, false, false)), "");
    EXPECT_NE(vllm_objection("gptq", info_of(4, 256, true, false)), "");
    EXPECT_EQ(vllm_objection("compressed-tensors", info_of(4, 256, true, false)), "");
}

TEST(Vllm, SettingsAreWarnedOfOnlyWhereNoFormatIsLoaded) {
    SolverSettings settings;
    EXPECT_EQ(vllm_objection(settings), "");
    settings.grid.symmetric = false;
    settings.grid.group_size = 256;
    EXPECT_EQ(vllm_objection(settings), "");
    settings.order = ColumnOrder::group;
    EXPECT_EQ(vllm_objection(settings), "");
    settings.order = ColumnOrder::activation;
    EXPECT_NE(vllm_objection(settings), "");
    settings.static_groups = true;
    EXPECT_EQ(vllm_objection(settings), "");
    settings.static_groups = false;
    settings.grid.group_size = -1;  // one group, whatever the order
    EXPECT_EQ(vllm_objection(settings), "");
    settings.grid.bits = 3;
    EXPECT_NE(vllm_objection(settings), "");
}

}  // namespace
}  // namespace fairgptq
