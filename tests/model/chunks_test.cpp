// Cutting sequences into chunks.
#include "model/chunks.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace fairgptq {
namespace {

std::vector<std::int64_t> sizes(const std::vector<std::int64_t>& offsets, std::int64_t budget) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(offsets.back()));
    for (std::size_t i = 0; i < ids.size(); ++i)
        ids[i] = static_cast<std::int32_t>(i);
    const auto chunks = cut_into_chunks(ids, offsets, budget);
    std::vector<std::int64_t> result;
    std::int32_t next = 0;
    std::size_t sequence = 0;
    for (const ChunkTokens& chunk : chunks) {
        for (const std::int32_t id : chunk.ids)
            EXPECT_EQ(id, next++);
        EXPECT_EQ(chunk.offsets.front(), 0);
        EXPECT_EQ(chunk.offsets.back(), chunk.tokens());
        for (std::size_t s = 0; s + 1 < chunk.offsets.size(); ++s, ++sequence)
            EXPECT_EQ(chunk.offsets[s + 1] - chunk.offsets[s], offsets[sequence + 1] - offsets[sequence]);
        result.push_back(chunk.tokens());
    }
    EXPECT_EQ(next, static_cast<std::int32_t>(ids.size()));
    EXPECT_EQ(sequence + 1, offsets.size());
    EXPECT_EQ(largest_chunk(chunks), result.empty() ? 0 : *std::max_element(result.begin(), result.end()));
    return result;
}

using List = std::vector<std::int64_t>;

TEST(Chunks, KeepsSequencesWholeWithinTheBudget) {
    EXPECT_EQ(sizes({0}, 8), List{});
    EXPECT_EQ(sizes({0, 3}, 8), List{3});
    EXPECT_EQ(sizes({0, 3, 7}, 8), List{7});
    EXPECT_EQ(sizes({0, 3, 8}, 8), List{8});
    EXPECT_EQ(sizes({0, 3, 9}, 8), (List{3, 6}));
    EXPECT_EQ(sizes({0, 3, 9, 11}, 8), (List{3, 8}));
}

TEST(Chunks, GivesALongSequenceAChunkOfItsOwn) {
    EXPECT_EQ(sizes({0, 20}, 8), List{20});
    EXPECT_EQ(sizes({0, 2, 22, 25}, 8), (List{2, 20, 3}));
    EXPECT_EQ(sizes({0, 1, 2, 3}, 1), (List{1, 1, 1}));
}

}  // namespace
}  // namespace fairgptq
