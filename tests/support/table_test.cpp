#include "support/table.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace fairgptq {
namespace {

TEST(Table, IsAlignedByCharacters) {
    EXPECT_EQ(format_table({{"", "α=0.1", "n"}, {"mean |Δ|", "1", "22"}, {"x", "3"}}),
              "          α=0.1   n\n"
              "--------  -----  --\n"
              "mean |Δ|      1  22\n"
              "x             3\n");
    EXPECT_EQ(format_table({}), "");
    EXPECT_EQ(format_table({{"a\nb"}, {"\x1b[31m\t\x7f."}}), "a b\n--------\n [31m  .\n");
}

TEST(Table, FiguresHaveFourDigits) {
    EXPECT_EQ(format_figure(0), "0.0000");
    EXPECT_EQ(format_figure(0.33714), "0.3371");
    EXPECT_EQ(format_figure(1.2345), "1.234");
    EXPECT_EQ(format_figure(-17.6349), "-17.63");
    EXPECT_EQ(format_figure(54.2), "54.20");
    EXPECT_EQ(format_figure(100), "100.0");
    EXPECT_EQ(format_figure(1234.56), "1234.6");
    EXPECT_EQ(format_figure(123456.7), "123457");
    EXPECT_EQ(format_figure(999999999), "999999999");
    EXPECT_EQ(format_figure(1.180155e54), "1.18e+54");
    EXPECT_EQ(format_figure(0.000012345), "1.23e-05");
    EXPECT_EQ(format_figure(std::numeric_limits<double>::infinity()), "inf");
}

TEST(FormatDuration, HasTwoUnitsAtMost) {
    EXPECT_EQ(format_duration(0.4), "0 s");
    EXPECT_EQ(format_duration(59.4), "59 s");
    EXPECT_EQ(format_duration(59.6), "1 min 00 s");
    EXPECT_EQ(format_duration(3599), "59 min 59 s");
    EXPECT_EQ(format_duration(7620), "2 h 07 min");
}

}  // namespace
}  // namespace fairgptq
