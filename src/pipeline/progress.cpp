#include "pipeline/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace fairgptq {
namespace {

std::string duration(double seconds) {
    const auto whole = static_cast<std::int64_t>(seconds + 0.5);
    if (whole >= 3600) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
    return whole >= 60 ? fmt::format("{}m{:02}s", whole / 60, whole % 60) : fmt::format("{}s", whole);
}

}  // namespace

Progress::Progress(std::int64_t layers, bool visible)
    : layers_(layers), visible_(visible), terminal_(::isatty(STDERR_FILENO) == 1), start_(Clock::now()) {
    mark_ = layer_start_ = solving_start_ = start_;
}

double Progress::seconds() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
}

void Progress::spent(Phase phase) {
    const auto now = Clock::now();
    spent_[static_cast<std::size_t>(phase)] += std::chrono::duration<double>(now - mark_).count();
    mark_ = now;
}

void Progress::begin_layer(std::int64_t layer, bool replayed) {
    layer_ = layer;
    replayed_ = replayed;
    layer_start_ = mark_ = Clock::now();
    spent_.fill(0);
    if (!replayed && first_solved_ < 0) {
        first_solved_ = layer;
        solving_start_ = layer_start_;
    }
    draw(static_cast<double>(layer));
}

void Progress::stage_done(int stage) {
    draw(static_cast<double>(layer_) + (stage + 1) / 4.0);
}

nlohmann::json Progress::end_layer(const LayerRecord* record) {
    const double took = std::chrono::duration<double>(Clock::now() - layer_start_).count();
    nlohmann::json event{{"event", replayed_ ? "replayed" : "layer"}, {"layer", layer_}, {"seconds", took}};
    for (std::size_t phase = 0; phase < spent_.size(); ++phase)
        event["phases"][phase_names[phase]] = spent_[phase];
    double before = 0, after = 0, reconstruction = 0;
    if (record != nullptr)
        for (const ModuleSolution& module : record->modules) {
            event["modules"][module.name] = {{"alpha", module.alpha},
                                             {"damp_used", module.damp_used},
                                             {"reconstruction", module.reconstruction},
                                             {"bias_before", module.bias_before},
                                             {"bias_after", module.bias_after}};
            before += module.bias_before;
            after += module.bias_after;
            reconstruction += module.reconstruction;
        }
    if (visible_ && !terminal_) {
        if (record == nullptr)
            fmt::print(stderr, "layer {:>3} of {}: replayed in {:.1f} s\n", layer_ + 1, layers_, took);
        else
            fmt::print(stderr, "layer {:>3} of {}: {:.1f} s, reconstruction {:.4g}, bias {:.4g} -> {:.4g}\n",
                       layer_ + 1, layers_, took, reconstruction, before, after);
    }
    draw(static_cast<double>(layer_ + 1));
    return event;
}

void Progress::draw(double layers_done) {
    if (!visible_ || !terminal_) return;
    winsize window{};
    const int columns = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 ? window.ws_col : 80;
    const double share = layers_ > 0 ? layers_done / static_cast<double>(layers_) : 1;
    std::string left;
    if (first_solved_ >= 0 && layers_done > static_cast<double>(first_solved_)) {
        const double spent = std::chrono::duration<double>(Clock::now() - solving_start_).count();
        const double rate = spent / (layers_done - static_cast<double>(first_solved_));
        left = fmt::format(", {} left", duration(rate * (static_cast<double>(layers_) - layers_done)));
    }
    const std::string text =
        fmt::format(" layer {}/{}{}{}", std::min(layer_ + 1, layers_), layers_, replayed_ ? ", replaying" : "", left);
    const int width = std::clamp(columns - static_cast<int>(text.size()) - 4, 5, 40);
    const int filled = static_cast<int>(share * width);
    fmt::print(stderr, "\r[{:=<{}}{:{}}]{}\033[K", "", filled, "", width - filled, text);
    std::fflush(stderr);
}

void Progress::close() {
    if (visible_ && terminal_) fmt::print(stderr, "\n");
}

}  // namespace fairgptq
