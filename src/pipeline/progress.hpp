// What a run shows while it works: a bar with the time left on a terminal, a line per layer elsewhere, events in
// log.jsonl.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "pipeline/rank_times.hpp"
#include "run/run_directory.hpp"

namespace fairgptq {

class Progress {
  public:
    /// Shows nothing at ranks other than 0.
    Progress(PhaseClock& clock, std::int64_t layers, bool visible);

    PhaseClock& clock() { return clock_; }
    /// What comes next.
    void enter(Phase phase) { clock_.enter(phase); }
    void begin_layer(std::int64_t layer, bool replayed);
    /// A stage of the layer is done: moves the bar.
    void stage_done(int stage);
    /// This rank's time since begin_layer.
    RankTimes layer_times() const;
    /// Shows that the layer is done. `records`: those that this rank holds.
    void end_layer(std::span<const LayerRecord> records);
    /// The layer's event for log.jsonl. `record` is null where the layer was replayed.
    nlohmann::json layer_event(const LayerRecord* record, const std::vector<RankTimes>& ranks) const;
    /// Ends the bar's line.
    void close();

  private:
    using Clock = std::chrono::steady_clock;
    void draw(double layers_done);
    PhaseClock& clock_;
    std::int64_t layers_, layer_ = 0, first_solved_ = -1;
    bool visible_, terminal_, replayed_ = false;
    Clock::time_point solving_start_;
    RankTimes before_layer_;
};

}  // namespace fairgptq
