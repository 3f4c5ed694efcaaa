// What a run shows while it works: a bar with the time left on a terminal, a line per layer elsewhere, events in
// log.jsonl.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "run/run_directory.hpp"

namespace fairgptq {

/// Where a layer's time goes.
enum class Phase : std::uint8_t { read, forward, statistics, reduce, solve, write };
constexpr std::array<const char*, 6> phase_names{"read", "forward", "statistics", "reduce", "solve", "write"};

class Progress {
  public:
    /// Shows nothing at ranks other than 0.
    Progress(std::int64_t layers, bool visible);

    /// Adds the time since the last call (or since begin_layer) to a phase.
    void spent(Phase phase);
    void begin_layer(std::int64_t layer, bool replayed);
    /// A stage of the layer is done: moves the bar.
    void stage_done(int stage);
    /// @returns the layer's event for log.jsonl
    nlohmann::json end_layer(const LayerRecord* record);
    /// Ends the bar's line.
    void close();
    double seconds() const;

  private:
    using Clock = std::chrono::steady_clock;
    void draw(double layers_done);
    std::int64_t layers_, layer_ = 0, first_solved_ = -1;
    bool visible_, terminal_, replayed_ = false;
    Clock::time_point start_, layer_start_, mark_, solving_start_;
    std::array<double, phase_names.size()> spent_{};
};

}  // namespace fairgptq
