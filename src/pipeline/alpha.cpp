#include "pipeline/alpha.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "support/error.hpp"
#include "support/split.hpp"

namespace fairgptq {
namespace {

std::int64_t parse_layer(const std::string& text, const std::string& whole, std::int64_t layers) {
    std::int64_t value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
        throw InvalidInput(
            "--alpha-layers {}: '{}' is neither a layer, a range like 0-3, nor lower:10%, upper:10%, "
            "lower+upper:10%",
            whole, text);
    if (value < 0 || value >= layers)
        throw InvalidInput("--alpha-layers {}: there is no layer {}; this model's layers are 0 to {}", whole, text,
                           layers - 1);
    return value;
}

std::vector<bool> parse_layers(const std::string& text, std::int64_t layers) {
    if (text == "all") return std::vector<bool>(static_cast<std::size_t>(layers), true);
    std::vector<bool> chosen(static_cast<std::size_t>(layers), false);
    for (const std::string& part : split(text)) {
        if (const auto colon = part.find(':'); colon != std::string::npos) {
            const std::string side = part.substr(0, colon);
            double percent = -1;
            const char* end = part.data() + part.size();
            const auto [stop, error] = std::from_chars(part.data() + colon + 1, end, percent);
            if ((side != "lower" && side != "upper" && side != "lower+upper") || error != std::errc() ||
                stop + 1 != end || *stop != '%' || !(percent > 0 && percent <= 100))
                throw InvalidInput(
                    "--alpha-layers {}: '{}' should read lower:10%, upper:10% or lower+upper:10%, with a share "
                    "above 0 and up to 100",
                    text, part);
            const auto count = static_cast<std::int64_t>(std::ceil(static_cast<double>(layers) * percent / 100 - 1e-9));
            for (std::int64_t i = 0; i < count; ++i) {
                if (side != "upper") chosen[static_cast<std::size_t>(i)] = true;
                if (side != "lower") chosen[static_cast<std::size_t>(layers - 1 - i)] = true;
            }
        } else {
            const auto dash = part.find('-');
            const std::int64_t first = parse_layer(part.substr(0, dash), text, layers);
            const std::int64_t last =
                dash == std::string::npos ? first : parse_layer(part.substr(dash + 1), text, layers);
            if (last < first) throw InvalidInput("--alpha-layers {}: the range '{}' runs backwards", text, part);
            std::fill(chosen.begin() + first, chosen.begin() + last + 1, true);
        }
    }
    if (std::none_of(chosen.begin(), chosen.end(), [](bool one) { return one; }))
        throw InvalidInput("--alpha-layers '{}' names no layer; use --alpha 0 for plain GPTQ", text);
    return chosen;
}

void check_alpha(double alpha, const std::string& where) {
    if (!(alpha >= 0 && alpha <= 1e6)) throw InvalidInput("{} must be a number from 0 to 1e6, not {}", where, alpha);
}

}  // namespace

ModuleMap<double> read_alpha_map(const std::filesystem::path& file) {
    ModuleMap<double> map;
    const auto json = read_module_map(file, "--alpha-map", "numbers");
    for (const auto& [pattern, value] : json.items()) {
        if (!value.is_number())
            throw InvalidInput("--alpha-map {}: the value of '{}' is not a number", file.string(), pattern);
        check_alpha(value.get<double>(), fmt::format("--alpha-map {}: the value of '{}'", file.string(), pattern));
        map.emplace_back(pattern, value.get<double>());
    }
    return map;
}

AlphaPolicy::AlphaPolicy(const AlphaSettings& settings, const Family& family)
    : settings_(settings),
      family_(family),
      layers_(parse_layers(settings.layers, family.config.layers)),
      patterns_(patterns_of(settings.map)) {
    check_alpha(settings.alpha, "--alpha");
    if (settings.modules != "all") modules_ = ModuleList(split(settings.modules), "--alpha-modules", family);
    patterns_.check("--alpha-map", family);
}

double AlphaPolicy::operator()(std::int64_t layer, const std::string& module) const {
    const std::string full = family_.layer(layer) + module;
    if (const auto entry = patterns_.first(full)) return settings_.map[*entry].second;
    const bool named = modules_.empty() || modules_.contains(module, full);
    return named && layers_[static_cast<std::size_t>(layer)] ? settings_.alpha : 0.0;
}

bool AlphaPolicy::any(const ModuleGrids& grids) const {
    bool found = false;
    for_each_linear(family_, family_.config.layers,
                    [&](std::int64_t layer, const StageSpec&, const LinearSpec& linear) {
                        found = found || ((*this)(layer, linear.name) != 0 && grids(layer, linear.name));
                    });
    return found;
}

}  // namespace fairgptq
