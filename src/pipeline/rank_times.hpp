// Where every rank's time went: for the log, and for the line at a run's end.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "support/phase_clock.hpp"

namespace fairgptq {

struct RankTimes {
    PhaseSeconds phases{};
    double elapsed = 0;
};

/// Every rank's times, in rank order, at every rank (a collective).
std::vector<RankTimes> gather_times(Communicator& comm, const RankTimes& mine);

/// The smallest share of its time that a rank's phases add up to.
double accounted(const std::vector<RankTimes>& ranks);

/// Adds "phases" {name: mean over ranks, in seconds}, "accounted", and for several ranks "ranks" {name: [seconds of
/// rank 0, of rank 1, …]}.
void add_times(nlohmann::json& event, const std::vector<RankTimes>& ranks);

/// "forward 41.0 %, …; waiting in all-reduce: most at rank 1 (5.0 %); 99.9 % accounted for", phases under 0.1 % left
/// out.
std::string times_text(const std::vector<RankTimes>& ranks);

}  // namespace fairgptq
