#include "pipeline/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "support/say.hpp"
#include "support/table.hpp"

namespace fairgptq {
Progress::Progress(PhaseClock& clock, std::int64_t layers, bool visible, std::vector<double> work)
    : clock_(clock),
      layers_(layers),
      visible_(visible),
      terminal_(::isatty(STDERR_FILENO) == 1),
      work_(std::move(work)) {}

void Progress::begin_layer(std::int64_t layer, bool replayed, std::int64_t missing) {
    layer_ = layer;
    replayed_ = replayed;
    missing_ = missing;
    before_layer_ = {clock_.seconds(), clock_.elapsed()};
    draw(0);
}

void Progress::layer_done(double share) {
    draw(share);
}

RankTimes Progress::layer_times() const {
    RankTimes times{clock_.seconds(), clock_.elapsed() - before_layer_.elapsed};
    for (std::size_t phase = 0; phase < times.phases.size(); ++phase)
        times.phases[phase] -= before_layer_.phases[phase];
    return times;
}

nlohmann::json Progress::layer_event(const LayerRecord* record, const std::vector<RankTimes>& ranks) const {
    double seconds = 0;
    for (const RankTimes& rank : ranks)
        seconds = std::max(seconds, rank.elapsed);
    nlohmann::json event{
        {"event", replayed_ ? "replayed" : "layer"}, {"layer", layer_}, {"layers", layers_}, {"seconds", seconds}};
    add_times(event, ranks);
    if (record == nullptr) return event;
    nlohmann::json& modules = event["modules"] = nlohmann::json::object();
    for (const ModuleSolution& module : record->modules)
        modules[module.name] = {{"alpha", module.alpha},
                                {"damp_used", module.damp_used},
                                {"reconstruction", module.reconstruction},
                                {"bias_before", module.bias_before},
                                {"bias_after", module.bias_after}};
    return event;
}

void Progress::end_layer(std::span<const LayerRecord> records) {
    if (visible_ && !terminal_) {
        const double took = layer_times().elapsed;
        std::string figures;
        if (records.size() == 1) {
            double before = 0, after = 0, reconstruction = 0;
            for (const ModuleSolution& module : records.front().modules) {
                before += module.bias_before;
                after += module.bias_after;
                reconstruction += module.reconstruction;
            }
            figures = records.front().modules.empty() ? ", all modules ignored"
                                                      : fmt::format(", reconstruction {:.4g}, bias {:.4g} -> {:.4g}",
                                                                    reconstruction, before, after);
        }
        say("layer {:>3} of {}: {}{:.1f} s{}\n", layer_ + 1, layers_, replayed_ ? "replayed in " : "", took, figures);
    }
    draw(1);
    if (replayed_) return;
    work_solved_ += work_of(layer_);
    seconds_solving_ += layer_times().elapsed;
}

void Progress::draw(double share) {
    if (!visible_ || !terminal_) return;
    winsize window{};
    const int columns = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 ? window.ws_col : 80;
    const double solving = replayed_ ? 0 : share * work_of(layer_);
    std::string left;
    if (work_solved_ + solving > 0) {
        double missing = 0;
        for (std::int64_t layer = layers_ - missing_; layer < layers_; ++layer)
            missing += work_of(layer);
        const double seconds = seconds_solving_ + (replayed_ ? 0 : layer_times().elapsed);
        left = fmt::format(", {} left", format_duration(seconds / (work_solved_ + solving) * (missing - solving)));
    }
    const double done = layers_ > 0 ? (static_cast<double>(layer_) + share) / static_cast<double>(layers_) : 1;
    const std::string text =
        fmt::format(" layer {}/{}{}{}", std::min(layer_ + 1, layers_), layers_, replayed_ ? ", replaying" : "", left);
    const int width = std::clamp(columns - static_cast<int>(text.size()) - 4, 5, 40);
    const int filled = static_cast<int>(done * width);
    say("\r[{:=<{}}{:{}}]{}\033[K", "", filled, "", width - filled, text);
}

void Progress::close() {
    if (visible_ && terminal_) say("\n");
}

}  // namespace fairgptq
