#include "commands/solver_options.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "commands/options.hpp"
#include "support/error.hpp"

namespace fairgptq::commands {

void add_solver_options(cxxopts::Options& options) {
    const auto text = [](const char* preset) { return cxxopts::value<std::string>()->default_value(preset); };
    options.add_options("solver")                                                                      //
        ("alpha", "weight of the bias term; 0 is GPTQ", cxxopts::value<Real>()->default_value("0.1"))  //
        ("solver", "joint, reference or reference-first-order", text("joint"))                         //
        ("bits", "bits of a code: 2, 3, 4 or 8", cxxopts::value<int>()->default_value("4"))            //
        ("group-size", "input columns that share a scale: 32, 64, 128, 256, or -1 for the whole row",
         cxxopts::value<std::int64_t>()->default_value("128"))          //
        ("sym", "symmetric grid (default)")("asym", "asymmetric grid")  //
        ("order", "order of the columns: none; activation (desc_act, not for vLLM); group (whole groups, then within)",
         text("none"))                                                                                 //
        ("static-groups", "fix all scales before the first column; groups stay neighbours in memory")  //
        ("damp", "share of the Hessian's mean diagonal added to it",
         cxxopts::value<Real>()->default_value("0.01"))                              //
        ("scale-search", "none, or mse: the best of shrunken ranges", text("none"))  //
        ("scale-dtype", "precision that scales are rounded to before use: f16 or f32", text("f16"));
}

SolverSettings read_solver_settings(const cxxopts::ParseResult& parsed) {
    if (flag(parsed, "sym") && flag(parsed, "asym")) throw InvalidInput("--sym and --asym exclude each other");
    if (parsed.count("sym") > 0 && !flag(parsed, "sym")) throw InvalidInput("--sym=false: say --asym");
    SolverSettings settings;
    settings.kind = parse_solver_kind(parsed["solver"].as<std::string>());
    settings.grid.bits = parsed["bits"].as<int>();
    settings.grid.group_size = parsed["group-size"].as<std::int64_t>();
    settings.grid.symmetric = !flag(parsed, "asym");
    settings.grid.scale_search = parse_scale_search(parsed["scale-search"].as<std::string>());
    settings.grid.scale_type = parse_scale_type(parsed["scale-dtype"].as<std::string>());
    settings.order = parse_column_order(parsed["order"].as<std::string>());
    settings.static_groups = flag(parsed, "static-groups");
    settings.damp = real(parsed, "damp");
    check(settings);
    read_alpha(parsed);
    return settings;
}

double read_alpha(const cxxopts::ParseResult& parsed) {
    const double alpha = real(parsed, "alpha");
    if (!std::isfinite(alpha) || alpha < 0) throw InvalidInput("--alpha is {}; it must be 0 or more", alpha);
    return alpha;
}

nlohmann::json to_json(const SolverSettings& settings) {
    nlohmann::json json{{"solver", to_string(settings.kind)},
                        {"bits", settings.grid.bits},
                        {"group_size", settings.grid.group_size},
                        {"symmetric", settings.grid.symmetric},
                        {"order", to_string(settings.order)},
                        {"static_groups", settings.static_groups},
                        {"damp", settings.damp},
                        {"scale_search", to_string(settings.grid.scale_search)},
                        {"scale_dtype", to_string(settings.grid.scale_type)}};
    // Runs of before it was so cannot be gone on with: their layers are of another order.
    if (settings.order == ColumnOrder::group) json["within_groups"] = to_string(ColumnOrder::activation);
    return json;
}

}  // namespace fairgptq::commands
