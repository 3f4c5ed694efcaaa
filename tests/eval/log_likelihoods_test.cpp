#include "eval/log_likelihoods.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "support/error.hpp"
#include "support_files/thread_ranks.hpp"

namespace fairgptq {
namespace {

using testing::run_ranks;

/// log p of a token after a prefix: any function of both will do, as long as it is exact in float32.
float log_probability(std::span<const std::int32_t> prefix, std::int32_t target) {
    std::int64_t state = 7;
    for (const std::int32_t id : prefix)
        state = (state * 31 + id) % 1009;
    return -static_cast<float>((state * 17 + target) % 997 + 1) / 64.0F;
}

/// Scores as a model would: a row sees its own sequence up to itself.
class FakeModel final : public TokenScorer {
  public:
    std::int64_t longest_chunk = 0;
    std::vector<std::vector<float>> score(std::span<const ChunkTokens> chunks,
                                          std::span<const ScoredRows> rows) override {
        std::vector<std::vector<float>> result;
        EXPECT_EQ(chunks.size(), rows.size());
        for (std::size_t c = 0; c < chunks.size(); ++c) {
            const ChunkTokens& chunk = chunks[c];
            longest_chunk = std::max(longest_chunk, chunk.tokens());
            EXPECT_EQ(rows[c].rows.size(), rows[c].targets.size());
            std::vector<float>& scores = result.emplace_back();
            for (std::size_t i = 0; i < rows[c].rows.size(); ++i) {
                const std::int32_t row = rows[c].rows[i];
                const std::int64_t start = *(std::upper_bound(chunk.offsets.begin(), chunk.offsets.end(), row) - 1);
                const std::span<const std::int32_t> ids(chunk.ids);
                scores.push_back(log_probability(ids.subspan(start, row - start + 1), rows[c].targets[i]));
            }
        }
        return result;
    }
};

Task make_task(const std::string& name, const std::vector<std::int64_t>& lengths, std::int32_t seed) {
    Task task;
    task.name = name;
    for (const std::int64_t length : lengths) {
        for (std::int64_t token = 0; token < length; ++token)
            task.sequences.ids.push_back(static_cast<std::int32_t>((token * token + length * 13 + seed) % 50));
        task.sequences.offsets.push_back(task.sequences.tokens());
        task.scored_from.push_back(static_cast<std::int32_t>(1 + (length + seed) % (length - 1)));
    }
    return task;
}

class LogLikelihoodsOverRanks : public ::testing::TestWithParam<std::tuple<int, std::int64_t>> {};

TEST_P(LogLikelihoodsOverRanks, AreSumsOverEachSequencesScoredTokens) {
    const auto [ranks, chunk_tokens] = GetParam();
    const std::vector<Task> tasks{make_task("first", {2, 5, 3, 9, 2, 2, 4}, 1), make_task("second", {6}, 2),
                                  make_task("third", {3, 3, 3, 3, 3, 3, 3, 3, 3}, 3)};
    run_ranks(ranks, [&](Communicator& comm) {
        FakeModel model;
        const std::vector<LogLikelihoods> results = log_likelihoods(tasks, model, comm, chunk_tokens);
        EXPECT_LE(model.longest_chunk, std::max<std::int64_t>(chunk_tokens, 9));
        ASSERT_EQ(results.size(), tasks.size());
        for (std::size_t t = 0; t < tasks.size(); ++t) {
            const Task& task = tasks[t];
            ASSERT_EQ(static_cast<std::int64_t>(results[t].total.size()), task.sequences.count());
            for (std::int64_t s = 0; s < task.sequences.count(); ++s) {
                const std::span<const std::int32_t> ids =
                    std::span(task.sequences.ids).subspan(task.sequences.offsets[s], task.sequences.length(s));
                double expected = 0;
                for (std::size_t token = task.scored_from[s]; token < ids.size(); ++token)
                    expected += log_probability(ids.first(token), ids[token]);
                EXPECT_EQ(results[t].total[s], expected) << task.name << " " << s;  // sums of multiples of 1/64: exact
                EXPECT_EQ(results[t].tokens[s], static_cast<std::int64_t>(ids.size()) - task.scored_from[s]);
                EXPECT_EQ(results[t].mean(s), expected / static_cast<double>(results[t].tokens[s]));
            }
        }
    });
}
// Chunks of one sequence, of a few, of all; as many ranks as chunks, fewer, more.
INSTANTIATE_TEST_SUITE_P(Sizes, LogLikelihoodsOverRanks,
                         ::testing::Combine(::testing::Values(1, 2, 3, 5, 20), ::testing::Values(1, 5, 9, 10, 8192)));

TEST(LogLikelihoods, OfNoTaskAreNone) {
    run_ranks(2, [](Communicator& comm) {
        FakeModel model;
        EXPECT_TRUE(log_likelihoods({}, model, comm).empty());
    });
}

TEST(LogLikelihoods, ThatAreNotFiniteAreRefused) {
    class Broken final : public TokenScorer {
        std::vector<std::vector<float>> score(std::span<const ChunkTokens>, std::span<const ScoredRows> rows) override {
            std::vector<std::vector<float>> result;
            for (const ScoredRows& chunk : rows)
                result.emplace_back(chunk.rows.size(), -1.0F);
            if (!result.empty()) result.back().back() = std::numeric_limits<float>::quiet_NaN();
            return result;
        }
    };
    const std::vector<Task> tasks{make_task("words", {4, 4, 4}, 0)};
    try {
        run_ranks(1, [&](Communicator& comm) {
            Broken model;
            log_likelihoods(tasks, model, comm);
        });
        FAIL() << "a log-probability of NaN was accepted";
    } catch (const Failure& error) {
        EXPECT_STREQ(error.what(), "task words: the log-probability of sequence 2 is not a finite number");
    }
}

}  // namespace
}  // namespace fairgptq
