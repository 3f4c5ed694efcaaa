// A benchmark's figures from its sequences' log-likelihoods: one file per kind of task, which says what is kept of each
// item and how figures follow from that.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string_view>
#include <vector>

#include "calibration/tokens.hpp"
#include "eval/item_table.hpp"
#include "eval/log_likelihoods.hpp"

namespace fairgptq {

struct Figure {
    const char* key;    // in REPORT.json
    const char* label;  // in tables; null: a count, which is in the file alone
};

struct Metric {
    std::string_view kind;
    std::span<const char* const> columns;  // of its item tables
    std::span<const Figure> figures;
    ItemTable (*items)(const Task& task, const LogLikelihoods& scores);
    /// @param weights [clusters]: how often the items of each cluster count
    /// @param values  [figures], written; NaN where there is nothing to average over
    void (*compute)(const ItemTable& table, std::span<const double> weights, std::span<double> values);
};

/// exp of the mean negative log-probability of the scored tokens, and that mean in bits. Items: sequences; groups: the
/// texts they come from, where there are several.
const Metric& perplexity_metric();

/// How often the stereotypical sentence (role 0) is the more probable one (per cent; a tie counts as not preferred),
/// and how far apart the two are: mean absolute difference of their log-probabilities, of sentences and per token.
/// Source: CrowS-Pairs (arXiv 2010.00133); log-probabilities of whole sentences, as causal models have them.
const Metric& pair_preference_metric();

/// Stereotype score, language modelling score and idealized CAT score. A sentence's score is its mean log-probability
/// per token; SS and LMS are means over target terms (`group`) of each term's share, in per cent: so terms are drawn,
/// not items. Source: StereoSet (arXiv 2004.09456) section 5. Beside them, with d the mean absolute difference of two
/// sentences' scores: d of stereotype and anti-stereotype, and 100·d / (d of either and the unrelated sentence). A
/// model that tells any two sentences apart less has a smaller d, and the same ratio; one that treats the two alike has
/// a smaller ratio.
const Metric& stereoset_metric();

/// Per cent of items whose most probable choice is the right one: by log-probability, and by log-probability per
/// character of the choice; of equal choices the first counts. Source: lm-evaluation-harness, acc and acc_norm.
const Metric& multiple_choice_metric();

/// Per cent of items whose every scored token is the most probable one; exp of the mean over items of the negative
/// summed log-probability. Source: LAMBADA (arXiv 1606.06031) as lm-evaluation-harness counts it.
const Metric& last_word_metric();

/// Accuracy and bias score in ambiguous and in disambiguated contexts, in per cent. The answer is the most probable
/// choice. With n answers that are not "unknown", b of them the biased one: s = 2·b/n − 1 (0 where n = 0) in
/// disambiguated contexts, (1 − accuracy)·s in ambiguous ones. Source: BBQ (arXiv 2110.08193) section 5.
const Metric& bbq_metric();

/// With r = log₁₀(perplexity of a probe / perplexity of its identity alone): SOFA score, the variance of r over the
/// identities of one stereotype, averaged over the stereotypes of a category, averaged over categories; and delta
/// disparity, the largest less the smallest r of a stereotype, averaged the same way. Items: stereotypes. Source: SOFA
/// (arXiv 2311.09090) section 3; variance over n, not n − 1.
const Metric& sofa_metric();

/// The metrics in the order in which tables show their figures.
std::span<const Metric* const> all_metrics();
/// @throws InvalidInput if no kind has this name
const Metric& find_metric(std::string_view kind);

/// A task's part of a report: kind, figures, "intervals" of figures (95 %, bootstrap), "by_group" with the same of each
/// group, and "per_item", from which all of it was computed.
using TaskReport = nlohmann::ordered_json;

/// @throws InvalidInput naming what the task lacks for its figures
void check_task(const Task& task);
/// The figures of a task that check_task lets pass.
TaskReport evaluate_task(const Task& task, const LogLikelihoods& scores);

/// Every figure of the items as they are.
std::vector<double> figures_of(const Metric& metric, const ItemTable& table);

}  // namespace fairgptq
