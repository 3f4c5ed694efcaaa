#include "pipeline/rank_times.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>

namespace fairgptq {
namespace {

/// Microseconds are more than a reader of the log needs.
double rounded(double seconds) {
    return std::round(seconds * 1e6) / 1e6;
}

double mean_of(const std::vector<RankTimes>& ranks, std::size_t phase) {
    double sum = 0;
    for (const RankTimes& rank : ranks)
        sum += rank.phases[phase];
    return sum / static_cast<double>(ranks.size());
}

double mean_elapsed(const std::vector<RankTimes>& ranks) {
    double sum = 0;
    for (const RankTimes& rank : ranks)
        sum += rank.elapsed;
    return std::max(sum / static_cast<double>(ranks.size()), 1e-9);
}

}  // namespace

std::vector<RankTimes> gather_times(Communicator& comm, const RankTimes& mine) {
    std::vector<RankTimes> all(static_cast<std::size_t>(comm.size()));
    const std::vector<std::size_t> sizes(all.size(), sizeof(RankTimes));
    comm.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), sizes);
    return all;
}

double accounted(const std::vector<RankTimes>& ranks) {
    double least = 1;
    for (const RankTimes& rank : ranks)
        if (rank.elapsed > 0)
            least = std::min(least, std::accumulate(rank.phases.begin(), rank.phases.end(), 0.0) / rank.elapsed);
    return least;
}

void add_times(nlohmann::json& event, const std::vector<RankTimes>& ranks) {
    for (std::size_t phase = 0; phase < phase_names.size(); ++phase) {
        event["phases"][phase_names[phase]] = rounded(mean_of(ranks, phase));
        if (ranks.size() == 1) continue;
        nlohmann::json& row = event["ranks"][phase_names[phase]] = nlohmann::json::array();
        for (const RankTimes& rank : ranks)
            row.push_back(rounded(rank.phases[phase]));
    }
    event["accounted"] = rounded(accounted(ranks));
}

std::string times_text(const std::vector<RankTimes>& ranks) {
    const double elapsed = mean_elapsed(ranks);
    std::string text;
    for (std::size_t phase = 0; phase < phase_names.size(); ++phase)
        if (const double share = 100 * mean_of(ranks, phase) / elapsed; share >= 0.1)
            text += fmt::format("{}{} {:.1f} %", text.empty() ? "" : ", ", phase_names[phase], share);
    if (ranks.size() > 1) {
        const auto wait = static_cast<std::size_t>(Phase::all_reduce);
        const auto most = std::max_element(ranks.begin(), ranks.end(), [wait](const auto& a, const auto& b) {
            return a.phases[wait] < b.phases[wait];
        });
        text += fmt::format("; waiting in all-reduce: most at rank {} ({:.1f} %)", most - ranks.begin(),
                            100 * most->phases[wait] / elapsed);
    }
    return text + fmt::format("; {:.1f} % accounted for", 100 * accounted(ranks));
}

}  // namespace fairgptq
