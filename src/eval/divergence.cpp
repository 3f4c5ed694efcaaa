#include "eval/divergence.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "support/error.hpp"
#include "support/table.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t chunk_tokens = 8192;

/// The continuations as a task: every token of them is scored.
Task continuations(std::span<const std::vector<std::int32_t>> sequences, std::int64_t prompt_tokens) {
    Task task;
    task.name = "continuations";
    for (const std::vector<std::int32_t>& sequence : sequences) {
        task.sequences.ids.insert(task.sequences.ids.end(), sequence.begin(), sequence.end());
        task.sequences.offsets.push_back(task.sequences.tokens());
        task.scored_from.push_back(static_cast<std::int32_t>(prompt_tokens));
    }
    return task;
}

struct PromptResult {
    std::int64_t first = 0;
    double share = 0;
};

std::vector<PromptResult> check(const Task& task, TokenScorer& scorer) {
    const std::vector<ScoreChunk> chunks = plan_scores(std::span(&task, 1), chunk_tokens, false);
    std::vector<ChunkTokens> tokens;
    std::vector<ScoredRows> rows;
    for (const ScoreChunk& chunk : chunks) {
        tokens.push_back(chunk.tokens);
        rows.push_back(chunk.rows);
    }
    const std::vector<RowScores> scores = scorer.score(tokens, rows, {});
    std::vector<PromptResult> results;
    for (std::size_t index = 0; index < chunks.size(); ++index) {
        auto place = chunks[index].places.begin();
        for (std::int64_t s = 0; s < chunks[index].sequences; ++s) {
            const std::int64_t count = scored_tokens(task, chunks[index].first + s);
            PromptResult result{count, 0};
            for (std::int64_t token = 0; token < count; ++token, ++place) {
                if (scores[index].greedy.at(static_cast<std::size_t>(*place)) != 0) continue;
                result.first = std::min(result.first, token);
                result.share += 1.0 / static_cast<double>(count);
            }
            results.push_back(result);
        }
    }
    return results;
}

double mean(const auto& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

double Divergence::first_mean() const {
    return mean(first);
}

double Divergence::share_mean() const {
    return mean(share);
}

double Divergence::first_median() const {
    std::vector<std::int64_t> sorted = first;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t middle = sorted.size() / 2;
    if (sorted.size() % 2 == 1) return static_cast<double>(sorted[middle]);
    return static_cast<double>(sorted[middle - 1] + sorted[middle]) / 2;
}

Divergence measure_divergence(std::span<const std::vector<std::int32_t>> sequences, std::int64_t prompt_tokens,
                              TokenScorer& scorer, Communicator& comm) {
    std::vector<PromptResult> mine;
    if (!sequences.empty()) mine = check(continuations(sequences, prompt_tokens), scorer);
    std::vector<std::int64_t> counts(static_cast<std::size_t>(comm.size()));
    const auto count = static_cast<std::int64_t>(mine.size());
    comm.all_gather(std::as_bytes(std::span(&count, 1)), std::as_writable_bytes(std::span(counts)),
                    std::vector<std::size_t>(counts.size(), sizeof(count)));
    std::vector<std::size_t> sizes;
    for (const std::int64_t prompts : counts)
        sizes.push_back(static_cast<std::size_t>(prompts) * sizeof(PromptResult));
    std::vector<PromptResult> all(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}) / sizeof(PromptResult));
    comm.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)), sizes);
    Divergence divergence;
    for (const PromptResult& result : all) {
        divergence.first.push_back(result.first);
        divergence.share.push_back(result.share);
    }
    return divergence;
}

nlohmann::ordered_json divergence_report(const std::string& model, const std::string& other, std::int64_t tokens,
                                         const Divergence& divergence, const DivergenceByModule& by_module) {
    nlohmann::ordered_json report{{"format", "fairgptq-divergence"},
                                  {"version", 1},
                                  {"model", model},
                                  {"other", other},
                                  {"prompts", divergence.first.size()},
                                  {"continuation_tokens", tokens},
                                  {"first_divergent_token", divergence.first},
                                  {"divergent_share", divergence.share},
                                  {"fdt_mean", divergence.first_mean()},
                                  {"fdt_median", divergence.first_median()},
                                  {"sdt_mean", divergence.share_mean()}};
    for (const auto& [module, measured] : by_module)
        report["by_module"][module] = {{"fdt_mean", measured.first_mean()}, {"sdt_mean", measured.share_mean()}};
    return report;
}

std::string divergence_table(const Divergence& divergence, DivergenceByModule by_module) {
    std::vector<std::vector<std::string>> rows{{"", "first divergent token", "median", "divergent tokens %"}};
    const auto add = [&](const std::string& name, const Divergence& measured) {
        rows.push_back({name, format_figure(measured.first_mean()), format_figure(measured.first_median()),
                        format_figure(100 * measured.share_mean())});
    };
    add("the whole model", divergence);
    std::stable_sort(by_module.begin(), by_module.end(),
                     [](const auto& a, const auto& b) { return a.second.first_mean() < b.second.first_mean(); });
    for (const auto& [module, measured] : by_module)
        add(module, measured);
    return format_table(rows);
}

}  // namespace fairgptq
