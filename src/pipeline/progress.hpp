// What a run shows while it works: a bar with the time left on a terminal, a line per layer elsewhere, events in
// log.jsonl.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <vector>

#include "pipeline/rank_times.hpp"
#include "run/run_directory.hpp"

namespace fairgptq {

class Progress {
  public:
    /// Shows nothing at ranks other than 0.
    /// @param work of each layer beside the others' (layer_work); empty: they are alike
    Progress(PhaseClock& clock, std::int64_t layers, bool visible, std::vector<double> work = {});

    PhaseClock& clock() { return clock_; }
    /// What comes next.
    void enter(Phase phase) { clock_.enter(phase); }
    /// @param missing layers that are to be solved from this one on
    void begin_layer(std::int64_t layer, bool replayed, std::int64_t missing);
    /// So much of the layer is done, of 1: moves the bar.
    void layer_done(double share);
    /// This rank's time since begin_layer.
    RankTimes layer_times() const;
    /// Shows that the layer is done. `records`: those that this rank holds.
    void end_layer(std::span<const LayerRecord> records);
    /// The layer's event for log.jsonl. `record` is null where the layer was replayed.
    nlohmann::json layer_event(const LayerRecord* record, const std::vector<RankTimes>& ranks) const;
    /// Ends the bar's line.
    void close();

  private:
    /// @param share of the layer that is done
    void draw(double share);
    PhaseClock& clock_;
    double work_of(std::int64_t layer) const { return work_.empty() ? 1 : work_[static_cast<std::size_t>(layer)]; }
    std::int64_t layers_, layer_ = 0, missing_ = 0;
    bool visible_, terminal_, replayed_ = false;
    std::vector<double> work_;
    double work_solved_ = 0, seconds_solving_ = 0;  // of the layers that are solved
    RankTimes before_layer_;
};

}  // namespace fairgptq
