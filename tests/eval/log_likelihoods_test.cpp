#include "eval/log_likelihoods.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>

#include "support/error.hpp"
#include "support_files/temporary_folder.hpp"
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

/// Whether it is the most probable token: any function of both, true of most tokens.
bool is_greedy(std::span<const std::int32_t> prefix, std::int32_t target) {
    return log_probability(prefix, target) < -2;
}

/// Scores as a model would: a row sees its own sequence up to itself.
class FakeModel final : public TokenScorer {
  public:
    std::int64_t longest_chunk = 0;
    std::int64_t tokens = 0;  // computed
    std::int64_t calls = 0;
    bool shares = true;

    std::vector<RowScores> score(std::span<const ChunkTokens> chunks, std::span<const ScoredRows> rows,
                                 const ShareDone& progress) override {
        std::vector<RowScores> result;
        ++calls;
        EXPECT_EQ(chunks.size(), rows.size());
        for (std::size_t c = 0; c < chunks.size(); ++c) {
            const ChunkTokens& chunk = chunks[c];
            longest_chunk = std::max(longest_chunk, chunk.tokens());
            tokens += chunk.tokens();
            EXPECT_EQ(rows[c].rows.size(), rows[c].targets.size());
            RowScores& scores = result.emplace_back();
            for (std::size_t i = 0; i < rows[c].rows.size(); ++i) {
                const auto prefix = tokens_up_to(chunk, rows[c].rows[i]);
                scores.log_probabilities.push_back(log_probability(prefix, rows[c].targets[i]));
                scores.greedy.push_back(is_greedy(prefix, rows[c].targets[i]) ? 1 : 0);
            }
        }
        if (progress) progress(1);
        return result;
    }
    bool shares_prefixes() const override { return shares; }

