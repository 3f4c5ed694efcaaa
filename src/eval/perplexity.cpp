#include <cmath>
#include <numeric>

#include "eval/metrics.hpp"

namespace fairgptq {

TaskReport perplexity(const Task& task, const LogLikelihoods& scores) {
    const double total = std::accumulate(scores.total.begin(), scores.total.end(), 0.0);
    const std::int64_t tokens = std::accumulate(scores.tokens.begin(), scores.tokens.end(), std::int64_t{0});
    return {{"kind", task.kind},
            {"perplexity", std::exp(-total / static_cast<double>(tokens))},
            {"tokens", tokens},
            {"sequences", task.sequences.count()}};
}

}  // namespace fairgptq
