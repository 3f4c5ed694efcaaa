// Where a rank's time goes.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "support/timeline.hpp"

namespace fairgptq {

/// What a rank can be busy with: all of a run's time is one of these.
enum class Phase : std::uint8_t {
    setup,       // options, checks, measuring the machine
    read,        // waiting for the next layer's weights (or its file, when it is replayed)
    forward,     // the model's own matrix products
    covariance,  // H and C of this rank's tokens
    all_reduce,  // the sums of H and C over ranks; waiting for slower ranks included
    factor,      // H + alpha·C factored and inverted
    columns,     // the debiased target, the column loop, its result in the weights' place
    figures,     // reconstruction and bias, before and after
    exchange,    // every other collective: codes, figures, whether to stop; waiting included
    write        // waiting for the last layer's file to be safe
};
constexpr std::array phase_names{"setup",  "read",    "forward", "covariance", "all_reduce",
                                 "factor", "columns", "figures", "exchange",   "write"};
using PhaseSeconds = std::array<double, phase_names.size()>;

/// A stopwatch with one hand: each call names what comes next, and charges the time since the call before it to what
/// that one had named, so nothing is left out or counted twice. It begins with `setup`.
class PhaseClock {
  public:
    /// @param settle waits for what a device still computes, so that its time is charged to the phase that asked for it
    explicit PhaseClock(std::function<void()> settle = {}) : settle_(std::move(settle)) {}
    void settle_with(std::function<void()> settle) { settle_ = std::move(settle); }

    void enter(Phase next) {
        charge();
        if (next == phase_) return;
        end_phase();
        phase_ = next;
        begin_phase();
    }
    /// Charges the time until now to the current phase, which goes on.
    void charge() {
        if (settle_) settle_();
        const auto now = Clock::now();
        seconds_[static_cast<std::size_t>(phase_)] += std::chrono::duration<double>(now - mark_).count();
        mark_ = now;
    }
    /// By phase, since the clock was made.
    const PhaseSeconds& seconds() const { return seconds_; }
    /// Since the clock was made, charged to a phase or not.
    double elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

    /// While it lives, phases are ranges on a timeline. A null timeline shows nothing.
    class Shown {
      public:
        Shown(PhaseClock& clock, std::unique_ptr<Timeline> timeline) : clock_(clock), timeline_(std::move(timeline)) {
            clock_.timeline_ = timeline_.get();
            clock_.begin_phase();
        }
        Shown(const Shown&) = delete;
        Shown& operator=(const Shown&) = delete;
        ~Shown() {
            clock_.end_phase();
            clock_.timeline_ = nullptr;
        }

      private:
        PhaseClock& clock_;
        std::unique_ptr<Timeline> timeline_;
    };
    /// A range around the phases from its beginning to its end: a layer, a stage.
    class Span {
      public:
        Span(PhaseClock& clock, const std::string& name) : clock_(clock) {
            clock_.end_phase();
            if (clock_.timeline_ != nullptr) clock_.timeline_->push(name);
            clock_.begin_phase();
        }
        Span(const Span&) = delete;
        Span& operator=(const Span&) = delete;
        ~Span() {
            clock_.end_phase();
            if (clock_.timeline_ != nullptr) clock_.timeline_->pop();
            clock_.begin_phase();
        }

      private:
        PhaseClock& clock_;
    };

  private:
    using Clock = std::chrono::steady_clock;
    void begin_phase() {
        if (timeline_ != nullptr) timeline_->push(phase_names[static_cast<std::size_t>(phase_)]);
    }
    void end_phase() {
        if (timeline_ != nullptr) timeline_->pop();
    }

    std::function<void()> settle_;
    Clock::time_point start_ = Clock::now(), mark_ = start_;
    Phase phase_ = Phase::setup;
    PhaseSeconds seconds_{};
    Timeline* timeline_ = nullptr;
};

}  // namespace fairgptq