  private:
    /// What a row's token sees, and the token.
    static std::vector<std::int32_t> tokens_up_to(const ChunkTokens& chunk, std::int32_t row) {
        const auto sequence =
            std::upper_bound(chunk.offsets.begin(), chunk.offsets.end(), row) - chunk.offsets.begin() - 1;
        std::vector<std::int32_t> seen;
        const auto see = [&](RowRange rows) {
            seen.insert(seen.end(), chunk.ids.begin() + rows.begin, chunk.ids.begin() + rows.end);
        };
        if (!chunk.prefixes.empty()) see(chunk.prefixes[static_cast<std::size_t>(sequence)]);
        see({chunk.offsets[static_cast<std::size_t>(sequence)], row + 1});
        return seen;
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

/// Items of several sequences that begin alike: a context of `context` tokens, then a choice of 1 … 4.
Task make_choices(std::int64_t items, std::int64_t context) {
    Task task;
    task.name = "choices";
    for (std::int64_t item = 0; item < items; ++item)
        for (std::int64_t choice = 0; choice < 3; ++choice) {
            for (std::int64_t token = 0; token < context; ++token)
                task.sequences.ids.push_back(static_cast<std::int32_t>((item * 7 + token) % 40));
            for (std::int64_t token = 0; token <= (item + choice) % 4; ++token)
                task.sequences.ids.push_back(static_cast<std::int32_t>((item * 5 + choice * 11 + token) % 50));
            task.sequences.offsets.push_back(task.sequences.tokens());
            // Some are scored from within what is shared.
            task.scored_from.push_back(static_cast<std::int32_t>(item % 2 == 0 ? context : 1 + item % (context - 1)));
            task.item.push_back(static_cast<std::int32_t>(item));
            task.role.push_back(static_cast<std::int32_t>(choice));
        }
    task.items = items;
    return task;
}

/// What the scores must be, sequence by sequence.
void expect_right(std::span<const Task> tasks, const std::vector<LogLikelihoods>& results) {
    ASSERT_EQ(results.size(), tasks.size());
    for (std::size_t t = 0; t < tasks.size(); ++t) {
        const Task& task = tasks[t];
        ASSERT_EQ(static_cast<std::int64_t>(results[t].total.size()), task.sequences.count());
        for (std::int64_t s = 0; s < task.sequences.count(); ++s) {
            const std::span<const std::int32_t> ids =
                std::span(task.sequences.ids).subspan(task.sequences.offsets[s], task.sequences.length(s));
            double expected = 0;
            bool greedy = true;
            for (std::size_t token = task.scored_from[s]; token < ids.size(); ++token) {
                expected += log_probability(ids.first(token), ids[token]);
                greedy = greedy && is_greedy(ids.first(token), ids[token]);
            }
            EXPECT_EQ(results[t].total[s], expected) << task.name << " " << s;  // sums of multiples of 1/64: exact
            EXPECT_EQ(results[t].greedy[s], greedy ? 1 : 0) << task.name << " " << s;
            EXPECT_EQ(results[t].tokens[s], static_cast<std::int64_t>(ids.size()) - task.scored_from[s]);
            EXPECT_EQ(results[t].mean(s), expected / static_cast<double>(results[t].tokens[s]));
        }
    }
}

std::vector<Task> several_tasks() {
    return {make_task("first", {2, 5, 3, 9, 2, 2, 4}, 1), make_task("second", {6}, 2), make_choices(7, 6),
            make_task("third", {3, 3, 3, 3, 3, 3, 3, 3, 3}, 3)};
}

class LogLikelihoodsOverRanks : public ::testing::TestWithParam<std::tuple<int, std::int64_t>> {};

TEST_P(LogLikelihoodsOverRanks, AreSumsOverEachSequencesScoredTokens) {
    const auto [ranks, chunk_tokens] = GetParam();
    const std::vector<Task> tasks = several_tasks();
    run_ranks(ranks, [&](Communicator& comm) {
        for (const bool shares : {true, false}) {
            FakeModel model;
            model.shares = shares;
            ScoreOptions options;
            options.chunk_tokens = chunk_tokens;
            options.chunks_in_a_pass = 2;
            double progress = 0;
            options.progress = [&](double share) {
                EXPECT_GE(share, progress);
                progress = share;
            };
            expect_right(tasks, log_likelihoods(tasks, model, comm, options));
            EXPECT_LE(model.longest_chunk, std::max<std::int64_t>(chunk_tokens, 9));
            if (comm.rank() == 0) {
                EXPECT_EQ(progress, 1);
            }
        }
    });
}
// Chunks of one sequence, of a few, of all; as many ranks as chunks, fewer, more.
INSTANTIATE_TEST_SUITE_P(Sizes, LogLikelihoodsOverRanks,
                         ::testing::Combine(::testing::Values(1, 2, 3, 5, 20), ::testing::Values(1, 5, 9, 10, 8192)));

TEST(LogLikelihoods, ComputeWhatIsSharedOnceAndNoLastToken) {
    // Items of 20 shared tokens and 3 choices of 1, 2, 3, 4 tokens in turn, of which the last is not computed.
    const std::vector<Task> tasks{make_choices(8, 20)};
    run_ranks(1, [&](Communicator& comm) {
        FakeModel model;
        expect_right(tasks, log_likelihoods(tasks, model, comm));
        const std::int64_t choices = 2 * (0 + 1 + 2 + 1 + 2 + 3 + 2 + 3 + 0 + 3 + 0 + 1);
        EXPECT_EQ(model.tokens, 8 * 20 + choices);
        FakeModel plain;
        plain.shares = false;
        expect_right(tasks, log_likelihoods(tasks, plain, comm));
        EXPECT_EQ(plain.tokens, 3 * 8 * 20 + choices);
    });
}

TEST(LogLikelihoods, ShareOnlyWhatPaysAndWithinAnItem) {
    // Two sequences with 12 tokens in common, then one with 3 of these: it is left alone. The next item begins alike.
    Task task;
    task.name = "uneven";
    const auto add = [&](std::int64_t alike, std::int64_t more, std::int32_t item, std::int32_t role) {
        for (std::int64_t token = 0; token < alike + more; ++token)
            task.sequences.ids.push_back(static_cast<std::int32_t>(token < alike ? token : 30 + role + token));
        task.sequences.offsets.push_back(task.sequences.tokens());
        task.scored_from.push_back(1);
        task.item.push_back(item);
        task.role.push_back(role);
    };
    add(12, 2, 0, 0);
    add(12, 3, 0, 1);
    add(3, 5, 0, 2);
    add(12, 2, 1, 0);
    task.items = 2;
    const std::vector<Task> tasks{task};
    run_ranks(1, [&](Communicator& comm) {
        FakeModel model;
        expect_right(tasks, log_likelihoods(tasks, model, comm));
        EXPECT_EQ(model.tokens, 12 + 1 + 2 + 7 + 13);
    });
}

TEST(LogLikelihoods, GoOnFromAJournal) {
    const testing::TemporaryFolder folder;
    const std::vector<Task> tasks = several_tasks();
    ScoreOptions options;
    options.chunk_tokens = 5;
    options.chunks_in_a_pass = 1;
    for (const int ranks : {1, 3}) {
        std::filesystem::remove(folder / "scores");
        /// Fails in the third pass.
        class Failing final : public TokenScorer {
          public:
            FakeModel model;
            std::vector<RowScores> score(std::span<const ChunkTokens> chunks, std::span<const ScoredRows> rows,
                                         const ShareDone& progress) override {
                if (model.calls == 2) throw Failure("the power went");
                return model.score(chunks, rows, progress);
            }
            bool shares_prefixes() const override { return true; }
        };
        std::int64_t all_calls = 0;
        run_ranks(ranks, [&](Communicator& comm) {
            FakeModel whole;
            log_likelihoods(tasks, whole, comm, options);
            if (comm.rank() == 0) all_calls = whole.calls;
        });
        const auto with_journal = [&](TokenScorer& scorer, Communicator& comm, const std::string& name) {
            std::optional<ScoreJournal> journal;
            if (comm.rank() == 0) journal.emplace(folder / "scores", name);
            ScoreOptions kept = options;
            kept.journal = journal ? &*journal : nullptr;
            return log_likelihoods(tasks, scorer, comm, kept);
        };
        EXPECT_THROW(run_ranks(ranks,
                               [&](Communicator& comm) {
                                   Failing failing;
                                   with_journal(failing, comm, "mine");
                               }),
                     Failure);
        std::ofstream(folder / "scores", std::ios::app) << "{\"chunk\": 3, \"tot";  // an interrupted write
        run_ranks(ranks, [&](Communicator& comm) {
            FakeModel rest;
            expect_right(tasks, with_journal(rest, comm, "mine"));
            if (comm.rank() == 0) {
                EXPECT_EQ(rest.calls, all_calls - 2);
            }
        });
        run_ranks(ranks, [&](Communicator& comm) {
            FakeModel nothing_left;
            expect_right(tasks, with_journal(nothing_left, comm, "mine"));
            EXPECT_EQ(nothing_left.calls, 0);
        });
        run_ranks(ranks, [&](Communicator& comm) {
            FakeModel other;
            expect_right(tasks, with_journal(other, comm, "another model"));
            if (comm.rank() == 0) {
                EXPECT_EQ(other.calls, all_calls);
            }
        });
    }
}

TEST(ScoreJournal, IsReadUpToWhatIsNotWhole) {
    const testing::TemporaryFolder folder;
    const auto path = folder / "scores";
    {
        ScoreJournal journal(path, "mine");
        journal.add({{2, {{-1.0 / 3, 1}, {-2.5, 0}}}, {7, {{-1e-300, 1}}}});
        journal.add({{0, {{-4, 0}}}});
    }
    const auto whole = std::filesystem::file_size(path);
    for (const char* damage : {"", "{", "{\"chunk\":1}\n", "{\"chunk\":-1,\"total\":[],\"greedy\":[]}\n",
                               "{\"chunk\":1,\"total\":[\"a\"],\"greedy\":[1]}\n", "\n\n"}) {
        std::ofstream(path, std::ios::app) << damage;
        const ScoreJournal journal(path, "mine");
        ASSERT_EQ(journal.finished().size(), 3U) << damage;
        EXPECT_EQ(journal.finished().at(2), (std::vector<SequenceScore>{{-1.0 / 3, 1}, {-2.5, 0}}));
        EXPECT_EQ(journal.finished().at(7), (std::vector<SequenceScore>{{-1e-300, 1}}));
        EXPECT_EQ(std::filesystem::file_size(path), whole);
    }
    EXPECT_TRUE(ScoreJournal(path, "other").finished().empty());
    std::ofstream(path) << "not a journal";
    ScoreJournal journal(path, "mine");
    EXPECT_TRUE(journal.finished().empty());
    journal.remove();
    EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(LogLikelihoods, OfNoTaskAreNone) {
    run_ranks(2, [](Communicator& comm) {
        FakeModel model;
        EXPECT_TRUE(log_likelihoods({}, model, comm).empty());
    });
}

TEST(LogLikelihoods, ThatAreNotFiniteAreRefused) {
    class Broken final : public TokenScorer {
        std::vector<RowScores> score(std::span<const ChunkTokens>, std::span<const ScoredRows> rows,
                                     const ShareDone&) override {
            std::vector<RowScores> result;
            for (const ScoredRows& chunk : rows)
                result.push_back(
                    {std::vector<float>(chunk.rows.size(), -1.0F), std::vector<std::uint8_t>(chunk.rows.size(), 0)});
            if (!result.empty()) result.back().log_probabilities.back() = std::numeric_limits<float>::quiet_NaN();
            return result;
        }
        bool shares_prefixes() const override { return false; }
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
