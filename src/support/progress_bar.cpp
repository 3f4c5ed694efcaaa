#include "support/progress_bar.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <utility>

#include "support/say.hpp"
#include "support/table.hpp"

namespace fairgptq {
namespace {

constexpr int bar_width = 30;
constexpr double seconds_between_lines = 30;  // where there is no terminal

}  // namespace

ProgressBar::ProgressBar(std::string what, bool visible)
    : what_(std::move(what)),
      visible_(visible),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      shown_(start_) {}

ProgressBar::~ProgressBar() {
    if (drawn_ && terminal_) say("\r\033[K");  // what comes next is the result
}

void ProgressBar::at(double share) {
    if (!visible_) return;
    const auto now = Clock::now();
    if (first_share_ < 0) {
        first_share_ = share;
        start_ = now;
    }
    const auto seconds = [&](Clock::time_point since) { return std::chrono::duration<double>(now - since).count(); };
    if (seconds(shown_) < (terminal_ ? 0.1 : seconds_between_lines)) return;
    shown_ = now;
    std::string left;
    if (share > first_share_)
        left = fmt::format(", {} left", format_duration(seconds(start_) * (1 - share) / (share - first_share_)));
    if (terminal_) {
        const int filled = std::clamp(static_cast<int>(share * bar_width), 0, bar_width);
        say("\r[{:=<{}}{:{}}] {} {:.0f} %{}\033[K", "", filled, "", bar_width - filled, what_, 100 * share, left);
    } else {
        say("{}: {:.0f} %{}\n", what_, 100 * share, left);
    }
    drawn_ = true;
}

}  // namespace fairgptq
