#include "pipeline/chunks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "support/error.hpp"

namespace fairgptq {
namespace {

Sequences random_sequences(std::int64_t count, int shortest, int longest, std::mt19937& random) {
    Sequences sequences;
    for (std::int64_t s = 0; s < count; ++s) {
        const int length = std::uniform_int_distribution<int>(shortest, longest)(random);
        for (int t = 0; t < length; ++t)
            sequences.ids.push_back(static_cast<std::int32_t>(sequences.ids.size() % 1000));
        sequences.offsets.push_back(sequences.tokens());
    }
    return sequences;
}

TokenFile make_file(std::int64_t pairs, std::int64_t texts) {
    std::mt19937 random(7);
    TokenFile file;
    file.path = "tokens.h5";
    file.stereotype = random_sequences(pairs, 5, 20, random);
    file.anti_stereotype = random_sequences(pairs, 5, 20, random);
    file.text = random_sequences(texts, 50, 512, random);
    return file;
}

std::vector<std::int32_t> all_ids(const Chunks& chunks) {
    std::vector<std::int32_t> ids;
    for (const Chunk& chunk : chunks.all)
        ids.insert(ids.end(), chunk.tokens.ids.begin(), chunk.tokens.ids.end());
    return ids;
}

TEST(Chunks, KeepEveryTokenWithinTheBudgetAndPairsTogether) {
    const TokenFile file = make_file(700, 40);
    for (const std::int64_t budget : {64, 600, 8192}) {
        const Chunks chunks = make_chunks(file, HessianSource::both, PairAlignment::position, budget);
        std::int64_t columns = 0;
        for (const Chunk& chunk : chunks.all) {
            ASSERT_GT(chunk.tokens.tokens(), 0);
            // Only a sequence or pair that is longer than the budget by itself may exceed it.
            if (chunk.tokens.tokens() > budget) {
                EXPECT_LE(chunk.tokens.offsets.size(), 3U);
            }
            EXPECT_EQ(chunk.tokens.offsets.front(), 0);
            EXPECT_EQ(chunk.tokens.offsets.back(), chunk.tokens.tokens());
            for (const PairColumn& column : chunk.pair_columns) {
                EXPECT_LT(column.first0, chunk.tokens.tokens());
                EXPECT_LT(column.first1, chunk.tokens.tokens());
                EXPECT_GT(column.first1, column.first0);
            }
            columns += static_cast<std::int64_t>(chunk.pair_columns.size());
        }
        EXPECT_EQ(static_cast<std::int64_t>(all_ids(chunks).size()),
                  file.stereotype.tokens() + file.anti_stereotype.tokens() + file.text.tokens());
        EXPECT_EQ(chunks.hessian_tokens, static_cast<std::int64_t>(all_ids(chunks).size()));
        EXPECT_EQ(chunks.pair_columns, columns);
    }
}

TEST(Chunks, AreOfNearlyEqualSizeAndDealOutEvenly) {
    const TokenFile file = make_file(1300, 0);
    const Chunks chunks = make_chunks(file, HessianSource::pairs, PairAlignment::position, 8192);
    EXPECT_EQ(chunks.all.size() % 12, 0U);
    for (const int ranks : {1, 2, 3, 4, 6, 12}) {
        std::vector<std::int64_t> load;
        for (const auto& mine : deal_chunks(chunks, ranks)) {
            load.push_back(0);
            for (const std::size_t chunk : mine)
                load.back() += chunks.all[chunk].tokens.tokens();
        }
        const auto [least, most] = std::minmax_element(load.begin(), load.end());
        EXPECT_LE(*most - *least, *most / 20) << ranks << " ranks";
    }
}

TEST(Chunks, EveryChunkIsDealtOnceWhateverTheRanks) {
    const TokenFile file = make_file(10, 3);
    const Chunks chunks = make_chunks(file, HessianSource::both, PairAlignment::common, 100);
    for (const int ranks : {1, 2, 5, 100}) {
        std::vector<std::size_t> dealt;
        for (const auto& mine : deal_chunks(chunks, ranks))
            dealt.insert(dealt.end(), mine.begin(), mine.end());
        std::sort(dealt.begin(), dealt.end());
        std::vector<std::size_t> expected(chunks.all.size());
        std::iota(expected.begin(), expected.end(), std::size_t{0});
        EXPECT_EQ(dealt, expected);
    }
}

TEST(Chunks, SourceDecidesWhatCountsInTheHessian) {
    const TokenFile file = make_file(20, 4);
    const Chunks pairs = make_chunks(file, HessianSource::pairs, PairAlignment::position, 8192);
    EXPECT_EQ(pairs.hessian_tokens, file.stereotype.tokens() + file.anti_stereotype.tokens());
    const Chunks text = make_chunks(file, HessianSource::text, PairAlignment::position, 8192);
    EXPECT_EQ(text.hessian_tokens, file.text.tokens());
    EXPECT_EQ(text.pair_columns, pairs.pair_columns);
}

TEST(Chunks, MissingDataIsRefused) {
    EXPECT_THROW(make_chunks(make_file(0, 3), HessianSource::both, PairAlignment::position, 100), InvalidInput);
    EXPECT_THROW(make_chunks(make_file(3, 0), HessianSource::both, PairAlignment::position, 100), InvalidInput);
    EXPECT_THROW(make_chunks(make_file(3, 0), HessianSource::pairs, PairAlignment::position, 0), InvalidInput);
    EXPECT_NO_THROW(make_chunks(make_file(0, 3), HessianSource::text, PairAlignment::position, 100));
}

}  // namespace
}  // namespace fairgptq
