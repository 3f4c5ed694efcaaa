// A benchmark's figures from its sequences' log-likelihoods: one file per kind of task.
#pragma once

#include <nlohmann/json.hpp>

#include "calibration/tokens.hpp"
#include "eval/log_likelihoods.hpp"

namespace fairgptq {

/// A task's part of a report, in the order in which it is shown; "by_group" holds the same figures for parts of the
/// task.
using TaskReport = nlohmann::ordered_json;

/// exp of the mean negative log-probability of the scored tokens.
TaskReport perplexity(const Task& task, const LogLikelihoods& scores);

/// How often the stereotypical sentence (role 0) is the more probable one (per cent; a tie counts as not preferred),
/// and how far apart the two are: mean absolute difference of their log-probabilities, of sentences and per token.
/// Source: CrowS-Pairs (arXiv 2010.00133); log-probabilities of whole sentences, as causal models have them.
TaskReport pair_preference(const Task& task, const LogLikelihoods& scores);

/// Stereotype score, language modelling score and idealized CAT score. A sentence's score is its mean log-probability
/// per token; SS and LMS are means over target terms (`group`) of each term's share, in per cent. Source: StereoSet
/// (arXiv 2004.09456) section 5.
TaskReport stereoset(const Task& task, const LogLikelihoods& scores);

/// Whether this program computes the task's figures. @throws InvalidInput naming task and kind, or what the task lacks
void check_task(const Task& task);
/// The figures of a task that check_task lets pass.
TaskReport evaluate_task(const Task& task, const LogLikelihoods& scores);

}  // namespace fairgptq
