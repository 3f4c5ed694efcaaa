// A checkpoint, or a run's quantized weights in its place, as a scorer of tokens.
#pragma once

#include "eval/log_likelihoods.hpp"
#include "model/forward.hpp"

namespace fairgptq {

/// Logits are made for the scored rows alone, and of few at a time: vocabularies are large.
class ModelScorer final : public TokenScorer {
  public:
    explicit ModelScorer(ForwardModel model) : model_(std::move(model)) {}
    std::vector<RowScores> score(std::span<const ChunkTokens> chunks, std::span<const ScoredRows> rows,
                                 const ShareDone& progress = {}) override;
    bool shares_prefixes() const override { return true; }

  private:
    ForwardModel model_;
};

}  // namespace fairgptq
