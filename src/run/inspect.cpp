#include "run/inspect.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "model/family.hpp"
#include "support/error.hpp"
#include "support/json.hpp"
#include "support/table.hpp"

namespace fairgptq {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array summed{"reconstruction", "bias_before", "bias_after", "seconds"};

Json describe(std::int64_t layer, const ModuleSolution& module) {
    Json json{{"layer", layer},      {"module", module.name},           {"rows", module.rows},    {"cols", module.cols},
              {"bits", module.bits}, {"group_size", module.group_size}, {"sym", module.symmetric}};
    for (const auto& [name, member] : module_figures)
        json[name] = module.*member;
    return json;
}

void add_to_totals(Json& totals, const Json& module) {
    Json& total = totals[kind_of_linear(module["module"].get<std::string>())];
    if (total.is_null()) total = Json::object();
    total["modules"] = total.value("modules", 0) + 1;
    for (const char* figure : summed)
        total[figure] = total.value(figure, 0.0) + module[figure].get<double>();
}

/// What bias is left, in percent of what there was; "-" where the calibration had no pairs.
std::string percent_left(const Json& figures) {
    const double before = figures["bias_before"].get<double>();
    return before > 0 ? fmt::format("{:.1f}%", 100 * figures["bias_after"].get<double>() / before) : "-";
}

std::string figure(const Json& object, const char* name) {
    return format_figure(object[name].get<double>());
}
std::string seconds(const Json& object) {
    return fmt::format("{:.2f}", object["seconds"].get<double>());
}

std::string grid_of(const Json& module) {
    const bool row = module["group_size"] == module["cols"];
    return fmt::format("{}/{}{}", module["bits"].get<int>(), row ? "row" : json_text(module["group_size"]),
                       module["sym"].get<bool>() ? "" : "a");
}

/// Modules as a table shows them: the experts of a layer in one row, figures summed, and what else there is of each as
/// lists of all.
Json with_experts_together(const Json& modules) {
    Json rows = Json::array();
    std::map<std::pair<std::int64_t, std::string>, std::size_t> places;
    for (const Json& module : modules) {
        const std::string kind = kind_of_linear(module["module"].get<std::string>());
        const auto [place, first] = places.try_emplace({module["layer"].get<std::int64_t>(), kind}, rows.size());
        if (first) {
            rows.push_back(module);
            rows.back()["module"] = kind;
            for (const char* list : {"alpha", "damp_used", "shift_norm", "grid"})
                rows.back()[list] = Json::array();
        } else {
            for (const char* sum : summed)
                rows[place->second][sum] = rows[place->second][sum].get<double>() + module[sum].get<double>();
        }
        for (const char* number : {"alpha", "damp_used", "shift_norm"})
            rows[place->second][number].push_back(module[number]);
        rows[place->second]["grid"].push_back(grid_of(module));
    }
    return rows;
}

/// The smallest and the largest of some numbers, or the one that they all are.
std::string span(const Json& numbers, std::string (*text)(double)) {
    const auto [least, most] = std::minmax_element(numbers.begin(), numbers.end());
    const std::string first = text(least->get<double>()), last = text(most->get<double>());
    return first == last ? first : first + ".." + last;
}
/// Each once, in the order of the list.
std::string distinct(const Json& texts) {
    std::vector<std::string> list;
    for (const Json& text : texts)
        if (std::ranges::find(list, text.get<std::string>()) == list.end()) list.push_back(text.get<std::string>());
    return fmt::format("{}", fmt::join(list, " "));
}
std::string general(double value) {
    return fmt::format("{:g}", value);
}

constexpr const char* legend =
    "\nreconstr.: tr((W-Q)H(W-Q)'); bias: tr(WCW') before and tr(QCQ') after, and what is left of it";

/// Settings by dotted name, one a line.
void append_settings(std::string& text, const Json& settings, const std::string& prefix) {
    for (const auto& [key, value] : settings.items()) {
        const std::string name = prefix.empty() ? key : prefix + "." + key;
        if (value.is_object() && !value.empty())
            append_settings(text, value, name);
        else if (name == "model.files")
            text += fmt::format("  {:<28} {} file{}\n", name, value.size(), value.size() == 1 ? "" : "s");
        else
            text += fmt::format("  {:<28} {}\n", name, value.is_string() ? value.get<std::string>() : json_text(value));
    }
}

}  // namespace

