// How far a long piece of work is: a bar with the time left on a terminal, a line now and then elsewhere.
#pragma once

#include <chrono>
#include <string>

namespace fairgptq {

class ProgressBar {
  public:
    /// Shows nothing unless `visible` (rank 0). @param what begins the line: "evaluating"
    ProgressBar(std::string what, bool visible);
    ProgressBar(const ProgressBar&) = delete;
    ProgressBar& operator=(const ProgressBar&) = delete;
    ~ProgressBar();

    /// @param share done, from 0 to 1; the time left follows from what was done since the first call
    void at(double share);

  private:
    using Clock = std::chrono::steady_clock;
    std::string what_;
    bool visible_, terminal_, drawn_ = false;
    double first_share_ = -1;
    Clock::time_point start_, shown_;
};

}  // namespace fairgptq
