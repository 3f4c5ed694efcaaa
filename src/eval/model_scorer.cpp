#include "eval/model_scorer.hpp"

#include <algorithm>

namespace fairgptq {

std::vector<RowScores> ModelScorer::score(std::span<const ChunkTokens> chunks, std::span<const ScoredRows> rows,
                                          const ShareDone& progress) {
    std::vector<RowScores> result(chunks.size());
    if (chunks.empty()) return result;
    Backend& backend = model_.backend;
    const DType type = backend.activation_type();
    const std::int64_t vocabulary = model_.family.config.vocab_size;
    const Buffer memory =
        backend.allocate(static_cast<std::size_t>(Decoder::max_logit_rows * vocabulary) * size_of(type));
    const auto score_chunk = [&](const FinishedChunk& chunk) {
        const std::span<const std::int32_t> wanted(rows[chunk.index].rows);
        const std::span<const std::int32_t> targets(rows[chunk.index].targets);
        RowScores& scores = result[chunk.index];
        scores.log_probabilities.resize(wanted.size());
        std::vector<std::int32_t> best(wanted.size());
        for (std::size_t first = 0; first < wanted.size(); first += Decoder::max_logit_rows) {
            const std::size_t count = std::min<std::size_t>(Decoder::max_logit_rows, wanted.size() - first);
            const TensorView logits = memory.tensor(type, static_cast<std::int64_t>(count), vocabulary);
            chunk.decoder.logits(chunk.outer, chunk.state, wanted.subspan(first, count), logits);
            backend.token_log_probabilities(logits, targets.subspan(first, count),
                                            std::span(scores.log_probabilities).subspan(first, count),
                                            std::span(best).subspan(first, count));
        }
        for (std::size_t row = 0; row < best.size(); ++row)
            scores.greedy.push_back(best[row] == targets[row] ? 1 : 0);
    };
    // Logits cost about what a few layers do.
    const double steps = static_cast<double>(model_.family.config.layers) + 3;
    run_model(model_, chunks, score_chunk, [&](std::int64_t layer) {
        if (progress) progress(static_cast<double>(layer + 1) / steps);
    });
    if (progress) progress(1);
    return result;
}

}  // namespace fairgptq
