#include "solver/order.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace fairgptq {
namespace {

using Indices = std::vector<std::int32_t>;

// Groups of two: {4, 1}, {2, 7}, {7, 3}, {0, 4}.
const std::vector<double> diagonal{4, 1, 2, 7, 7, 3, 0, 4};

TEST(Order, AsItIs) {
    const ColumnPlan plan = plan_columns(diagonal, ColumnOrder::none, 2, false);
    EXPECT_EQ(plan.order, (Indices{0, 1, 2, 3, 4, 5, 6, 7}));
    EXPECT_EQ(plan.loop_group, (Indices{0, 0, 1, 1, 2, 2, 3, 3}));
    EXPECT_EQ(plan.group_index, plan.loop_group);
}

TEST(Order, ByActivationGroupsFollowTheLoop) {
    const ColumnPlan plan = plan_columns(diagonal, ColumnOrder::activation, 2, false);
    EXPECT_EQ(plan.order, (Indices{3, 4, 0, 7, 5, 2, 1, 6}));  // of equal ones the first comes first
    EXPECT_EQ(plan.inverse, (Indices{2, 6, 5, 0, 1, 4, 7, 3}));
    EXPECT_EQ(plan.loop_group, (Indices{0, 0, 1, 1, 2, 2, 3, 3}));
    EXPECT_EQ(plan.group_index, (Indices{1, 3, 2, 0, 0, 2, 3, 1}));
}

TEST(Order, ByActivationStaticGroupsStay) {
    const ColumnPlan plan = plan_columns(diagonal, ColumnOrder::activation, 2, true);
    EXPECT_EQ(plan.order, (Indices{3, 4, 0, 7, 5, 2, 1, 6}));
    EXPECT_EQ(plan.loop_group, (Indices{1, 2, 0, 3, 2, 1, 0, 3}));
    EXPECT_EQ(plan.group_index, (Indices{0, 0, 1, 1, 2, 2, 3, 3}));
}

TEST(Order, ByGroupColumnsGoByTheDiagonalWithinTheirGroup) {
    for (const bool static_groups : {false, true}) {
        const ColumnPlan plan = plan_columns(diagonal, ColumnOrder::group, 2, static_groups);
        EXPECT_EQ(plan.order, (Indices{3, 2, 4, 5, 0, 1, 7, 6}));
        EXPECT_EQ(plan.inverse, (Indices{4, 5, 1, 0, 2, 3, 7, 6}));
        EXPECT_EQ(plan.loop_group, (Indices{1, 1, 2, 2, 0, 0, 3, 3}));
        EXPECT_EQ(plan.group_index, (Indices{0, 0, 1, 1, 2, 2, 3, 3}));
    }
}

TEST(Order, OfNothing) {
    for (const ColumnOrder order : {ColumnOrder::none, ColumnOrder::activation, ColumnOrder::group})
        EXPECT_TRUE(plan_columns({}, order, 32, false).order.empty());
}

}  // namespace
}  // namespace fairgptq
