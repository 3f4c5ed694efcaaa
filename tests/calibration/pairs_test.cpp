#include "calibration/pairs.hpp"

#include <gtest/gtest.h>

namespace fairgptq {

bool operator==(const PairColumn& a, const PairColumn& b) {
    return a.first0 == b.first0 && a.count0 == b.count0 && a.first1 == b.first1 && a.count1 == b.count1;
}

namespace {

std::vector<PairColumn> align(PairAlignment alignment, const std::vector<std::int32_t>& ids0,
                              const std::vector<std::int32_t>& ids1) {
    std::vector<PairColumn> columns;
    align_pair(alignment, ids0, 100, ids1, 200, columns);
    return columns;
}

std::vector<PairColumn> matched(std::initializer_list<std::pair<int, int>> pairs) {
    std::vector<PairColumn> columns;
    for (const auto& [t0, t1] : pairs)
        columns.push_back({100 + t0, 1, 200 + t1, 1});
    return columns;
}

TEST(AlignPair, PositionMatchesUpToTheShorterLength) {
    EXPECT_EQ(align(PairAlignment::position, {1, 2, 3}, {1, 9, 8, 3}), matched({{0, 0}, {1, 1}, {2, 2}}));
}

TEST(AlignPair, CommonMatchesPrefixMiddleFromTheLeftAndSuffix) {
    // 1 [2] 5 6  against  1 [7 8 9] 5 6: the middle's 2 meets 7; 8 and 9 are left out; 5 and 6 meet again.
    EXPECT_EQ(align(PairAlignment::common, {1, 2, 5, 6}, {1, 7, 8, 9, 5, 6}),
              matched({{0, 0}, {1, 1}, {2, 4}, {3, 5}}));
}

TEST(AlignPair, CommonOfEqualSentencesMatchesEverythingOnce) {
    EXPECT_EQ(align(PairAlignment::common, {4, 4, 4}, {4, 4, 4}), matched({{0, 0}, {1, 1}, {2, 2}}));
}

TEST(AlignPair, CommonOfARepeatedTokenDoesNotOverlapPrefixAndSuffix) {
    EXPECT_EQ(align(PairAlignment::common, {4, 4}, {4, 4, 4}), matched({{0, 0}, {1, 1}}));
}

TEST(AlignPair, CommonWithAnInsertionOnly) {
    EXPECT_EQ(align(PairAlignment::common, {1, 2}, {1, 3, 2}), matched({{0, 0}, {1, 2}}));
}

TEST(AlignPair, ContextIsTheCommonSuffix) {
    EXPECT_EQ(align(PairAlignment::context, {1, 2, 5, 6}, {1, 7, 8, 9, 5, 6}), matched({{2, 4}, {3, 5}}));
    EXPECT_EQ(align(PairAlignment::context, {1, 2}, {1, 3, 2}), matched({{1, 2}}));
    EXPECT_TRUE(align(PairAlignment::context, {1, 2}, {1, 3}).empty());
    // Equal sentences differ nowhere, and nothing comes after.
    EXPECT_TRUE(align(PairAlignment::context, {4, 4, 4}, {4, 4, 4}).empty());
}

TEST(AlignPair, MeanIsOneColumn) {
    EXPECT_EQ(align(PairAlignment::mean, {1, 2, 3}, {1, 2}), (std::vector<PairColumn>{{100, 3, 200, 2}}));
}

TEST(AlignPair, EmptySentencesGiveNothing) {
    for (const auto alignment :
         {PairAlignment::position, PairAlignment::common, PairAlignment::context, PairAlignment::mean})
        EXPECT_TRUE(align(alignment, {}, {1}).empty());
}

}  // namespace
}  // namespace fairgptq
