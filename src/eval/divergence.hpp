// Divergent Token Metrics: where another model would leave the original's greedy continuations. Source: arXiv
// 2311.01544.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.hpp"
#include "eval/log_likelihoods.hpp"

namespace fairgptq {

/// Per prompt: the first token of the continuation that the other model would not have chosen (as many as there are
/// tokens where it would have chosen all), and the share of tokens that it would not have chosen, each after the
/// original's tokens before it.
struct Divergence {
    std::vector<std::int64_t> first;
    std::vector<double> share;
    double first_mean() const;
    double first_median() const;  // of an even number the mean of the middle two
    double share_mean() const;
};

/// Checks this rank's prompts in one pass over their original continuations, and gathers all ranks'.
/// @param sequences [this rank's prompts]: a prompt of `prompt_tokens` tokens and its continuation of at least one
/// token
/// @returns all ranks' prompts, rank after rank
Divergence measure_divergence(std::span<const std::vector<std::int32_t>> sequences, std::int64_t prompt_tokens,
                              TokenScorer& scorer, Communicator& comm);

/// Divergence by module, in the order in which they were measured.
using DivergenceByModule = std::vector<std::pair<std::string, Divergence>>;

/// {"format": "fairgptq-divergence", "version": 1, "model", "other", "prompts", "continuation_tokens",
///  "first_divergent_token": [prompts], "divergent_share": [prompts], "fdt_mean", "fdt_median", "sdt_mean",
///  "by_module": {MODULE: {"fdt_mean", "sdt_mean"}}}, the last where there is any
nlohmann::ordered_json divergence_report(const std::string& model, const std::string& other, std::int64_t tokens,
                                         const Divergence& divergence, const DivergenceByModule& by_module);

/// For people: the model's line, then modules from the one that diverges first.
std::string divergence_table(const Divergence& divergence, DivergenceByModule by_module);

}  // namespace fairgptq
