#include "eval/model_scorer.hpp"

#include <algorithm>

namespace fairgptq {

std::vector<std::vector<float>> ModelScorer::score(std::span<const ChunkTokens> chunks,
                                                   std::span<const ScoredRows> rows) {
    std::vector<std::vector<float>> result(chunks.size());
    if (chunks.empty()) return result;
    Backend& backend = model_.backend;
    const DType type = backend.activation_type();
    const std::int64_t vocabulary = model_.family.config.vocab_size;
    const Buffer memory =
        backend.allocate(static_cast<std::size_t>(Decoder::max_logit_rows * vocabulary) * size_of(type));
    run_model(model_, chunks, [&](const FinishedChunk& chunk) {
        const std::span<const std::int32_t> wanted(rows[chunk.index].rows);
        const std::span<const std::int32_t> targets(rows[chunk.index].targets);
        std::vector<float>& scores = result[chunk.index];
        scores.resize(wanted.size());
        for (std::size_t first = 0; first < wanted.size(); first += Decoder::max_logit_rows) {
            const std::size_t count = std::min<std::size_t>(Decoder::max_logit_rows, wanted.size() - first);
            const TensorView logits = memory.tensor(type, static_cast<std::int64_t>(count), vocabulary);
            chunk.decoder.logits(chunk.outer, chunk.state, wanted.subspan(first, count), logits);
            backend.token_log_probabilities(logits, targets.subspan(first, count),
                                            std::span(scores).subspan(first, count));
        }
    });
    return result;
}

}  // namespace fairgptq
