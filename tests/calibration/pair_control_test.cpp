#include "calibration/pair_control.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "support/error.hpp"
#include "support_files/refusal.hpp"

namespace fairgptq {
namespace {

using ::testing::HasSubstr;

/// Pair p: the sentences {p, 1000} and {p, 2000, …} of p % 3 + 2 tokens.
TokenFile pairs_of(std::int64_t count) {
    TokenFile tokens;
    tokens.path = "tokens.h5";
    const auto add = [](Sequences& sequences, std::int64_t pair, std::int32_t second, std::int64_t length) {
        sequences.ids.push_back(static_cast<std::int32_t>(pair));
        sequences.ids.resize(sequences.ids.size() + static_cast<std::size_t>(length) - 1, second);
        sequences.offsets.push_back(sequences.tokens());
    };
    for (std::int64_t pair = 0; pair < count; ++pair) {
        add(tokens.stereotype, pair, 1000, 2);
        add(tokens.anti_stereotype, pair, 2000, pair % 3 + 2);
    }
    return tokens;
}

TEST(PairControl, LeavesPairsAsGivenAlone) {
    TokenFile tokens = pairs_of(5);
    const TokenFile before = tokens;
    apply_pair_control(PairControl::as_given, tokens);
    EXPECT_EQ(tokens.anti_stereotype.ids, before.anti_stereotype.ids);
}

TEST(PairControl, ShufflesWithoutLeavingAPairTogether) {
    for (const std::int64_t count : {2, 3, 10, 647}) {
        TokenFile tokens = pairs_of(count);
        const TokenFile before = tokens;
        apply_pair_control(PairControl::shuffled, tokens);
        EXPECT_EQ(tokens.stereotype.ids, before.stereotype.ids);
        ASSERT_EQ(tokens.anti_stereotype.count(), count);
        std::set<std::int32_t> partners;
        for (std::int64_t pair = 0; pair < count; ++pair) {
            const std::int32_t partner = tokens.anti_stereotype.ids[tokens.anti_stereotype.offsets[pair]];
            EXPECT_NE(partner, pair);
            EXPECT_EQ(tokens.anti_stereotype.length(pair), partner % 3 + 2);  // the whole sentence
            partners.insert(partner);
        }
        EXPECT_EQ(partners.size(), static_cast<std::size_t>(count));
        TokenFile again = before;
        apply_pair_control(PairControl::shuffled, again);
        EXPECT_EQ(again.anti_stereotype.ids, tokens.anti_stereotype.ids);
    }
}

TEST(PairControl, TakesUnrelatedSentences) {
    TokenFile tokens = pairs_of(2);
    tokens.unrelated = {{7, 8, 9}, {0, 1, 3}};
    apply_pair_control(PairControl::unrelated, tokens);
    EXPECT_EQ(tokens.anti_stereotype.ids, (std::vector<std::int32_t>{7, 8, 9}));
}

TEST(PairControl, RefusesWhatIsNotThere) {
    const auto message = [](PairControl control, TokenFile tokens) {
        return testing::refusal_of([&] { apply_pair_control(control, tokens); });
    };
    EXPECT_THAT(message(PairControl::shuffled, pairs_of(1)), HasSubstr("tokens.h5 has 1 pair, and at least 2"));
    EXPECT_THAT(message(PairControl::shuffled, pairs_of(0)), HasSubstr("tokens.h5 has 0 pairs, and at least 2"));
    EXPECT_THAT(message(PairControl::unrelated, pairs_of(3)), HasSubstr("tokens.h5 has no /pairs/unrelated"));
}

}  // namespace
}  // namespace fairgptq