nlohmann::ordered_json inspect_json(const RunDirectory& run) {
    const FinishedLayers finished = run.finished_layers(false);
    Json modules = Json::array();
    Json totals = Json::object();
    for (std::int64_t layer = 0; layer < finished.layers(); ++layer) {
        if (!finished.is_there(layer)) continue;
        for (const ModuleSolution& module : run.layer(layer).modules) {
            modules.push_back(describe(layer, module));
            add_to_totals(totals, modules.back());
        }
    }
    return {{"run", run.path().string()},
            {"fingerprint", run.fingerprint()},
            {"layers", run.layers()},
            {"finished_layers", finished.count()},
            {"settings", run.settings()},
            {"modules", modules},
            {"totals", totals}};
}

std::string inspect_text(const nlohmann::ordered_json& report) {
    const auto layers = report["layers"].get<std::int64_t>();
    const auto finished = report["finished_layers"].get<std::int64_t>();
    const auto whole = report["settings"].value(nlohmann::json::json_pointer("/model/layers"), layers);
    std::string text = fmt::format("{}: {} of {} layers finished{}{}\n\nsettings\n", report["run"].get<std::string>(),
                                   finished, layers, layers < whole ? fmt::format(", of the model's {}", whole) : "",
                                   finished < layers ? " (go on with quantize --resume)" : "");
    append_settings(text, report["settings"], "");
    if (finished == 0) return text;

    const Json modules = with_experts_together(report["modules"]);
    const bool grids = report["settings"].value("quantization", Json::object()).contains("module_map");
    std::vector<std::vector<std::string>> rows{
        {"module", "alpha", "damp", "reconstr.", "bias before", "after", "left", "shift", "seconds"}};
    for (const Json& module : modules)
        rows.push_back(
            {fmt::format("{:>3} {}", module["layer"].get<std::int64_t>(), module["module"].get<std::string>()),
             span(module["alpha"], general), span(module["damp_used"], general), figure(module, "reconstruction"),
             figure(module, "bias_before"), figure(module, "bias_after"), percent_left(module),
             span(module["shift_norm"], format_figure), seconds(module)});
    if (grids) {
        rows[0].insert(rows[0].begin() + 1, "grid");
        for (std::size_t i = 0; i < modules.size(); ++i)
            rows[i + 1].insert(rows[i + 1].begin() + 1, distinct(modules[i]["grid"]));
    }
    text += "\n" + format_table(rows);

    rows = {{"all layers", "modules", "reconstr.", "bias before", "after", "left", "seconds"}};
    for (const auto& [name, total] : report["totals"].items())
        rows.push_back({name, json_text(total["modules"]), figure(total, "reconstruction"),
                        figure(total, "bias_before"), figure(total, "bias_after"), percent_left(total),
                        seconds(total)});
    text += "\n" + format_table(rows);
    text += legend;
    text += ";\nshift: norm of the debiased target's distance from W, as a share of W's\n";
    if (grids) text += "grid: bits and columns of a group, a: asymmetric\n";
    return text;
}

std::string inspect_sweep_text(const std::string& name, const nlohmann::ordered_json& reports) {
    std::vector<std::vector<std::string>> rows{
        {"run", "layers", "reconstr.", "bias before", "after", "left", "seconds"}};
    for (const Json& report : reports) {
        Json sums = Json::object();
        for (const char* figure : summed) {
            double sum = 0;
            for (const Json& total : report["totals"])
                sum += total[figure].get<double>();
            sums[figure] = sum;
        }
        const std::string run = std::filesystem::path(report["run"].get<std::string>()).filename().string();
        rows.push_back({run,
                        fmt::format("{} of {}", report["finished_layers"].get<std::int64_t>(),
                                    report["layers"].get<std::int64_t>()),
                        figure(sums, "reconstruction"), figure(sums, "bias_before"), figure(sums, "bias_after"),
                        percent_left(sums), seconds(sums)});
    }
    return fmt::format("{}: {} run{} of a sweep, sums over all modules of finished layers\n\n{}{}\n", name,
                       reports.size(), reports.size() == 1 ? "" : "s", format_table(rows), legend);
}

}  // namespace fairgptq
