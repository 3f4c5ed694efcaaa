#include "pipeline/alpha.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/error.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);)
        parts.push_back(part);
    return parts;
}

/// "o_proj" of "self_attn.o_proj".
std::string last_name(const std::string& module) {
    return module.substr(module.rfind('.') + 1);
}

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
    for (const std::string& part : split(text, ',')) {
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

std::vector<std::pair<std::string, double>> read_alpha_map(const std::filesystem::path& file) {
    std::error_code ignored;
    if (std::filesystem::exists(file, ignored) && !std::filesystem::is_regular_file(file, ignored))
        throw InvalidInput("--alpha-map {} is not a file", file.string());
    std::ifstream stream(file);
    if (!stream) throw InvalidInput("--alpha-map {} cannot be opened", file.string());
    const auto json = parse_ordered_json(std::string(std::istreambuf_iterator<char>(stream), {}));
    if (!json.is_object() || json.empty())
        throw InvalidInput("--alpha-map {} must hold a JSON object of module patterns and numbers", file.string());
    std::vector<std::pair<std::string, double>> map;
    for (const auto& [pattern, value] : json.items()) {
        if (!value.is_number())
            throw InvalidInput("--alpha-map {}: the value of '{}' is not a number", file.string(), pattern);
        check_alpha(value.get<double>(), fmt::format("--alpha-map {}: the value of '{}'", file.string(), pattern));
        map.emplace_back(pattern, value.get<double>());
    }
    return map;
}

AlphaPolicy::AlphaPolicy(const AlphaSettings& settings, const Family& family)
    : settings_(settings), family_(family), layers_(parse_layers(settings.layers, family.config.layers)) {
    check_alpha(settings.alpha, "--alpha");
    std::vector<std::string> known;
    for (const std::int64_t layer : family.kinds_of_layers())
        for (const StageSpec& stage : family.stages_of(layer))
            for (const LinearSpec& linear : stage.linears)
                known.push_back(linear.name);
    if (settings.modules != "all") {
        modules_ = split(settings.modules, ',');
        if (modules_.empty()) throw InvalidInput("--alpha-modules names no module; use --alpha 0 for plain GPTQ");
        for (const std::string& name : modules_) {
            const bool fits = std::any_of(known.begin(), known.end(), [&](const std::string& module) {
                return module == name || last_name(module) == name;
            });
            if (fits) continue;
            std::vector<std::string> last;
            for (const std::string& module : known)
                if (std::ranges::find(last, last_name(module)) == last.end()) last.push_back(last_name(module));
            throw InvalidInput("--alpha-modules: this model has no module '{}'; it has {}", name,
                               fmt::join(last, ", "));
        }
    }
    for (const auto& entry : settings.map) {
        bool fits = false;
        for (std::int64_t layer = 0; layer < family.config.layers && !fits; ++layer)
            for (const StageSpec& stage : family.stages_of(layer))
                fits = fits || std::any_of(stage.linears.begin(), stage.linears.end(), [&](const LinearSpec& linear) {
                           return ::fnmatch(entry.first.c_str(), (family.layer(layer) + linear.name).c_str(), 0) == 0;
                       });
        if (!fits)
            throw InvalidInput("--alpha-map: the pattern '{}' fits no module; names read like {}{}", entry.first,
                               family.layer(family.kinds_of_layers().back()), known.back());
    }
}

double AlphaPolicy::operator()(std::int64_t layer, const std::string& module) const {
    const std::string full = family_.layer(layer) + module;
    for (const auto& [pattern, alpha] : settings_.map)
        if (::fnmatch(pattern.c_str(), full.c_str(), 0) == 0) return alpha;
    const bool named = modules_.empty() || std::any_of(modules_.begin(), modules_.end(), [&](const std::string& name) {
                           return name == module || name == last_name(module);
                       });
    return named && layers_[static_cast<std::size_t>(layer)] ? settings_.alpha : 0.0;
}

bool AlphaPolicy::any() const {
    for (std::int64_t layer = 0; layer < family_.config.layers; ++layer)
        for (const StageSpec& stage : family_.stages_of(layer))
            for (const LinearSpec& linear : stage.linears)
                if ((*this)(layer, linear.name) != 0) return true;
    return false;
}

}  // namespace fairgptq
