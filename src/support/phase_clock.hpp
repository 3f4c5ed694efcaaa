// Where a rank's time goes.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

namespace fairgptq {

/// What a rank can be busy with: all of a run's time is one of these.
enum class Phase : std::uint8_t {
    setup,       // options, checks, hashing the model, measuring the machine
    read,        // waiting for the next layer's weights (or its file, when it is replayed)
    forward,     // the model's own matrix products
    covariance,  // H and C of this rank's tokens
    all_reduce,  // the sums of H and C over ranks; waiting for slower ranks included
    factor,      // H + alpha·C factored and inverted
    columns,     // the debiased target and the column loop
    figures,     // reconstruction and bias, before and after
    exchange,    // every other collective: codes, figures, whether to stop; waiting included
    write        // waiting for the last layer's file to be safe
};
constexpr std::array phase_names{"setup",  "read",    "forward", "covariance", "all_reduce",
                                 "factor", "columns", "figures", "exchange",   "write"};
using PhaseSeconds = std::array<double, phase_names.size()>;

/// A stopwatch with one hand: each call charges the time since the call before it to a phase, so nothing is left out or
/// counted twice.
class PhaseClock {
  public:
    /// @param settle waits for what a device still computes, so that its time is charged to the phase that asked for it
    explicit PhaseClock(std::function<void()> settle = {}) : settle_(std::move(settle)) {}
    void settle_with(std::function<void()> settle) { settle_ = std::move(settle); }

    void spent(Phase phase) {
        if (settle_) settle_();
        const auto now = Clock::now();
        seconds_[static_cast<std::size_t>(phase)] += std::chrono::duration<double>(now - mark_).count();
        mark_ = now;
    }
    /// By phase, since the clock was made.
    const PhaseSeconds& seconds() const { return seconds_; }
    /// Since the clock was made, charged to a phase or not.
    double elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  private:
    using Clock = std::chrono::steady_clock;
    std::function<void()> settle_;
    Clock::time_point start_ = Clock::now(), mark_ = start_;
    PhaseSeconds seconds_{};
};

}  // namespace fairgptq
